"""Files of rows into collections: whole, checked, in bounded memory, and all or nothing."""

import io
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearmq_index_store import intents
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.errors import (
    AlreadyExists,
    DimensionMismatch,
    InvalidArgument,
    PartitionNotFound,
    StoreError,
    StoreUnavailable,
)
from nearmq_index_store.gc import Garbage, collect_garbage
from nearmq_index_store.importing import Imported, ImportOptions, Progress, import_rows
from nearmq_index_store.rows import Rows, open_rows
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.sources import open_source
from nearmq_index_store.verifying import verify

DIM = 8
ROWS = 1_000


def field(name: str = "vector", dim: int = DIM, index: str = "FLAT") -> VectorField:
    return VectorField(name=name, dim=dim, metric="L2", index=IndexSpec(kind=index))


def vectors(rows: int = ROWS, dim: int = DIM, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(open_store(f"file:{tmp_path / 'store'}"))


class Importer:
    """Imports files of the test's folder into the collection `books` of a schema."""

    def __init__(self, catalog: Catalog, folder: Path) -> None:
        self.catalog = catalog
        self.folder = folder

    def create(self, *fields: VectorField, primary_key: str = "int64", scalars: tuple[ScalarField, ...] = ()) -> None:
        schema = Schema(primary_key=primary_key, vector_fields=fields or (field(),), scalar_fields=scalars)
        self.catalog.create("books", schema, job_id="create")

    def run(self, name: str, *, ids: str | None = None, first_id: int | None = None, **options: object) -> Imported:
        ids_path = self.folder / ids if ids is not None else None
        return import_rows(
            self.catalog,
            "books",
            lambda schema: open_source(self.folder / name, schema, ids_path=ids_path, first_id=first_id),
            ImportOptions(folder=self.folder / "work", **options),
        )

    def write(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return name

    def npy(self, name: str, array: np.ndarray) -> str:
        np.save(self.folder / name, array)
        return name

    def parquet(self, name: str, **columns: pa.Array) -> str:
        pq.write_table(pa.table(columns), self.folder / name, row_group_size=300)
        return name

    def arrow(self, name: str, *, as_stream: bool = False, **columns: pa.Array) -> str:
        table = pa.table(columns)
        with pa.OSFile(str(self.folder / name), "wb") as file:
            new = pa.ipc.new_stream if as_stream else pa.ipc.new_file
            with new(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=300)
        return name

    def rows(self, name: str = "vector") -> dict[int | str, np.ndarray]:
        """All vectors of the collection by id, read back from the blobs."""
        found: dict[int | str, np.ndarray] = {}
        for rows in self.opened():
            found |= zip(rows.ids.tolist(), rows.vectors(name), strict=True)
        return found

    def scalars(self, name: str) -> dict[int | str, object]:
        """All values of a scalar field by id, read back from the blobs."""
        found: dict[int | str, object] = {}
        for rows in self.opened():
            found |= zip(rows.ids.tolist(), rows.values_at(name, np.arange(len(rows))), strict=True)
        return found

    def opened(self) -> Iterator[Rows]:
        snapshot = self.catalog.snapshot("books")
        for entry in snapshot.segments:
            path = self.folder / entry.id
            with path.open("wb") as file:
                copy_blob(self.catalog.store, entry.rows_blob, file)
            yield open_rows(path, entry.rows, snapshot.manifest.schema)

    def is_clean(self) -> bool:
        return list(verify(self.catalog, "books")) == []


@pytest.fixture
def importer(catalog: Catalog, tmp_path: Path) -> Importer:
    return Importer(catalog, tmp_path)


def fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def assert_equal(found: dict[int | str, np.ndarray], ids: list[int] | list[str], expected: np.ndarray) -> None:
    assert sorted(found) == sorted(ids)
    assert np.array_equal(np.stack([found[key] for key in ids]), expected)


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ">f4", "i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_npy_matrix_becomes_rows_numbered_from_zero(importer: Importer, dtype: str, order: str):
    importer.create()
    matrix = np.asarray(vectors() * 10, dtype=dtype, order=order)

    importer.run(importer.npy("x.npy", matrix))

    assert_equal(importer.rows(), list(range(ROWS)), matrix.astype(np.float32))
    assert importer.is_clean()


def test_npy_rows_are_numbered_from_the_first_id_or_named_by_a_second_file(importer: Importer):
    importer.create()
    ids = np.arange(ROWS, dtype=np.uint16)[::-1] + 5_000

    importer.run(importer.npy("x.npy", vectors()), first_id=20_000)
    importer.run(importer.npy("y.npy", vectors(seed=2)), ids=importer.npy("ids.npy", ids))

    expected_ids = [*range(20_000, 20_000 + ROWS), *ids.tolist()]
    assert_equal(importer.rows(), expected_ids, np.concatenate([vectors(), vectors(seed=2)]))


def test_npy_text_ids_are_string_keys(importer: Importer):
    importer.create(primary_key="string")
    ids = [f"é{number}" for number in range(ROWS)]

    importer.run(importer.npy("x.npy", vectors()), ids=importer.npy("ids.npy", np.array(ids)))

    assert_equal(importer.rows(), ids, vectors())
    assert importer.is_clean()


@pytest.mark.parametrize("write", ["parquet", "arrow", "stream"])
@pytest.mark.parametrize("type_", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), DIM)])
def test_a_table_becomes_rows_whatever_the_type_of_its_lists(importer: Importer, write: str, type_: pa.DataType):
    importer.create()
    halves = vectors().astype(np.float16)
    ids = np.random.default_rng(3).permutation(ROWS).astype(np.int32)
    value_type = np.dtype(type_.value_type.to_pandas_dtype())
    column = (
        fixed(halves.astype(value_type))
        if pa.types.is_fixed_size_list(type_)
        else pa.array(list(halves.astype(value_type)), type_)
    )
    columns = {"id": pa.array(ids), "embedding": column}  # the only field may have any name
    match write:
        case "parquet":
            name = importer.parquet("x.parquet", **columns)
        case "arrow":
            name = importer.arrow("x.arrow", **columns)
        case _:
            name = importer.arrow("x.arrow", as_stream=True, **columns)

    importer.run(name)

    assert_equal(importer.rows(), ids.tolist(), halves.astype(np.float32))
    assert importer.is_clean()


