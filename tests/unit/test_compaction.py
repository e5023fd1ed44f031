"""Merged segments: the same live rows, whatever was written, deleted, killed or collected meanwhile."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep, time
from typing import Any

import numpy as np
import pytest

from nearmq_index_store import intents
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.compaction import (
    Compacted,
    CompactionLimits,
    CompactionProgress,
    Step,
    Workplace,
    compact,
    compact_all,
    plan_compaction,
)
from nearmq_index_store.compaction.claims import Claim, claim_key, claimed
from nearmq_index_store.compaction.steps import step_job_id
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, PartitionNotFound, StoreUnavailable
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.ledger import job_time_ms
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import PrimaryKey, ScalarField, Schema, VectorField
from nearmq_index_store.sealed import seal
from nearmq_index_store.verifying import verify
from tests.segments import vector_field
from tests.unit.test_commit import Faults, Killed

DIM = 4
LIMITS = CompactionLimits()
SCALARS = (
    ScalarField(name="year", type="int64"),
    ScalarField(name="title", type="string", nullable=True),
    ScalarField(name="facts", type="json", nullable=True),
    ScalarField(name="tags", type="array<string>", nullable=True),
)

KINDS = [
    vector_field(DIM, "L2", "FLAT"),
    vector_field(DIM, "COSINE", "HNSW"),
    vector_field(DIM, "L2", "IVF_FLAT", nlist=4),
    vector_field(DIM, "IP", "IVF_SQ8", nlist=4),
    vector_field(DIM, "L2", "IVF_PQ", nlist=4, m=2, nbits=4),
]


def key_of(number: int, primary_key: PrimaryKey) -> Any:
    return number if primary_key == "int64" else f"key {number}"


@dataclass
class Books:
    """A collection of rows whose values all follow from their number and their edition."""

    store: BlobStore
    folder: Path
    schema: Schema
    jobs: int = 0

    def __post_init__(self) -> None:
        self.catalog = Catalog(self.store, folder=self.folder)
        self.expected: dict[Any, dict[str, Any]] = {}

    @classmethod
    def create(
        cls,
        folder: Path,
        *fields: VectorField,
        primary_key: PrimaryKey = "int64",
        scalars: Sequence[ScalarField] = (),
        store: BlobStore | None = None,
    ) -> "Books":
        schema = Schema(primary_key=primary_key, vector_fields=fields or (KINDS[1],), scalar_fields=tuple(scalars))
        books = cls(store or open_store("memory:"), folder, schema)
        books.catalog.create("books", schema, job_id="create")
        return books

    def upsert(self, *numbers: int, edition: int = 0, partition: str = "_default") -> None:
        random = np.random.default_rng([edition, *numbers])
        vectors = {
            field.name: random.standard_normal((len(numbers), field.dim)).astype(np.float32)
            for field in self.schema.vector_fields
        }
        scalars = {
            field.name: [scalar_of(field, number, edition) for number in numbers] for field in self.schema.scalar_fields
        }
        keys = [key_of(number, self.schema.primary_key) for number in numbers]
        self.write(intents.upsert(GivenRows(ids=keys, vectors=vectors, scalars=scalars), partition))
        for place, key in enumerate(keys):
            self.expected[key] = {
                "partition": partition,
                **{name: matrix[place].tolist() for name, matrix in vectors.items()},
                **{name: values[place] for name, values in scalars.items()},
            }

    def delete(self, *numbers: int) -> None:
        keys = [key_of(number, self.schema.primary_key) for number in numbers]
        self.write(intents.delete(keys))
        for key in keys:
            self.expected.pop(key, None)

    def write(self, intent: intents.Intent) -> None:
        self.jobs += 1
        [outcome] = self.catalog.write("books", [Write(job_id=f"write {self.jobs}", intent=intent)])
        assert outcome.error is None

    def snapshot(self) -> Snapshot:
        return Catalog(self.store).snapshot("books")

    def due(self, *, force: bool = False) -> tuple[Manifest, Step]:
        snapshot = self.snapshot()
        step = plan_compaction(snapshot.segments, snapshot.manifest.schema, LIMITS, force=force)
        assert step is not None
        return snapshot.manifest, step

    def workplace(self) -> Workplace:
        return Workplace(folder=self.folder)

    def compact(self, base: Manifest, step: Step, *, job_id: str = "job") -> Compacted | None:
        return compact(self.catalog, base, step, self.workplace(), job_id=job_id)

    def compact_all(self, **options: Any) -> Compacted:
        return compact_all(self.catalog, "books", LIMITS, self.workplace(), **{"job_id": "job", **options})

    def rows(self) -> dict[Any, dict[str, Any]]:
        """All live rows by key, read back from the store."""
        found: dict[Any, dict[str, Any]] = {}
        catalog = Catalog(self.store, folder=self.folder)
        snapshot = catalog.snapshot("books")
        for entry in snapshot.segments:
            live = np.flatnonzero(~catalog.readers.deletes.deleted(entry).mask(entry.rows))
            with catalog.readers.use_rows(snapshot.manifest, entry) as rows:
                for row, key in zip(live.tolist(), rows.ids_at(live).tolist(), strict=True):
                    assert key not in found
                    found[key] = {"partition": entry.partition, **values_of(rows, row, snapshot.manifest.schema)}
        return found

    def check(self) -> None:
        """Every blob is sound, and the rows are those that were written."""
        assert list(verify(Catalog(self.store), "books")) == []
        assert self.rows() == self.expected


def values_of(rows: Rows, row: int, schema: Schema) -> dict[str, Any]:
    vectors = {field.name: rows.vectors(field.name)[row].tolist() for field in schema.vector_fields}
    scalars = {field.name: rows.values_at(field.name, np.array([row]))[0] for field in schema.scalar_fields}
    return vectors | scalars


def scalar_of(field: ScalarField, number: int, edition: int) -> Any:
    if field.nullable and number % 5 == 0:
        return None
    values = {
        "int64": 1_900 + number + edition,
        "string": f"title {number}, edition {edition}",
        "json": {"number": number, "editions": [edition, None], "is": {"old": True}},
        "array<string>": [f"tag {number % 3}"] * (number % 3),
    }
    return values[field.type]


@pytest.fixture
def store() -> BlobStore:
    return open_store("memory:")


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books.create(tmp_path)


def fill(books: Books, segments: int = 10, rows: int = 20) -> None:
    """Write segments, of each of which a fifth is deleted and another replaced."""
    for number in range(segments):
        books.upsert(*range(number * rows, (number + 1) * rows))
    books.delete(*range(0, segments * rows, 5))
    books.upsert(*range(1, segments * rows, 5), edition=1)


@pytest.mark.parametrize("primary_key", ["int64", "string"])
@pytest.mark.parametrize("field", KINDS, ids=lambda field: field.index.kind)
def test_merged_rows_are_the_live_ones_with_the_declared_index(
    tmp_path: Path, field: VectorField, primary_key: PrimaryKey
):
    books = Books.create(tmp_path, field, primary_key=primary_key, scalars=SCALARS)
    fill(books)
    done = books.compact(*books.due())
    [entry] = books.snapshot().segments
    assert entry.indexes[field.name].kind == field.index.kind
    assert entry.deletes is None
    assert done == Compacted(version=14, segments_before=11, segments_after=1, rows=160, dropped=80)
    books.check()


def test_all_vector_fields_of_a_row_stay_together_when_one_of_them_orders_the_rows(tmp_path: Path):
    fields = [
        vector_field(3, "L2", "HNSW", "a"),
        vector_field(4, "L2", "IVF_FLAT", "b", nlist=8),
        vector_field(5, "COSINE", "IVF_FLAT", "c", nlist=8),
    ]
    books = Books.create(tmp_path, *fields, scalars=SCALARS)
    fill(books)
    books.compact(*books.due())
    [entry] = books.snapshot().segments
    assert {name: index.kind for name, index in entry.indexes.items()} == {
        "a": "HNSW",
        "b": "IVF_FLAT",
        "c": "IVF_FLAT",
    }
    books.check()


def test_rows_written_before_a_field_was_added_have_null_in_it_after_a_merge(books: Books):
    fill(books, segments=5)
    added = ScalarField(name="shelf", type="string", nullable=True)
    books.catalog.add_fields("books", [added], job_id="add")
    for row in books.expected.values():
        row["shelf"] = None
    books.schema = books.snapshot().manifest.schema
    for number in range(1_000, 1_100, 20):
        books.upsert(*range(number, number + 20))
    books.compact(*books.due())
    assert len(books.snapshot().segments) == 1
    books.check()


def test_a_field_added_while_a_merge_runs_is_null_in_its_rows(books: Books):
    fill(books)
    base, step = books.due()
    books.catalog.add_fields("books", [ScalarField(name="shelf", type="string", nullable=True)], job_id="add")
    assert books.compact(base, step) is not None
    for row in books.expected.values():
        row["shelf"] = None
    books.check()


@pytest.mark.parametrize("primary_key", ["int64", "string"])
@pytest.mark.parametrize("field", [KINDS[1], KINDS[2]], ids=lambda field: field.index.kind)
def test_rows_deleted_and_replaced_while_a_merge_runs_are_not_alive_again(
    tmp_path: Path, field: VectorField, primary_key: PrimaryKey
):
    books = Books.create(tmp_path, field, primary_key=primary_key)
    fill(books)
    base, step = books.due()
    books.delete(2, 3, 42, 43)
    books.upsert(7, 63, edition=2)
    done = books.compact(base, step)
    assert done is not None
    assert done.rows == 154
    merged = next(entry for entry in books.snapshot().segments if entry.rows == 160)
    assert merged.live_rows == 154
    books.check()


def test_deletes_that_come_with_every_try_of_the_commit_are_all_carried_over(tmp_path: Path):
    books = Books.create(tmp_path, KINDS[2])
    fill(books)
    base, step = books.due()
    racing = Racing(books.store, lambda number: books.delete(100 + 5 * number + 2), races=4)
    done = compact(Catalog(racing, folder=books.folder), base, step, books.workplace(), job_id="job")
    assert racing.races == 0
    assert done is not None
    assert done.rows == 156
    books.check()


class Racing:
    """A store on which somebody else makes each of the next few versions first."""

    def __init__(self, store: BlobStore, race: Callable[[int], None], *, races: int) -> None:
        self._store = store
        self._race = race
        self.races = races
        self.put_keys: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, *parts: Any) -> None:
        self.put_keys.append(key)
        self._store.put(key, *parts)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.races:
            self.races -= 1
            self._race(self.races)
        return self._store.put_if_absent(key, data)


def test_a_merge_of_inputs_whose_rows_were_all_deleted_meanwhile_is_abandoned(books: Books):
    for number in range(8):
        books.upsert(number)
    base, step = books.due()
    books.delete(*range(8))
    assert books.compact(base, step) is None
    assert books.snapshot().segments == ()


def test_a_merge_whose_input_is_gone_is_abandoned_and_leaves_no_blob(books: Books):
    fill(books)
    base, step = books.due()
    books.compact(base, step, job_id="first")
    prefix, version = f"{base.collection_id}/", books.snapshot().manifest.version
    before = set(books.store.list(prefix))
    assert books.compact(base, step, job_id="second") is None
    assert set(books.store.list(prefix)) == before
    assert books.snapshot().manifest.version == version
    books.check()


def test_a_merge_in_a_partition_that_was_dropped_is_abandoned(books: Books):
    books.catalog.create_partition("books", "2024", job_id="partition")
    for number in range(8):
        books.upsert(number, partition="2024")
    base, step = books.due()
    books.catalog.drop_partition("books", "2024", job_id="drop")
    assert books.compact(base, step) is None
    assert books.snapshot().segments == ()


def test_a_merge_in_a_collection_that_was_dropped_is_refused(books: Books):
    fill(books)
    base, step = books.due()
    books.catalog.drop("books", job_id="drop")
    with pytest.raises(CollectionNotFound):
        books.compact(base, step)


def test_an_input_that_was_compacted_and_collected_meanwhile_is_no_corruption(books: Books):
    fill(books)
    base, step = books.due()
    books.compact(base, step, job_id="first")
    for entry in step.inputs:
        books.store.delete(entry.rows_blob.key)
    assert books.compact(base, step, job_id="second") is None
    books.check()


def test_an_input_that_is_missing_from_the_newest_version_s_blobs_is_corruption(books: Books):
    fill(books)
    base, step = books.due()
    books.store.delete(step.inputs[0].rows_blob.key)
    with pytest.raises(IndexCorrupt):
        books.compact(base, step)


def test_the_same_job_again_gets_the_recorded_answer_and_reads_nothing(books: Books):
    fill(books)
    base, step = books.due()
    first = books.compact(base, step)
    for entry in step.inputs:
        books.store.delete(entry.rows_blob.key)
    books.upsert(1_000)
    assert books.compact(base, step) == first


def test_two_workers_with_the_same_step_commit_one_output_and_leave_no_other(books: Books):
    fill(books)
    base, step = books.due()
    twin: list[Compacted | None] = []
    racing = Racing(books.store, lambda _: twin.append(books.compact(base, step)), races=1)
    done = compact(Catalog(racing, folder=books.folder), base, step, books.workplace(), job_id="job")
    assert twin == [done]
    *segment_keys, page_key = racing.put_keys
    assert not any(map(books.store.exists, segment_keys))
    assert books.store.exists(page_key)  # of the manifest that lost; garbage collection takes it
    books.check()


@pytest.mark.parametrize("error", [StoreUnavailable, Killed])
def test_a_merge_interrupted_at_any_call_and_redelivered_takes_effect_once(tmp_path: Path, error: type[BaseException]):
    calls = 0
    for is_after in (False, True):
        for number in itertools.count():
            books = Books.create(tmp_path)
            books.upsert(1, 2, 3)
            books.upsert(4, 5)
            books.delete(3)
            base, step = books.due(force=True)
            faults = Faults(books.store, failing_call=number, is_after=is_after, error=error)
            with suppress(error):
                compact(Catalog(faults, folder=tmp_path), base, step, books.workplace(), job_id="job")
            if faults.calls <= number:
                break
            calls += 1
            assert books.rows() == books.expected
            done = books.compact(base, step)
            assert done == Compacted(version=5, segments_before=2, segments_after=1, rows=4, dropped=1)
            books.check()
    assert calls >= 40


def test_steps_run_until_none_is_due_and_a_redelivery_counts_them_all(books: Books):
    books.catalog.create_partition("books", "2024", job_id="partition")
    for number in range(10):
        books.upsert(2 * number, 2 * number + 1)
        books.upsert(100 + number, partition="2024")
    books.delete(0, 1, 2)
    done = books.compact_all()
    assert done == Compacted(version=25, segments_before=19, segments_after=2, rows=27, dropped=1)
    assert books.compact_all() == done
    books.check()


def test_a_job_killed_between_its_steps_goes_on_and_counts_what_it_had_done(books: Books):
    books.catalog.create_partition("books", "2024", job_id="partition")
    for number in range(10):
        books.upsert(2 * number, 2 * number + 1)
        books.upsert(100 + number, partition="2024")
    books.delete(0)

    def kill(progress: CompactionProgress) -> None:
        if progress.rows > 20:
            raise Killed

    with pytest.raises(Killed):
        books.compact_all(on_progress=kill)
    assert len(books.snapshot().segments) == 11
    done = books.compact_all()
    assert (done.segments_before, done.segments_after, done.rows, done.dropped) == (20, 2, 29, 1)
    books.check()


def test_build_indexes_a_single_small_segment_and_a_second_build_does_nothing(books: Books):
    books.upsert(1, 2, 3)
    assert books.compact_all().rows == 0
    built = books.compact_all(force=True, job_id="build")
    assert (built.segments_before, built.segments_after, built.rows) == (1, 1, 3)
    [entry] = books.snapshot().segments
    assert entry.indexes["vector"].kind == "HNSW"
    assert books.compact_all(force=True, job_id="again").version == built.version
    books.check()


def test_build_of_rows_too_few_for_their_index_comes_to_an_end(tmp_path: Path):
    books = Books.create(tmp_path, vector_field(DIM, "L2", "IVF_FLAT", nlist=64))
    books.upsert(1, 2, 3)
    books.compact_all(force=True)
    [entry] = books.snapshot().segments
    assert entry.indexes["vector"].unbuildable
    books.upsert(*range(10, 100))
    books.compact_all(force=True, job_id="again")
    [entry] = books.snapshot().segments
    assert entry.indexes["vector"].kind == "IVF_FLAT"
    books.check()


def test_only_the_named_partitions_are_touched(books: Books):
    books.catalog.create_partition("books", "2024", job_id="partition")
    for number in range(8):
        books.upsert(number)
        books.upsert(100 + number, partition="2024")
    books.compact_all(partition_names=["2024"])
    assert sorted(entry.partition for entry in books.snapshot().segments) == ["2024", *["_default"] * 8]
    with pytest.raises(PartitionNotFound, match="2023"):
        books.compact_all(partition_names=["2023"])


def test_a_step_in_the_way_of_another_compactor_is_planned_anew(books: Books):
    fill(books)
    racing = Racing(books.store, lambda _: books.compact_all(job_id="other"), races=1)
    done = compact_all(Catalog(racing, folder=books.folder), "books", LIMITS, books.workplace(), job_id="job")
    assert (done.segments_after, done.rows) == (1, 0)
    books.check()


def test_a_partition_that_somebody_else_compacts_is_left_alone_by_those_who_share(books: Books):
    books.catalog.create_partition("books", "2024", job_id="partition")
    for number in range(8):
        books.upsert(number)
        books.upsert(100 + number, partition="2024")
    with claimed(books.store, books.snapshot().manifest.collection_id, "2024", owner="another"):
        assert books.compact_all(share=True).segments_after == 9
        assert books.compact_all(job_id="awaited").segments_after == 2
    assert list(books.store.list(f"{books.snapshot().manifest.collection_id}/claims/")) == []
    books.check()


def test_a_job_killed_in_a_step_takes_its_claim_over_when_it_is_delivered_again(books: Books):
    fill(books)
    mortal = Mortal(books.store)
    catalog = Catalog(mortal, folder=books.folder)
    with pytest.raises(Killed):
        compact_all(catalog, "books", LIMITS, books.workplace(), job_id="job", on_progress=mortal.die)
    assert books.compact_all(job_id="another", share=True).rows == 0
    assert books.compact_all(share=True).rows == 160
    books.check()


class Mortal:
    """A store that its process has no more of once it died."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._is_dead = False

    def die(self, _: object) -> None:
        self._is_dead = True

    def __getattr__(self, name: str) -> Any:
        if self._is_dead:
            raise Killed
        return getattr(self._store, name)


