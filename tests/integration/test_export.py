"""Versions of collections into Parquet: whole, counted, finished after a kill, and back again."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nearmq.cli import run
from nearmq_index_store import intents
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.errors import (
    CollectionNotFound,
    Incomplete,
    IndexCorrupt,
    InvalidArgument,
    PartitionNotFound,
    StoreError,
    VersionExpired,
)
from nearmq_index_store.exporting import Exported, ExportOptions, export_rows
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.importing import ImportOptions, import_rows, import_table
from nearmq_index_store.manifest import manifest_key
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.sources import open_source

DIM = 8
ROWS = 900
VECTORS = np.random.default_rng(1).standard_normal((ROWS, DIM), dtype=np.float32)
YEAR = ScalarField(name="year", type="int64", nullable=True)
FACTS = ScalarField(name="facts", type="json", nullable=True)
TAGS = ScalarField(name="tags", type="array<string>")


def schema(primary_key: str, *scalars: ScalarField, index: str = "IVF_FLAT") -> Schema:
    vector = VectorField(name="vector", dim=DIM, metric="COSINE", index=IndexSpec(kind=index))
    return Schema(primary_key=primary_key, vector_fields=(vector,), scalar_fields=scalars)


class Books:
    """The collection `books`, what is done to it, and what it should hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file:{folder / 'store'}"
        self.catalog = Catalog(open_store(self.url))
        self.jobs = 0

    def create(self, primary_key: str = "int64", scalars: Sequence[ScalarField] = (), index: str = "IVF_FLAT") -> None:
        self.catalog.create("books", schema(primary_key, *scalars, index=index), job_id="create")

    def add(self, ids: Sequence[int | str], *, partition: str = "_default", rows: int = 100, **scalars: Any) -> None:
        """Import the rows of these numbers, in segments of so many rows."""
        numbers = [int(id_) for id_ in ids]
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[numbers].reshape(-1)), DIM)
        options = ImportOptions(
            partition=partition, create_partition=True, segment_bytes=rows * 4 * DIM, folder=self.folder / "work"
        )
        import_table(self.catalog, "books", pa.table({"id": list(ids), "vector": vectors, **scalars}), options)

    def write(self, intent: intents.Intent) -> None:
        self.jobs += 1
        self.catalog.write("books", [Write(job_id=f"job {self.jobs}", intent=intent)])

    def export(self, out: str, on_rows: Any = lambda _done, _total: None, **options: Any) -> Exported:
        return export_rows(self.catalog, "books", self.folder / out, ExportOptions(**options), on_rows=on_rows)


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def read(path: Path) -> dict[int | str, dict[str, Any]]:
    """Every row of the Parquet files of a folder, or of one, by id."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    found = {row.pop("id"): row for row in rows}
    assert len(found) == len(rows)
    return found


def live_rows(catalog: Catalog, name: str) -> dict[int | str, dict[str, Any]]:
    """Every live row of a collection by id, read back from the store."""
    snapshot = catalog.snapshot(name)
    found: dict[int | str, dict[str, Any]] = {}
    for entry in snapshot.segments:
        deleted = catalog.readers.deletes.deleted(entry)
        with catalog.readers.use_rows(snapshot.manifest, entry) as rows:
            for row in np.flatnonzero(~deleted.mask(len(rows))):
                scalars = {
                    field.name: rows.column(field.name)[row].as_py() for field in snapshot.manifest.schema.scalar_fields
                }
                found[rows.keys[row].as_py()] = {"vector": rows.vectors("vector")[row].tolist(), **scalars}
    return found


@pytest.mark.parametrize("out", ["out", "out.parquet"])
@pytest.mark.parametrize("primary_key", ["int64", "string"])
def test_what_was_exported_and_imported_again_is_the_same(books: Books, out: str, primary_key: str):
    kind = int if primary_key == "int64" else str
    ids = [kind(number) for number in range(ROWS)]
    books.create(primary_key, [YEAR, FACTS, TAGS])
    facts = [None if number % 3 == 0 else json.dumps({"n": number}, separators=(",", ":")) for number in range(ROWS)]
    tags = pa.array([["ü", str(number)][: number % 3] for number in range(ROWS)], pa.list_(pa.string()))
    years = [None if number % 7 == 0 else 1900 + number for number in range(ROWS)]
    for partition, start in (("_default", 0), ("2024", 500)):
        part = slice(start, 500 if start == 0 else ROWS)
        books.add(ids[part], partition=partition, year=years[part], facts=facts[part], tags=tags[part])
    books.write(intents.delete(ids[50:700:7]))
    changed = {"year": [1, 2], "tags": [["x"], []]}
    books.write(intents.upsert(GivenRows(ids=ids[2:4], vectors={"vector": VECTORS[:2]}, scalars=changed), "_default"))
    expected = live_rows(books.catalog, "books")

    exported = books.export(out, part_bytes=200 * 4 * DIM)

    assert exported.rows == len(expected) == ROWS - 93
    assert exported.version == books.catalog.snapshot("books").manifest.version
    assert len(exported.files) == (1 if out.endswith("parquet") else 5)  # of some 200 rows, none of two partitions
    assert read(books.folder / out) == expected
    books.catalog.create("again", schema(primary_key, YEAR, FACTS, TAGS), job_id="again")
    import_rows(
        books.catalog,
        "again",
        lambda wanted: open_source(books.folder / out, wanted),
        ImportOptions(folder=books.folder / "work"),
    )
    assert live_rows(books.catalog, "again") == expected


def test_a_file_says_what_it_holds(books: Books):
    books.create("int64", [YEAR])
    books.add(range(100), year=[1] * 100)

    [path] = books.export("out.parquet").files

    file = pq.ParquetFile(path)
    assert file.schema_arrow.field("id").type == pa.int64()
    assert file.schema_arrow.field("vector").type.list_size == DIM
    assert file.schema_arrow.field("vector").type.value_type == pa.float32()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    facts = json.loads(file.schema_arrow.metadata[b"nearmq"])
    assert (facts["collection"], facts["version"], facts["partitions"]) == ("books", 2, ["_default"])
    assert facts["vector_fields"][0]["metric_type"] == "COSINE"
    assert facts["scalar_fields"] == [{"name": "year", "type": "int64", "nullable": True}]


def test_partitions_and_older_versions_are_exported_alone(books: Books):
    books.create()
    books.add(range(100))
    books.add(range(100, 300), partition="2024")
    books.write(intents.delete(range(150)))

    assert set(read(books.export("a.parquet").files[0])) == set(range(150, 300))
    assert set(read(books.export("b.parquet", version=2).files[0])) == set(range(100))
    assert set(read(books.export("c.parquet", version=3, partitions=("2024",)).files[0])) == set(range(100, 300))
    assert books.export("d.parquet", partitions=("_default",)).rows == 0
    assert read(books.folder / "d.parquet") == {}
    with pytest.raises(PartitionNotFound, match="'2025'"):
        books.export("e.parquet", partitions=("2025",))
    with pytest.raises(InvalidArgument, match="version must be 1 to 4, the newest, got 9"):
        books.export("e.parquet", version=9)
    with pytest.raises(CollectionNotFound):
        export_rows(books.catalog, "pens", books.folder / "e", ExportOptions())
    assert not list(books.folder.glob("*e*.parquet*"))


def test_rows_that_are_older_than_a_field_have_null_in_it(books: Books):
    books.create()
    books.add(range(100))
    books.catalog.add_fields("books", [YEAR], job_id="field")
    books.add(range(100, 200), year=list(range(100)))

    books.export("out", part_bytes=1)

    assert [row["year"] for _, row in sorted(read(books.folder / "out").items())] == [None] * 100 + list(range(100))


def test_hundreds_of_small_segments_make_few_row_groups(books: Books):
    books.create(index="FLAT")
    for start in range(0, 300, 5):
        rows = GivenRows(ids=list(range(start, start + 5)), vectors={"vector": VECTORS[start : start + 5]}, scalars={})
        books.write(intents.insert(rows))

    [path] = books.export("out").files

    assert pq.ParquetFile(path).num_row_groups == 1
    assert read(path) == live_rows(books.catalog, "books")


def command(books: Books, *arguments: str) -> subprocess.Popen[bytes]:
    call = "import sys; from nearmq.cli import run; sys.exit(run(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", call, "store", "export", "books", *arguments, "--store", books.url, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_export_that_was_killed_goes_on_with_its_version_and_keeps_its_files(books: Books):
    books.create(index="FLAT")
    books.add(range(ROWS), rows=12)  # a file each, so that a kill comes in the middle
    out = books.folder / "out"
    arguments = (str(out), "--part-size", "1")
    child = command(books, *arguments)
    while len(list(out.glob("*.parquet"))) < 5 and child.poll() is None:
        time.sleep(0.001)
    child.kill()
    child.communicate()
    before = {path: path.stat().st_ino for path in out.glob("*.parquet")}
    assert 5 <= len(before) < ROWS // 12
    books.write(intents.delete(range(ROWS - 10)))

    child = command(books, *arguments)
    output, errors = child.communicate(timeout=120)

    assert child.returncode == 0, errors
    summary = json.loads(output)
    assert (summary["version"], summary["rows"], summary["kept_files"]) == (2, ROWS, len(before))
    assert {path: path.stat().st_ino for path in before} == before
    assert set(read(out)) == set(range(ROWS))
    assert [path.name for path in out.iterdir() if path.suffix not in (".parquet", ".json")] == []


def test_a_finished_folder_is_kept_and_takes_no_other_export(books: Books):
    books.create()
    books.add(range(300))
    first = books.export("out", part_bytes=1)
    inodes = [path.stat().st_ino for path in first.files]

    again = books.export("out", part_bytes=1)

    assert again.kept == len(first.files) == 3
    assert [path.stat().st_ino for path in again.files] == inodes
    for options, asked in (
        ({"part_bytes": 2}, "version 2 of 'books', all partitions, 2 bytes a file"),
        ({"part_bytes": 1, "partitions": ("_default",)}, "version 2 of 'books', partitions _default"),
        ({"part_bytes": 1, "version": 1}, "version 1 of 'books'"),
    ):
        with pytest.raises(InvalidArgument, match=f"holds a finished export of version 2 .* asked for is an .*{asked}"):
            books.export("out", **options)
    books.write(intents.delete([1]))
    with pytest.raises(InvalidArgument, match=r"holds a finished export of version 2 .* of version 3"):
        books.export("out", part_bytes=1)


def test_a_part_that_was_lost_or_damaged_is_written_again(books: Books):
    books.create()
    books.add(range(300))
    first, second, _ = books.export("out", part_bytes=1).files
    first.unlink()
    second.write_bytes(second.read_bytes()[:-20])

    assert books.export("out", part_bytes=1).kept == 1

    assert set(read(books.folder / "out")) == set(range(300))


def test_nothing_is_written_over(books: Books):
    books.create()
    books.add(range(100))
    (books.folder / "out").mkdir()
    (books.folder / "out" / "mine.txt").write_text("mine")
    (books.folder / "out.parquet").write_text("mine")

    with pytest.raises(InvalidArgument, match="is not empty and holds no export"):
        books.export("out")
    with pytest.raises(InvalidArgument, match="exists already, --force replaces it"):
        books.export("out.parquet")
    assert (books.folder / "out.parquet").read_text() == "mine"

    assert books.export("out.parquet", replace=True).rows == 100


def test_two_exports_to_one_folder_do_not_mix(books: Books):
    books.create()
    books.add(range(100))
    refused: list[StoreError] = []

    def meanwhile(_done: int, _total: int) -> None:
        with pytest.raises(InvalidArgument, match="another export is being written to it") as caught:
            books.export("out")
        refused.append(caught.value)

    assert books.export("out", meanwhile).rows == 100
    assert len(refused) == 1


def test_files_with_another_number_of_rows_are_an_error(books: Books):
    books.create()
    books.add(range(300))

    def lose(done: int, _total: int) -> None:
        if done == 200:
            (books.folder / "out" / "part-00000.parquet").unlink()

    with pytest.raises(Incomplete, match=r"part-00000\.parquet has 0 rows, the version has 100 for it"):
        books.export("out", lose, part_bytes=1)

    assert books.export("out", part_bytes=1).kept == 2


def test_a_damaged_blob_leaves_no_file(books: Books):
    books.create()
    books.add(range(300))
    store = books.catalog.store
    key = books.catalog.snapshot("books").segments[1].rows_blob.key
    data = bytearray(store.get(key))
    data[100] ^= 1
    store.put(key, data)

    with pytest.raises(IndexCorrupt):
        books.export("out.parquet")

    assert list(books.folder.glob("*out*")) == []


def test_a_version_that_is_removed_meanwhile_has_expired(books: Books):
    books.create()
    books.add(range(300))
    snapshot = books.catalog.snapshot("books")
    books.write(intents.delete([1]))
    store = books.catalog.store

    def collect(_done: int, _total: int) -> None:
        store.delete(snapshot.segments[2].rows_blob.key)
        store.delete(manifest_key(snapshot.manifest.collection_id, snapshot.manifest.version))

    with pytest.raises(VersionExpired, match="version 2"):
        books.export("out", collect, part_bytes=1, version=2)


def test_the_command_prints_one_summary_and_exits_4_where_counts_differ(
    books: Books, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    books.create()
    books.add(range(300))
    out = books.folder / "out"
    arguments = ["store", "export", "books", str(out), "--part-size", "1", "--store", books.url]

    assert run([*arguments, "--json"]) == 0
    summary = json.loads(capfd.readouterr().out)
    assert (summary["rows"], summary["files"], summary["kept_files"]) == (300, 3, 0)
    assert summary["bytes"] == sum(path.stat().st_size for path in out.glob("*.parquet"))

    def lose(*_: object) -> None:
        (out / "part-00000.parquet").unlink(missing_ok=True)

    monkeypatch.setattr("nearmq_index_store.progress.ProgressDisplay.show", lose)
    assert run(arguments) == 4
    assert "part-00000.parquet has 0 rows, the version has 100 for it" in capfd.readouterr().err