def test_several_fields_and_string_keys_come_from_one_table_into_even_segments(importer: Importer):
    importer.create(field("title", 4), field("text", DIM, "IVF_FLAT"), primary_key="string")
    ids = [f"book-{number}" for number in range(ROWS)]
    titles, texts = vectors(dim=4), vectors()
    name = importer.parquet("x.parquet", text=fixed(texts), id=pa.array(ids), title=fixed(titles))

    imported = importer.run(name, segment_bytes=300 * 4 * (4 + DIM))

    assert [entry.rows for entry in imported.segments] == [250] * 4
    assert imported.version == 2
    assert_equal(importer.rows("title"), ids, titles)
    assert_equal(importer.rows("text"), ids, texts)
    assert importer.is_clean()


GOOD = fixed(vectors(3))
NUMBERED = pa.array([1, 2, 3])
YEAR = ScalarField(name="year", type="int64")
TAGS = ScalarField(name="tags", type="array<string>", nullable=True)
NOTES = ScalarField(name="notes", type="json", nullable=True)


@pytest.mark.parametrize("write", ["parquet", "arrow", "stream"])
def test_scalar_columns_become_scalar_fields(importer: Importer, write: str):
    importer.create(field(index="IVF_FLAT"), scalars=(YEAR, TAGS, NOTES))
    years = [1900 + number % 100 for number in range(ROWS)]
    tags = [None if number % 3 == 0 else ["a", str(number)] for number in range(ROWS)]
    columns = {
        "tags": pa.array(tags, pa.large_list(pa.string())),
        "year": pa.array(years, pa.int16()),
        "id": pa.array(range(ROWS)),
        "vector": fixed(vectors()),
    }
    match write:
        case "parquet":
            name = importer.parquet("x.parquet", **columns)
        case "arrow":
            name = importer.arrow("x.arrow", **columns)
        case _:
            name = importer.arrow("x.arrow", as_stream=True, **columns)

    importer.run(name, segment_bytes=400 * 4 * DIM)

    assert len(importer.catalog.snapshot("books").segments) == 3
    assert importer.scalars("year") == dict(enumerate(years))
    assert importer.scalars("tags") == dict(enumerate(tags))
    assert importer.scalars("notes") == dict.fromkeys(range(ROWS))  # the file has no such column
    assert_equal(importer.rows(), list(range(ROWS)), vectors())
    assert importer.is_clean()


