"""Upserts, inserts and deletes of one commit: in their order, each once, with its own counts, a bad one alone."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearmq_index_store import intents, ledger
from nearmq_index_store.blobs import BlobStore, Buffer, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome, Write
from nearmq_index_store.errors import AlreadyExists, DimensionMismatch, InvalidArgument, InvalidExpression
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.ledger import job_time_ms
from nearmq_index_store.schema import IndexSpec, PrimaryKey, ScalarField, Schema, VectorField

FIELD = VectorField(name="vector", dim=2, metric="L2", index=IndexSpec(kind="HNSW"))
YEAR = ScalarField(name="year", type="int64", nullable=True)


def schema(primary_key: PrimaryKey = "int64", scalars: Sequence[ScalarField] = (YEAR,)) -> Schema:
    return Schema(primary_key=primary_key, vector_fields=(FIELD,), scalar_fields=tuple(scalars))


class Books:
    """A collection and what is asked of it."""

    def __init__(self, store: BlobStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.jobs = 0
        self.catalog = Catalog(store, folder=folder)

    def reopen(self) -> None:
        self.catalog = Catalog(self.store, folder=self.folder)

    def write(self, *writes: intents.Intent, first_job: int | None = None) -> list[Outcome]:
        first = self.jobs if first_job is None else first_job
        self.jobs = max(self.jobs, first + len(writes))
        jobs = [Write(job_id=f"job {first + place}", intent=intent) for place, intent in enumerate(writes)]
        return self.catalog.write("books", jobs)

    def rows(self) -> dict[int | str, tuple[str, float, int | None]]:
        """By key the partition, the first number of the vector, and the year, read back from the store."""
        snapshot = self.catalog.snapshot("books")
        found: dict[int | str, tuple[str, float, int | None]] = {}
        readers = self.catalog.readers
        for entry in snapshot.segments:
            deleted = readers.deletes.deleted(entry)
            assert len(deleted) == entry.rows - entry.live_rows
            with readers.use_rows(snapshot.manifest, entry) as rows:
                for row in set(range(entry.rows)).difference(deleted.numbers().tolist()):
                    key = rows.keys[row].as_py()
                    assert key not in found, f"{key} is in two rows"
                    year = rows.column("year")[row].as_py()
                    found[key] = entry.partition, float(rows.vectors("vector")[row, 0]), year
        return found


@pytest.fixture
def books(tmp_path: Path) -> Books:
    made = Books(open_store("memory:"), tmp_path)
    made.catalog.create("books", schema(), job_id="create")
    made.catalog.create_partition("books", "p", job_id="partition")
    return made


def rows_of(values: Mapping[Any, float], years: Sequence[int | None] | None = None) -> GivenRows:
    vectors = np.array([[value, 0] for value in values.values()], np.float32).reshape(-1, 2)
    return GivenRows(ids=list(values), vectors=vectors, scalars={} if years is None else {"year": years})


def counts(outcomes: Sequence[Outcome]) -> list[dict[str, int]]:
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    return [outcome.counts for outcome in outcomes]


def test_jobs_of_one_commit_take_effect_in_their_order_as_one_version(books: Books):
    outcomes = books.write(
        intents.upsert(rows_of({1: 1.0, 2: 2.0, 3: 3.0})),
        intents.delete([2, 9]),
        intents.upsert(rows_of({3: 3.5, 2: 2.5})),
        intents.insert(rows_of({4: 4.0}), "p"),
        intents.delete([1]),
    )
    assert counts(outcomes) == [
        {"inserted": 3, "replaced": 0},
        {"deleted": 1},
        {"inserted": 1, "replaced": 1},
        {"inserted": 1},
        {"deleted": 1},
    ]
    assert {outcome.version for outcome in outcomes} == {3}
    assert books.rows() == {2: ("_default", 2.5, None), 3: ("_default", 3.5, None), 4: ("p", 4.0, None)}


def test_a_bad_job_fails_alone_and_its_error_is_recorded(books: Books):
    books.write(intents.upsert(rows_of({1: 1.0})))
    bad = [
        intents.insert(rows_of({7: 7.0, 1: 9.0})),
        intents.insert(rows_of({5: 5.0})),
        intents.upsert(GivenRows(ids=[6], vectors=np.zeros((1, 3), np.float32), scalars={})),
        intents.delete_where("yaer > 1", {}),
        intents.upsert(rows_of({8: 1.0}, years=["no"])),  # type: ignore[list-item]
        intents.upsert(GivenRows(ids=[6, 6], vectors=np.zeros((2, 2), np.float32), scalars={})),
    ]
    outcomes = books.write(intents.upsert(rows_of({5: 5.0})), *bad)
    assert [type(outcome.error) for outcome in outcomes[1:]] == [
        AlreadyExists,
        AlreadyExists,
        DimensionMismatch,
        InvalidExpression,
        InvalidArgument,
        InvalidArgument,
    ]
    assert "ids[1] is 1" in str(outcomes[1].error)
    assert "'year': expected int64, got 'no'" in str(outcomes[5].error)
    assert books.rows().keys() == {1, 5}
    books.write(intents.delete([1, 5]))
    again = books.write(intents.upsert(rows_of({5: 5.0})), *bad, first_job=1)
    assert [str(outcome.error) for outcome in again] == [str(outcome.error) for outcome in outcomes]
    assert not books.rows()


def test_an_upsert_into_another_partition_moves_the_row(books: Books):
    books.write(intents.upsert(rows_of({1: 1.0, 2: 2.0})))
    assert counts(books.write(intents.upsert(rows_of({1: 1.5}), "p"))) == [{"inserted": 0, "replaced": 1}]
    assert books.rows() == {1: ("p", 1.5, None), 2: ("_default", 2.0, None)}
    assert counts(books.write(intents.delete([1, 2], "p"))) == [{"deleted": 1}]
    assert books.rows().keys() == {2}


def test_a_delete_by_an_expression_meets_rows_of_segments_and_of_its_own_commit(books: Books):
    books.write(intents.upsert(rows_of(dict.fromkeys(range(6), 0.0), years=[0, 1, 2, 3, None, 5])))
    outcomes = books.write(
        intents.upsert(rows_of({6: 0.0, 7: 0.0, 2: 0.0}, years=[1, 9, 9])),
        intents.delete_where("year >= {least} or id == 0", {"least": 3}),
        intents.insert(rows_of({3: 1.0})),
    )
    assert counts(outcomes) == [{"inserted": 2, "replaced": 1}, {"deleted": 5}, {"inserted": 1}]
    assert books.rows().keys() == {1, 3, 4, 6}


def test_a_segment_without_live_rows_is_gone(books: Books):
    books.write(intents.upsert(rows_of({1: 1.0, 2: 2.0})))
    books.write(intents.delete([1]))
    [entry] = books.catalog.snapshot("books").segments
    assert entry.live_rows == 1
    books.write(intents.delete([2]))
    assert books.catalog.snapshot("books").segments == ()


@pytest.mark.parametrize("primary_key", ["int64", "string"])
@pytest.mark.parametrize("seed", range(4))
def test_random_jobs_leave_what_a_dictionary_would(tmp_path: Path, seed: int, primary_key: PrimaryKey):
    rng = random.Random(seed)
    books = Books(open_store("memory:"), tmp_path)
    books.catalog.create("books", schema(primary_key), job_id="create")
    keys: list[Any] = list(range(-5, 40)) if primary_key == "int64" else [f"k{number}" for number in range(45)]
    model: dict[Any, tuple[str, float, int | None]] = {}
    for _ in range(25):
        batch = []
        for _ in range(rng.randint(1, 4)):
            chosen = rng.sample(keys, rng.randint(1, 8))
            kind = rng.choice(["upsert", "upsert", "insert", "delete", "where"])
            if kind == "delete":
                batch.append(intents.delete(chosen))
                for key in chosen:
                    model.pop(key, None)
            elif kind == "where":
                year = rng.randint(0, 9)
                batch.append(intents.delete_where(f"year == {year}", {}))
                model = {key: row for key, row in model.items() if row[2] != year}
            else:
                values = {key: float(rng.randint(0, 99)) for key in chosen}
                years = [rng.choice([None, *range(10)]) for _ in chosen]
                batch.append(getattr(intents, kind)(rows_of(values, years)))
                if kind == "upsert" or not model.keys() & set(chosen):
                    rows = zip(values.items(), years, strict=True)
                    model |= {key: ("_default", value, year) for (key, value), year in rows}
        books.write(*batch)
        if rng.random() < 0.3:
            books.reopen()
        assert books.rows() == model


def test_a_field_that_is_added_later_is_null_in_older_rows_and_given_by_newer_ones(books: Books):
    books.write(intents.upsert(rows_of({1: 1.0})))
    before = books.catalog.snapshot("books")
    note = ScalarField(name="note", type="string", nullable=True)
    books.catalog.add_fields("books", [note], job_id="add")
    assert books.catalog.snapshot("books").segments == before.segments
    given = GivenRows(ids=[2], vectors=np.zeros((1, 2), np.float32), scalars={"note": ["new"]})
    books.write(intents.upsert(given), intents.delete_where("note == 'old'", {}))
    snapshot = books.catalog.snapshot("books")
    notes = {}
    for entry in snapshot.segments:
        with books.catalog.readers.use_rows(snapshot.manifest, entry) as rows:
            notes |= dict(zip(rows.keys.to_pylist(), rows.column("note").to_pylist(), strict=True))
    assert notes == {1: None, 2: "new"}
    with pytest.raises(AlreadyExists, match="a field 'note' already"):
        books.catalog.add_fields("books", [note], job_id="again")
    with pytest.raises(InvalidArgument, match="must be nullable"):
        books.catalog.add_fields("books", [ScalarField(name="other", type="bool")], job_id="other")


def test_jobs_are_recognised_long_after_they_left_the_root(books: Books, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ledger, "MAX_RECENT_JOBS", 8)
    for number in range(200):
        books.write(intents.upsert(rows_of({number: 0.0})))
    books.reopen()
    manifest = books.catalog.snapshot("books").manifest
    assert len(manifest.ledger.recent) <= 8
    assert 1 < len(manifest.ledger.older) < 8
    for number in range(0, 200, 7):
        [outcome] = books.write(intents.upsert(rows_of({number: 1.0})), first_job=number)
        assert (outcome.version, outcome.counts) == (number + 3, {"inserted": 1, "replaced": 0})
    assert books.catalog.snapshot("books").manifest.version == manifest.version


def test_the_time_of_a_job_is_that_of_its_uuid_of_version_7():
    assert job_time_ms("0192f0c1-2b3c-7d4e-8f50-617283940a1b") == 0x0192F0C12B3C
    assert job_time_ms("0192f0c1-2b3c-4d4e-8f50-617283940a1b") is None
    assert job_time_ms("0192f0c12b3c7d4e8f50617283940a1b") is None
    assert job_time_ms("my job") is None


def test_another_try_stores_the_rows_of_the_jobs_that_are_left(books: Books):
    """One of two jobs is taken in by another worker between the tries, and the other had no effect in the first."""
    first = Write(job_id="first", intent=intents.insert(rows_of({1: 1.0})))
    second = Write(job_id="second", intent=intents.upsert(rows_of({2: 2.0}), "q"))
    other = Catalog(books.store, folder=books.folder)

    class Overtaken:
        def __getattr__(self, name: str) -> Any:
            return getattr(books.store, name)

        def put_if_absent(self, key: str, data: Buffer) -> bool:
            if "q" not in other.snapshot("books").manifest.partitions:
                other.write("books", [first])
                other.create_partition("books", "q", job_id="q")
            return books.store.put_if_absent(key, data)

    outcomes = Catalog(Overtaken(), folder=books.folder).write("books", [first, second])

    assert [outcome.counts for outcome in outcomes] == [{"inserted": 1}, {"inserted": 1, "replaced": 0}]
    assert books.rows() == {1: ("_default", 1.0, None), 2: ("q", 2.0, None)}
