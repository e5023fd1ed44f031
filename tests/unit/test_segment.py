from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nearmq_index_store.blobs import open_store
from nearmq_index_store.digest import read_blob
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument
from nearmq_index_store.rows import take_columns
from nearmq_index_store.segment import (
    build_indexes,
    build_segment,
    open_rows,
    open_segment,
    store_segment,
    write_sorted_rows,
)
from tests.segments import entry_of, open_built, schema_of, table_of, vector_field

FIELD = vector_field(4, "L2")
VECTORS = np.arange(40, dtype=np.float32).reshape(10, 4)


def clustered(rows: int, dim: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.integers(0, 20, (rows, 1)) * 10 + random.standard_normal((rows, dim))).astype(np.float32)


@pytest.mark.parametrize("ids", [list(range(10, 0, -1)), [f"key-{number:02}" for number in range(10, 0, -1)]])
def test_rows_come_back_as_they_were_given(tmp_path: Path, ids: list[int] | list[str]):
    schema = schema_of(FIELD, ids=ids)
    built = build_segment(table_of(ids, vector=VECTORS), schema, tmp_path, threads=1)
    rows = open_rows(built.rows_path, 10, schema)
    assert rows.ids.tolist() == ids
    assert rows.ids_at(np.array([3, 0])).tolist() == [ids[3], ids[0]]
    np.testing.assert_array_equal(rows.vectors("vector"), VECTORS)
    assert (built.key_min, built.key_max) == (ids[-1], ids[0])


def test_opened_vectors_are_the_mapped_file(tmp_path: Path):
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(FIELD), tmp_path, threads=1)
    before = pa.total_allocated_bytes()
    vectors = open_rows(built.rows_path, 10, schema_of(FIELD)).vectors("vector")
    assert pa.total_allocated_bytes() == before
    assert not vectors.flags.owndata
    assert not vectors.flags.writeable


def test_rows_in_several_chunks_become_one_record_batch(tmp_path: Path):
    chunks = [table_of([row], vector=VECTORS[row : row + 1]) for row in range(10)]
    built = build_segment(pa.concat_tables(chunks), schema_of(FIELD), tmp_path, threads=1)
    assert pa.ipc.open_file(built.rows_path).num_record_batches == 1
    np.testing.assert_array_equal(open_rows(built.rows_path, 10, schema_of(FIELD)).vectors("vector"), VECTORS)


def test_keys_are_sorted_and_name_their_rows(tmp_path: Path):
    ids = [30, 10, 20]
    built = build_segment(table_of(ids, vector=VECTORS[:3]), schema_of(FIELD), tmp_path, threads=1)
    keys = pa.ipc.open_file(built.keys_path).read_all()
    assert keys.to_pydict() == {"id": [10, 20, 30], "row": [1, 2, 0]}
    assert keys.schema.field("row").type == pa.uint32()


def test_rows_are_sorted_by_the_cells_of_the_first_ivf_flat_field(tmp_path: Path):
    fields = [
        vector_field(8, "COSINE", "FLAT", "a"),
        vector_field(6, "L2", "IVF_FLAT", "b", nlist=16),
        vector_field(5, "L2", "IVF_FLAT", "c", nlist=16),
    ]
    vectors = {field.name: clustered(600, field.dim, seed) for seed, field in enumerate(fields)}
    built = build_segment(table_of(range(600), **vectors), schema_of(*fields), tmp_path, threads=1)
    rows = open_rows(built.rows_path, 600, schema_of(*fields))
    ids = rows.ids
    assert ids.tolist() != list(range(600))
    for name, matrix in vectors.items():
        np.testing.assert_array_equal(rows.vectors(name), matrix[ids])
    copy_bytes = 600 * 5 * 4
    assert built.indexes["b"].memory_bytes < copy_bytes < built.indexes["c"].memory_bytes


@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_too_few_rows_to_train_are_built_as_flat(tmp_path: Path, kind: str):
    field = vector_field(4, "L2", kind)
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(field), tmp_path, threads=1)
    assert built.indexes["vector"].kind == "FLAT"
    assert built.indexes["vector"].path is None
    assert built.indexes["vector"].unbuildable


def test_a_flat_index_that_was_declared_stands_in_for_nothing(tmp_path: Path):
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(FIELD), tmp_path, threads=1)
    assert not built.indexes["vector"].unbuildable