def test_npy_rows_have_no_scalars(importer: Importer):
    importer.create(scalars=(TAGS, NOTES))

    importer.run(importer.npy("x.npy", vectors()))

    assert importer.scalars("tags") == dict.fromkeys(range(ROWS))
    assert importer.is_clean()


def test_a_segment_ends_where_its_scalars_are_as_many_bytes_as_its_vectors_may_be(importer: Importer):
    importer.create(scalars=(ScalarField(name="text", type="string"),))
    texts = pa.array([str(number) * 10_000 for number in range(ROWS)])
    columns = {"id": pa.array(range(ROWS)), "vector": fixed(vectors()), "text": texts}

    imported = importer.run(importer.arrow("x.arrow", **columns), segment_bytes=8 << 20)

    assert sum(entry.rows for entry in imported.segments) == ROWS
    assert 2 <= len(imported.segments) <= 4  # of some 29 MB
    assert importer.scalars("text") == dict(enumerate(texts.to_pylist()))


BAD_SCALARS: dict[str, tuple[ScalarField, pa.Array | None, str]] = {
    "missing": (YEAR, None, "x.parquet: column 'year' is missing; expected 'id', 'vector', 'year'"),
    "type": (YEAR, pa.array([1.0] * 3), "x.parquet: field 'year': expected int64, got double"),
    "null": (YEAR, pa.array([1, 2, None]), "x.parquet: row 2: field 'year': expected int64, got null"),
    "JSON": (
        NOTES,
        pa.array(["{}", None, "{"]),
        "x.parquet: row 2: field 'notes': expected JSON, got '{' (Input data was truncated)",
    ),
    "array": (TAGS, pa.array([["a"], [None], []]), "row 1: field 'tags': expected array<string> without nulls, got"),
}


@pytest.mark.parametrize("case", BAD_SCALARS)
def test_a_bad_scalar_names_its_file_row_and_field_and_changes_nothing(importer: Importer, case: str):
    scalar, column, message = BAD_SCALARS[case]
    importer.create(scalars=(scalar,))
    columns = {"id": NUMBERED, "vector": GOOD} | ({} if column is None else {scalar.name: column})

    with pytest.raises(InvalidArgument, match=re.escape(message)):
        importer.run(importer.parquet("x.parquet", **columns))

    assert importer.catalog.snapshot("books").manifest.version == 1
    assert [key for key in blobs(importer) if "/m/" not in key] == []


def test_files_that_do_not_fit_the_scalar_fields_are_refused(importer: Importer):
    importer.create(scalars=(YEAR, TAGS))
    with pytest.raises(InvalidArgument, match=r"a \.npy file holds no scalars, the collection needs 'year'"):
        importer.run(importer.npy("x.npy", vectors()))
    with pytest.raises(InvalidArgument, match="column 'tag' is unknown, did you mean 'tags'"):
        importer.run(importer.parquet("x.parquet", id=NUMBERED, vector=GOOD, year=NUMBERED, tag=NUMBERED))


def test_an_import_may_make_its_partition_in_the_same_version(importer: Importer):
    importer.create()
    name = importer.npy("x.npy", vectors())

    with pytest.raises(PartitionNotFound, match="no partition '2024'"):
        importer.run(name, partition="2024")
    imported = importer.run(name, partition="2024", create_partition=True)

    assert imported.version == 2
    assert importer.catalog.snapshot("books").manifest.partitions == ("2024", "_default")
    assert {entry.partition for entry in importer.catalog.snapshot("books").segments} == {"2024"}


Bad = Callable[[Importer], str]


def broken(value: float, row: int = 2) -> np.ndarray:
    matrix = vectors(3).astype(np.float64)
    matrix[row, 5] = value
    return matrix