def test_a_claim_that_is_held_is_renewed_and_one_that_is_not_ends(store: BlobStore):
    with claimed(store, "c", "p", owner="first", lasts_s=0.2) as is_ours:
        assert is_ours
        first = bytes(store.get(claim_key("c", "p")))
        while bytes(store.get(claim_key("c", "p"))) == first:
            sleep(0.01)
    store.put(claim_key("c", "p"), seal(Claim(owner="killed", ends_s=time() - 1)))
    with claimed(store, "c", "p", owner="second") as is_ours:
        assert is_ours


def test_progress_ends_with_all_rows_and_never_goes_back(tmp_path: Path):
    books = Books.create(tmp_path)
    fill(books)
    seen: list[CompactionProgress] = []
    books.compact_all(on_progress=seen.append)
    assert [progress.rows for progress in seen] == sorted(progress.rows for progress in seen)
    assert seen[-1] == CompactionProgress(stage="committing", rows=160, total=160)
    assert [stage for stage, _ in itertools.groupby(progress.stage for progress in seen)] == [
        "reading",
        "building",
        "storing",
        "committing",
    ]


def test_nothing_is_left_in_the_folder_of_a_merge(books: Books):
    fill(books)
    books.compact_all()
    assert list(books.folder.iterdir()) == []


def test_inputs_are_read_one_at_a_time(books: Books):
    fill(books)
    base, step = books.due()
    opened: list[str] = []

    @contextmanager
    def open_rows_of(entry: SegmentEntry) -> Iterator[Rows]:
        assert not opened
        opened.append(entry.id)
        with books.catalog.readers.use_rows(base, entry) as rows:
            yield rows
        opened.remove(entry.id)

    workplace = Workplace(folder=books.folder, open_rows_of=open_rows_of)
    assert compact(books.catalog, base, step, workplace, job_id="job") is not None
    books.check()


def test_the_id_of_a_step_says_when_its_job_was_made():
    job_id = "0192f0c1-2b3c-7d4e-8f50-617283940a1b"
    ids = [step_job_id(job_id, number) for number in range(100)]
    assert {job_time_ms(step_id) for step_id in ids} == {job_time_ms(job_id)}
    assert len({job_id, *ids}) == 101
    assert job_time_ms(step_job_id("import", 0)) is None