def test_the_build_of_a_graph_reports_the_rows_that_are_done(tmp_path: Path):
    field = vector_field(512, "L2", "HNSW")
    table = table_of(range(3_000), vector=clustered(3_000, 512, seed=0))
    written = write_sorted_rows(take_columns(table, schema_of(field)), schema_of(field), tmp_path, threads=1)
    done: list[int] = []
    build_indexes(written, schema_of(field), tmp_path, threads=1, on_rows=done.append)
    assert done[0] < 2_048 < done[1]
    assert done == sorted(done)
    assert done[-1] == 3_000


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_values_too_large_for_float32_sums_are_built_as_flat(tmp_path: Path, kind: str):
    field = vector_field(4, "L2", kind, **({} if kind == "HNSW" else {"nlist": 4}))
    huge = (clustered(300, 4, 0) * 1e33).astype(np.float32)
    built = build_segment(table_of(range(300), vector=huge), schema_of(field), tmp_path, threads=1)
    assert built.indexes["vector"].kind == "FLAT"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_row_and_field(tmp_path: Path, bad: float):
    vectors = VECTORS.copy()
    vectors[7, 2] = bad
    with pytest.raises(InvalidArgument, match=r"row 7 \(id 107\) has NaN or infinity in field 'vector'"):
        build_segment(table_of(range(100, 110), vector=vectors), schema_of(FIELD), tmp_path, threads=1)


@pytest.mark.parametrize("ids", [[3, 1, 2, 1], ["c", "a", "b", "a"]])
def test_a_repeated_primary_key_is_refused_by_name(tmp_path: Path, ids: list[int] | list[str]):
    with pytest.raises(InvalidArgument, match=f"primary key {ids[1]!r} is there more than once"):
        build_segment(table_of(ids, vector=VECTORS[:4]), schema_of(FIELD, ids=ids), tmp_path, threads=1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (table_of([1], other=VECTORS[:1]), "no column 'vector'"),
        (table_of([1], vector=VECTORS[:1, :3]), r"column 'vector' is .*\[3\], the schema wants .*\[4\]"),
        (table_of([1], vector=VECTORS[:1].astype(np.float64)), "column 'vector' is .*double"),
        (table_of(["1"], vector=VECTORS[:1]), "column 'id' is string, the schema wants int64"),
        (table_of([None, 1], vector=VECTORS[:2]), "column 'id' has 1 nulls"),
        (table_of([1], vector=VECTORS[:1]).slice(1), "1 to 4294967295 rows, got 0"),
    ],
)
def test_a_table_that_does_not_fit_the_schema_is_refused(tmp_path: Path, table: pa.Table, message: str):
    with pytest.raises(InvalidArgument, match=message):
        build_segment(table, schema_of(FIELD), tmp_path, threads=1)


def test_rows_that_contradict_the_manifest_are_corrupt(tmp_path: Path):
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(FIELD), tmp_path, threads=1)
    with pytest.raises(IndexCorrupt, match="10 rows in the file, 11 in the manifest"):
        open_rows(built.rows_path, 11, schema_of(FIELD))
    with pytest.raises(IndexCorrupt, match="rows have the columns"):
        open_rows(built.rows_path, 10, schema_of(vector_field(5, "L2")))
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        open_rows(built.rows_path.with_name("missing"), 10, schema_of(FIELD))
    built.rows_path.write_bytes(built.rows_path.read_bytes()[:-100])
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        open_rows(built.rows_path, 10, schema_of(FIELD))


def test_rows_with_a_column_whose_name_is_no_text_are_corrupt(tmp_path: Path):
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(FIELD), tmp_path, threads=1)
    built.rows_path.write_bytes(built.rows_path.read_bytes().replace(b"vector", b"v\xe5ctor"))
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        open_rows(built.rows_path, 10, schema_of(FIELD))


def test_an_index_without_its_file_is_corrupt(tmp_path: Path):
    field = vector_field(4, "L2", "HNSW")
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(field), tmp_path, threads=1)
    rows = open_built(built, schema_of(field), field).rows
    with pytest.raises(IndexCorrupt, match="the manifest names none"):
        open_segment(entry_of(built), field, rows, None)


def test_a_stored_segment_holds_the_files_that_were_built(tmp_path: Path):
    field = vector_field(4, "IP", "HNSW")
    built = build_segment(table_of(range(10), vector=VECTORS), schema_of(field), tmp_path, threads=1)
    store = open_store("memory:")
    entry = store_segment(store, "0197", "_default", built)
    assert (entry.rows, entry.keys.min, entry.keys.max) == (10, 0, 9)
    index = entry.indexes["vector"]
    assert (index.kind, index.params) == ("HNSW", {"M": 16, "efConstruction": 200})
    for ref, path in (
        (entry.rows_blob, built.rows_path),
        (entry.keys.blob, built.keys_path),
        (index.blob, built.indexes["vector"].path),
    ):
        assert read_blob(store, ref) == path.read_bytes()