BAD_FILES: dict[str, tuple[Bad, type[StoreError], str]] = {
    "nan": (
        lambda to: to.npy("x.npy", broken(np.nan)),
        InvalidArgument,
        "x.npy: row 2: field 'vector': expected finite float32, got nan at position 5",
    ),
    "overflow": (lambda to: to.npy("x.npy", broken(1e300)), InvalidArgument, "row 2: .*got 1e[+]300 at position 5"),
    "dim of a matrix": (
        lambda to: to.npy("x.npy", vectors(3, 5)),
        DimensionMismatch,
        "x.npy: field 'vector': expected dim 8, got 5",
    ),
    "shape": (lambda to: to.npy("x.npy", vectors(3)[0]), InvalidArgument, "2 dimensions with rows, got shape"),
    "no rows": (lambda to: to.npy("x.npy", vectors(0)), InvalidArgument, "with rows, got shape .0, 8"),
    "type": (lambda to: to.npy("x.npy", vectors(3).astype(complex)), InvalidArgument, "expected floats, .*complex128"),
    "pickle": (lambda to: to.npy("x.npy", np.array([[object()]])), InvalidArgument, "cannot be read as .npy"),
    "truncated": (
        lambda to: to.write("x.npy", saved(vectors(3))[:-20]),
        InvalidArgument,
        "x.npy: cannot be read as .npy",
    ),
    "no parquet": (
        lambda to: to.write("x.parquet", b"PAR1 and so on"),
        InvalidArgument,
        "x.parquet: cannot be read as Parquet",
    ),
    "no arrow": (
        lambda to: to.write("x.arrow", b"ARROW1 and so on"),
        InvalidArgument,
        "x.arrow: cannot be read as Arrow IPC",
    ),
    "ending": (
        lambda to: to.write("x.xls", b"id"),
        InvalidArgument,
        "x.xls: expected a folder .*, or a name that ends in .npy, .parquet, .arrow, .csv, .jsonl or .ndjson",
    ),
    "unknown and missing columns": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vectr=GOOD, year=NUMBERED),
        InvalidArgument,
        "column 'vector' is missing; column 'vectr' is unknown, did you mean 'vector'; column 'year' is unknown",
    ),
    "no ids": (lambda to: to.parquet("x.parquet", vector=GOOD), InvalidArgument, "column 'id' is missing"),
    "type of ids": (
        lambda to: to.parquet("x.parquet", id=pa.array(["a", "b", "c"]), vector=GOOD),
        InvalidArgument,
        "column 'id': expected int64, got string",
    ),
    "null id": (
        lambda to: to.arrow("x.arrow", id=pa.array([1, None, 3]), vector=GOOD),
        InvalidArgument,
        "x.arrow: row 1: field 'id': expected int64, got null",
    ),
    "large id": (
        lambda to: to.arrow("x.arrow", id=pa.array([1, 2**63, 3], pa.uint64()), vector=GOOD),
        InvalidArgument,
        "row 1: field 'id': expected int64, got 9223372036854775808",
    ),
    "id twice": (
        lambda to: to.arrow("x.arrow", id=pa.array([7, 8, 7]), vector=GOOD),
        InvalidArgument,
        "row 2: field 'id': expected each id once, got 7, which row 0 has",
    ),
    "dim of a list": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=fixed(vectors(3, 5))),
        DimensionMismatch,
        "field 'vector': expected dim 8, got 5",
    ),
    "dim of a row": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=pa.array([[0.0] * 8, [0.0] * 7, [0.0] * 8])),
        DimensionMismatch,
        "row 1: field 'vector': expected dim 8, got 7",
    ),
    "null vector": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=pa.array([[0.0] * 8, [0.0] * 8, None])),
        InvalidArgument,
        "row 2: field 'vector': expected 8 numbers, got null",
    ),
    "null in a vector": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=pa.array([[0.0] * 8, [None] * 8, [0.0] * 8])),
        InvalidArgument,
        "row 1: field 'vector': expected finite float32, got null",
    ),
    "no vectors": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=NUMBERED),
        InvalidArgument,
        "field 'vector': expected FixedSizeList<float32>.8., got int64",
    ),
    "text": (
        lambda to: to.parquet("x.parquet", id=NUMBERED, vector=pa.array([["a"] * 8] * 3)),
        InvalidArgument,
        "field 'vector': expected floats, .*got string",
    ),
}


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_names_what_is_wrong_and_changes_nothing(importer: Importer, name: str):
    make, kind, message = BAD_FILES[name]
    importer.create()

    with pytest.raises(kind, match=message):
        importer.run(make(importer))

    assert importer.catalog.snapshot("books").manifest.version == 1
    assert [key for key in blobs(importer) if "/m/" not in key] == []
    assert list((importer.folder / "work").glob("*")) == []


def blobs(importer: Importer) -> list[str]:
    return list(importer.catalog.store.list(f"{importer.catalog.snapshot('books').manifest.collection_id}/"))


@pytest.mark.parametrize("primary_key", ["int64", "string"])
def test_a_key_that_the_collection_has_is_refused_by_name(importer: Importer, primary_key: str):
    importer.create(primary_key=primary_key)
    keys = {"int64": [10, 20, 30], "string": ["ten", "twenty", "thirty"]}[primary_key]
    more = {"int64": [15, 25, 20], "string": ["fifteen", "?", "twenty"]}[primary_key]
    importer.run(importer.parquet("x.parquet", id=pa.array(keys), vector=GOOD))

    with pytest.raises(AlreadyExists, match=f"row 2: field 'id': expected an id .*, got {more[2]!r}"):
        importer.run(importer.parquet("y.parquet", id=pa.array(more), vector=GOOD))


@pytest.mark.parametrize("primary_key", ["int64", "string"])
def test_a_key_whose_row_was_deleted_is_new_again(importer: Importer, primary_key: str):
    importer.create(primary_key=primary_key)
    keys = {"int64": [10, 20, 30], "string": ["ten", "twenty", "thirty"]}[primary_key]
    importer.run(importer.parquet("x.parquet", id=pa.array(keys), vector=GOOD))
    importer.catalog.write("books", [Write(job_id="delete", intent=intents.delete(keys[:2]))])

    importer.run(importer.parquet("y.parquet", id=pa.array(keys[:1]), vector=GOOD[:1]))

    with pytest.raises(AlreadyExists, match=f"got {keys[2]!r}"):
        importer.run(importer.parquet("z.parquet", id=pa.array(keys[1:]), vector=GOOD[1:]))


def test_a_key_that_comes_while_the_import_runs_is_refused_at_the_commit(importer: Importer):
    importer.create()
    first = importer.parquet("x.parquet", id=NUMBERED, vector=GOOD)
    second = importer.parquet("y.parquet", id=pa.array([4, 3]), vector=fixed(vectors(2)))

    def overtake(progress: Progress) -> None:
        if progress.stage == "committing":
            importer.run(first)

    with pytest.raises(AlreadyExists, match=r"y.parquet: row 1: field 'id': .*got 3"):
        import_rows(
            importer.catalog,
            "books",
            lambda schema: open_source(importer.folder / second, schema),
            ImportOptions(folder=importer.folder),
            on_progress=overtake,
        )

    assert sorted(importer.rows()) == [1, 2, 3]


def test_an_import_outlasts_a_store_that_is_away_for_a_moment(importer: Importer, monkeypatch: pytest.MonkeyPatch):
    importer.create()
    store = importer.catalog.store
    put, failures = store.put, iter([True, False, True])

    def put_sometimes(key: str, *parts: object) -> None:
        if next(failures, False):
            raise StoreUnavailable("away")
        put(key, *parts)

    monkeypatch.setattr(store, "put", put_sometimes)
    monkeypatch.setattr("nearmq_index_store.import_run._PATIENCE_S", (0.0,) * 3)
    importer.run(importer.npy("x.npy", vectors()))

    assert len(importer.rows()) == ROWS


def test_an_import_commits_what_it_staged_hours_before_a_garbage_collection(importer: Importer):
    importer.create()
    [collection_id] = importer.catalog.every_id()
    name = importer.npy("x.npy", vectors())
    removed: list[Garbage] = []

    def collect(progress: Progress) -> None:
        if progress.stage == "committing":
            removed.extend(
                collect_garbage(
                    Catalog(importer.catalog.store),
                    [collection_id],
                    keep_s=0,
                    grace_s=0,
                    on_problem=lambda _, error: pytest.fail(error.message),
                    clock=lambda: time.time() + 5 * 3_600,
                )
            )

    import_rows(
        importer.catalog,
        "books",
        lambda schema: open_source(importer.folder / name, schema),
        ImportOptions(folder=importer.folder, segment_bytes=8_192),
        on_progress=collect,
    )

    assert [garbage.blobs for garbage in removed] == [frozenset()]
    assert len(importer.rows()) == ROWS
    assert list(importer.catalog.store.list(f"{collection_id}/hold/")) == []


def test_verify_names_each_blob_that_was_changed_lost_or_swapped(importer: Importer):
    importer.create()
    importer.run(importer.npy("x.npy", vectors()), segment_bytes=200 * 4 * DIM)
    entries = importer.catalog.snapshot("books").segments
    store = importer.catalog.store
    rows = bytearray(store.get(entries[0].rows_blob.key))
    rows[len(rows) // 2] ^= 1
    store.put(entries[0].rows_blob.key, rows)
    store.delete(entries[1].keys.blob.key)
    store.put(entries[2].rows_blob.key, store.get(entries[3].rows_blob.key))

    problems = {problem.segment: problem.message for problem in verify(importer.catalog, "books")}

    assert set(problems) == {entry.id for entry in entries[:3]}
    assert "fail their digests" in problems[entries[0].id]
    assert "is missing" in problems[entries[1].id]
    assert "fails its digest" in problems[entries[2].id]


def command(importer: Importer, *arguments: str) -> subprocess.Popen[bytes]:
    call = "import sys; from nearmq.cli import run; sys.exit(run(sys.argv[1:]))"
    store = ("--store", f"file:{importer.folder / 'store'}")
    return subprocess.Popen(
        [sys.executable, "-c", call, "store", *arguments, *store], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_an_import_killed_at_any_moment_leaves_the_version_before_it(importer: Importer):
    importer.create(field(dim=64))
    importer.run(importer.npy("before.npy", vectors(100, 64)), first_id=1_000_000)
    before = importer.catalog.snapshot("books")
    name = importer.npy("x.npy", vectors(100_000, 64, seed=2))
    moments = random.Random(4)
    arguments = ("import", "books", str(importer.folder / name), "--segment-size", "256KiB")
    arguments += ("--workdir", str(importer.folder / "work"))

    for _ in range(5):
        blobs_before = len(blobs(importer))
        child = command(importer, *arguments)
        while len(blobs(importer)) < blobs_before + 2 and child.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.2))
        child.kill()
        child.communicate()

        assert Catalog(importer.catalog.store).snapshot("books") == before
        assert importer.is_clean()

    child = command(importer, *arguments)
    _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors
    assert len(importer.rows()) == 100_100
    assert list((importer.folder / "work").glob("*")) == []  # what the killed ones left is gone too


MEASURED = """
import sys
from pathlib import Path
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.gc import Garbage, collect_garbage
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.sources import open_source

def peak_mib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024

file, folder = Path(sys.argv[1]), Path(sys.argv[2])
catalog = Catalog(open_store(f"file:{folder / 'store'}"))
before = peak_mib()
imported = import_rows(
    catalog, "books", lambda schema: open_source(file, schema), ImportOptions(segment_bytes=32 << 20, folder=folder)
)
print(sum(entry.rows for entry in imported.segments), peak_mib() - before)
"""


@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_a_file_is_imported_in_a_fraction_of_its_size_in_memory(importer: Importer, kind: str):
    rows, dim = 200_000, 768
    importer.create(field(dim=dim))
    path = importer.folder / f"x.{kind}"
    write = {"npy": large_matrix, "parquet": large_row_group}[kind]
    write(path, rows, dim)

    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(importer.folder)], capture_output=True, check=True, text=True
    )

    imported, grown_mib = map(int, measured.stdout.split())
    assert imported == rows
    assert grown_mib < 300 < rows * dim * 4 / 2**20 / 1.9  # of 586 MiB


def test_long_texts_are_imported_in_a_fraction_of_their_size_in_memory(importer: Importer):
    rows = 250_000
    importer.create(scalars=(ScalarField(name="text", type="string"),))
    texts = pa.array([str(number) + "x" * 3_200 for number in range(100)]).take(pa.array(np.arange(rows) % 100))
    table = pa.table({"id": pa.array(range(rows)), "vector": fixed(vectors(rows)), "text": texts})
    path = importer.folder / "x.parquet"
    pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="zstd")

    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path), str(importer.folder)], capture_output=True, check=True, text=True
    )

    imported, grown_mib = map(int, measured.stdout.split())
    assert imported == rows
    assert grown_mib < 480 < texts.nbytes / 2**20 / 1.5  # of 764 MiB


def large_matrix(path: Path, rows: int, dim: int) -> None:
    """600 MB of which the disk holds little."""
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    matrix[::1_000] = vectors(rows // 1_000, dim)
    del matrix


def large_row_group(path: Path, rows: int, dim: int) -> None:
    """600 MB in one row group."""
    values = np.tile(vectors(1_000, dim), (rows // 1_000, 1))
    table = pa.table({"id": pa.array(np.arange(rows)), "vector": fixed(values)})
    pq.write_table(table, path, row_group_size=rows, use_dictionary=False, compression="zstd")
