"""CSV, JSON Lines, tables in memory and tables beside a matrix, into collections."""

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from nearmq.cli import run
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.digest import copy_blob
from nearmq_index_store.errors import DimensionMismatch, InvalidArgument, StoreError
from nearmq_index_store.importing import ImportOptions, import_rows, import_table
from nearmq_index_store.rows import open_rows
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.sources import open_source

ROWS = 700
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 4), dtype=np.float32)
IDS = [f"{number:05}" for number in range(ROWS)]  # text, although all are digits

VECTOR = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="FLAT"))
SCALARS = (
    ScalarField(name="in-print", type="bool", nullable=True),  # names need not be Python's
    ScalarField(name="year", type="int64"),
    ScalarField(name="price", type="float64", nullable=True),
    ScalarField(name="title", type="string", nullable=True),
    ScalarField(name="facts", type="json", nullable=True),
    ScalarField(name="tags", type="array<string>", nullable=True),
    ScalarField(name="marks", type="array<float64>", nullable=True),
)
SCHEMA = Schema(primary_key="string", vector_fields=(VECTOR,), scalar_fields=SCALARS)
NUMBERED = Schema(primary_key="int64", vector_fields=(VECTOR,), scalar_fields=(SCALARS[1],))


def values() -> list[dict[str, Any]]:
    """Every row's scalars; each is null somewhere, and texts hold what CSV and JSON have to escape."""
    titles = ['say "no", or, no', "two\nlines", "", "ünïcode 🜁", "null", " padded "]
    facts = [{"a": [1, {"b": None}]}, [1, 2.5], "text", 7, True]
    return [
        {
            "in-print": None if row % 7 == 0 else row % 2 == 0,
            "year": row - 300,
            "price": None if row % 5 == 0 else row / 7,
            "title": None if row % 11 == 0 else titles[row % len(titles)],
            "facts": None if row % 3 == 0 else facts[row % len(facts)],
            "tags": None if row % 4 == 0 else ["a", 'b"', "", str(row)][: row % 5],
            "marks": None if row % 6 == 0 else [row / 3, 1e300, -0.0][: row % 4],
        }
        for row in range(ROWS)
    ]


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(open_store(f"file:{tmp_path / 'store'}"))


def created(catalog: Catalog, schema: Schema = SCHEMA) -> Catalog:
    catalog.create("books", schema, job_id="create")
    return catalog


def read_back(catalog: Catalog, folder: Path) -> tuple[list[int | str], np.ndarray, dict[str, list[Any]]]:
    """Ids, vectors and scalars of the only segment of `books`, by id."""
    snapshot = catalog.snapshot("books")
    [entry] = snapshot.segments
    with (folder / "rows").open("wb") as file:
        copy_blob(catalog.store, entry.rows_blob, file)
    rows = open_rows(folder / "rows", entry.rows, snapshot.manifest.schema)
    order = np.argsort(rows.ids)
    scalars = {field.name: rows.values_at(field.name, order) for field in snapshot.manifest.schema.scalar_fields}
    return rows.ids[order].tolist(), rows.vectors("vector")[order], scalars


def imported(catalog: Catalog, folder: Path, name: str, **options: Any) -> int:
    done = import_rows(
        catalog,
        "books",
        lambda schema: open_source(folder / name, schema, **options),
        ImportOptions(folder=folder / "work"),
    )
    return sum(entry.rows for entry in done.segments)


def write_json_lines(path: Path) -> None:
    """Nulls are written or left out, by turns; lines end in both ways, and some are empty."""
    with path.open("w", newline="") as file:
        for row, scalars in enumerate(values()):
            given = {name: value for name, value in scalars.items() if value is not None or row % 2}
            line = {"vector": VECTORS[row].tolist(), "id": IDS[row], **given}
            file.write(json.dumps(line, ensure_ascii=row % 2 == 0) + ["\n", "\r\n", "\n\n"][row % 3])


def write_csv(path: Path) -> None:
    """As pyarrow writes CSV: null is an empty cell, text is quoted; vectors are JSON or numpy's text, by turns."""
    lists = [
        json.dumps(vector.tolist()) if row % 2 else str(vector.tolist()).replace(",", "")
        for row, vector in enumerate(VECTORS)
    ]
    columns: dict[str, Any] = {"id": IDS, "vector": lists}
    for field in SCALARS:
        column = [row[field.name] for row in values()]
        is_text = field.type in ("json", "array<string>", "array<float64>")
        columns[field.name] = [None if value is None else json.dumps(value) for value in column] if is_text else column
    pa_csv.write_csv(pa.table(columns), path)


def assert_all(catalog: Catalog, folder: Path) -> None:
    ids, vectors, scalars = read_back(catalog, folder)
    assert ids == IDS
    assert np.array_equal(vectors, VECTORS)
    assert scalars == {field.name: [row[field.name] for row in values()] for field in SCALARS}


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.csv"])
def test_text_becomes_rows_of_the_types_that_the_schema_has(catalog: Catalog, tmp_path: Path, name: str):
    (write_csv if name == "x.csv" else write_json_lines)(tmp_path / name)

    assert imported(created(catalog), tmp_path, name) == ROWS

    assert_all(catalog, tmp_path)


def test_csv_may_name_its_only_field_as_it_likes_and_have_its_columns_in_any_order(catalog: Catalog, tmp_path: Path):
    schema = Schema(primary_key="int64", vector_fields=(VECTOR,))
    (tmp_path / "x.csv").write_text('embedding,id\n"[1, 2, 3, 4]", 7 \n(5;),8\n'.replace("(5;)", '"(5 6.5  7 8e0 )"'))

    imported(created(catalog, schema), tmp_path, "x.csv")

    ids, vectors, _ = read_back(catalog, tmp_path)
    assert ids == [7, 8]
    assert vectors.tolist() == [[1, 2, 3, 4], [5, 6.5, 7, 8]]


V = "[1, 2, 3, 4]"
BAD_LINES: dict[str, tuple[str, type[StoreError], str]] = {
    "no JSON": ("nothing", InvalidArgument, "row 1: expected a JSON object, got 'nothing' (JSON is malformed"),
    "no object": ("[1]", InvalidArgument, "row 1: expected a JSON object, got '[1]'"),
    "NaN": ('{"id": 2, "vector": [NaN]}', InvalidArgument, "row 1: expected a JSON object"),
    "id": (f'{{"id": "2", "vector": {V}, "year": 1}}', InvalidArgument, "row 1: field 'id': expected int64, got \"2\""),
    "bool as id": (
        f'{{"id": true, "vector": {V}, "year": 1}}',
        InvalidArgument,
        "field 'id': expected int64, got true",
    ),
    "no id": (f'{{"vector": {V}, "year": 1}}', InvalidArgument, "row 1: field 'id': expected int64, got nothing"),
    "float": (f'{{"id": 2, "vector": {V}, "year": 1.5}}', InvalidArgument, "field 'year': expected int64, got 1.5"),
    "large": (
        f'{{"id": 2, "vector": {V}, "year": {2**63}}}',
        InvalidArgument,
        "field 'year': expected int64, got 92233",
    ),
    "null": (f'{{"id": 2, "vector": {V}, "year": null}}', InvalidArgument, "field 'year': expected int64, got null"),
    "missing": (f'{{"id": 2, "vector": {V}}}', InvalidArgument, "row 1: field 'year': expected int64, got nothing"),
    "unknown": (
        f'{{"id": 2, "vector": {V}, "yaer": 1}}',
        InvalidArgument,
        "row 1: key 'yaer' is unknown, did you mean 'year'",
    ),
    "far from all": (
        f'{{"id": 2, "vector": {V}, "year": 1, "q": 1}}',
        InvalidArgument,
        "key 'q' is unknown, expected 'id', 'vector', 'year'",
    ),
    "dim": (
        '{"id": 2, "vector": [1, 2], "year": 1}',
        DimensionMismatch,
        "row 1: field 'vector': expected dim 4, got 2",
    ),
    "null in a vector": (
        '{"id": 2, "vector": [1, 2, null, 4], "year": 1}',
        InvalidArgument,
        "row 1: field 'vector': expected 4 numbers, got [1,2,null,4]",
    ),
    "overflow": (
        '{"id": 2, "vector": [1, 2, 1e200, 4], "year": 1}',
        InvalidArgument,
        "row 1: field 'vector': expected finite float32, got 1e+200 at position 2",
    ),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_names_the_file_the_row_and_the_field(catalog: Catalog, tmp_path: Path, case: str):
    line, kind, message = BAD_LINES[case]
    (tmp_path / "x.jsonl").write_text(f'{{"id": 1, "vector": {V}, "year": 1}}\n\n{line}\n')

    with pytest.raises(kind, match=re.escape(message)) as caught:
        imported(created(catalog, NUMBERED), tmp_path, "x.jsonl")

    assert str(caught.value).startswith(f"{tmp_path / 'x.jsonl'}: ")
    assert catalog.snapshot("books").manifest.version == 1


BAD_ROWS: dict[str, tuple[str, type[StoreError], str]] = {
    "id": (f'x,"{V}",1', InvalidArgument, "row 1: field 'id': expected int64, got 'x'"),
    "null id": (f',"{V}",1', InvalidArgument, "row 1: field 'id': expected int64, got null"),
    "float": (f'2,"{V}",1.5', InvalidArgument, "row 1: field 'year': expected int64, got '1.5'"),
    "null": (f'2,"{V}",', InvalidArgument, "row 1: field 'year': expected int64, got null"),
    "no list": ("2,here,1", InvalidArgument, "row 1: field 'vector': expected a list of double, got 'here'"),
    "no numbers": ('2,"[a b c d]",1', InvalidArgument, "field 'vector': expected a list of double, got '[a b c d]'"),
    "nan": ('2,"[1 2 nan 4]",1', InvalidArgument, "field 'vector': expected finite float32, got nan at position 2"),
    "dim": ('2,"[1, 2]",1', DimensionMismatch, "row 1: field 'vector': expected dim 4, got 2"),
    "cells": (
        f'2,"{V}",1,9',
        InvalidArgument,
        "cannot be read as CSV: CSV parse error: Row #3: Expected 3 columns, got 4",
    ),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_cell_names_the_file_the_row_and_the_field(catalog: Catalog, tmp_path: Path, case: str):
    row, kind, message = BAD_ROWS[case]
    (tmp_path / "x.csv").write_text(f'id,vector,year\n1,"{V}",1\n{row}\n')

    with pytest.raises(kind, match=re.escape(message)) as caught:
        imported(created(catalog, NUMBERED), tmp_path, "x.csv")

    assert str(caught.value).startswith(f"{tmp_path / 'x.csv'}: ")


def test_an_unknown_column_of_a_csv_file_is_named_with_the_nearest(catalog: Catalog, tmp_path: Path):
    (tmp_path / "x.csv").write_text(f'id,vector,yaer\n1,"{V}",1\n')

    with pytest.raises(InvalidArgument, match="'year' is missing; column 'yaer' is unknown, did you mean 'year'"):
        imported(created(catalog, NUMBERED), tmp_path, "x.csv")


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_an_empty_file_of_text_has_no_rows(catalog: Catalog, tmp_path: Path, name: str):
    (tmp_path / name).write_text("id,vector,year\n" if name == "x.csv" else "\n")

    with pytest.raises(InvalidArgument, match="expected rows, got none"):
        imported(created(catalog, NUMBERED), tmp_path, name)


def test_a_line_that_never_ends_is_refused(catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nearmq_index_store.sources.json_lines.MAX_LINE_BYTES", 100)
    (tmp_path / "x.jsonl").write_text(f'{{"id": 1, "vector": {V}, "year": 1}}\n{{"id": {" " * 100}')

    with pytest.raises(InvalidArgument, match="row 1: expected a line of at most 100 bytes"):
        imported(created(catalog, NUMBERED), tmp_path, "x.jsonl")


@pytest.mark.parametrize("ending", ["parquet", "arrow", "csv", "jsonl"])
@pytest.mark.parametrize("ids", ["column", "numbered", "file"])
def test_a_matrix_takes_its_scalars_from_a_table_beside_it(catalog: Catalog, tmp_path: Path, ending: str, ids: str):
    np.save(tmp_path / "x.npy", VECTORS)
    np.save(tmp_path / "ids.npy", np.arange(ROWS) + 40)
    first = {"column": 30, "numbered": 20, "file": 40}[ids]
    table = pa.table({"year": list(range(ROWS))})
    if ids == "column":
        table = table.append_column("id", pa.array(range(30, 30 + ROWS)))
    write_table(table, tmp_path / f"fields.{ending}")
    options = {"column": {}, "numbered": {"first_id": 20}, "file": {"ids_path": tmp_path / "ids.npy"}}[ids]

    imported(created(catalog, NUMBERED), tmp_path, "x.npy", fields_path=tmp_path / f"fields.{ending}", **options)

    found, vectors, scalars = read_back(catalog, tmp_path)
    assert found == list(range(first, first + ROWS))
    assert np.array_equal(vectors, VECTORS)
    assert scalars == {"year": list(range(ROWS))}


def write_table(table: pa.Table, path: Path) -> None:
    match path.suffix:
        case ".parquet":
            pq.write_table(table, path)
        case ".arrow":
            with pa.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
        case ".csv":
            pa_csv.write_csv(table, path)
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


@pytest.mark.parametrize("rows", [ROWS - 1, ROWS + 1])
@pytest.mark.parametrize("with_ids", [True, False])
def test_a_table_with_another_count_than_its_matrix_is_refused(
    catalog: Catalog, tmp_path: Path, rows: int, *, with_ids: bool
):
    np.save(tmp_path / "x.npy", VECTORS)
    columns = {"year": list(range(rows))} | ({"id": list(range(rows))} if with_ids else {})
    write_table(pa.table(columns), tmp_path / "fields.csv")

    got = "more" if rows > ROWS else str(rows)
    with pytest.raises(InvalidArgument, match=f"fields.csv: expected {ROWS} rows, as many as .*x.npy has, got {got}"):
        imported(created(catalog, NUMBERED), tmp_path, "x.npy", fields_path=tmp_path / "fields.csv")


def test_a_matrix_with_ids_in_two_places_is_refused(catalog: Catalog, tmp_path: Path):
    np.save(tmp_path / "x.npy", VECTORS)
    write_table(pa.table({"id": list(range(ROWS)), "year": list(range(ROWS))}), tmp_path / "fields.csv")

    with pytest.raises(InvalidArgument, match=r"fields\.csv: the ids are its column 'id', expected no other"):
        imported(created(catalog, NUMBERED), tmp_path, "x.npy", fields_path=tmp_path / "fields.csv", first_id=0)


class Once:
    """A stream of the Arrow PyCapsule interface that can be read once, as some engines give."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        self._reader = pa.RecordBatchReader.from_batches(schema, batches)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader, self._reader = self._reader, None
        return reader.__arrow_c_stream__(requested_schema)


class Whole:
    """An object that gives one array of the interface."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._batch.__arrow_c_array__(requested_schema)


def as_table(kind: str) -> Any:
    columns = {field.name: [row[field.name] for row in values()] for field in SCALARS if field.type != "json"}
    facts = [None if row["facts"] is None else json.dumps(row["facts"]) for row in values()]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.reshape(-1)), 4)
    table = pa.table({"id": pa.array(IDS), "vector": vectors, **columns, "facts": facts})
    match kind:
        case "table":
            return table
        case "stream read once":
            return Once(iter(table.to_batches(max_chunksize=100)), table.schema)
        case "array":
            return Whole(table.combine_chunks().to_batches()[0])
    # As polars and pandas have text: views, and dictionaries.
    place = table.schema.get_field_index("title")
    table = table.set_column(place, "title", table["title"].combine_chunks().dictionary_encode())
    return table.set_column(0, "id", table["id"].cast(pa.string_view()))


@pytest.mark.parametrize("kind", ["table", "stream read once", "array", "views and dictionaries"])
def test_any_object_of_the_arrow_interface_becomes_rows(catalog: Catalog, tmp_path: Path, kind: str):
    import_table(created(catalog), "books", as_table(kind), ImportOptions(folder=tmp_path / "work"))

    assert_all(catalog, tmp_path)
    assert list((tmp_path / "work").glob("*")) == []


def test_an_object_that_is_no_table_is_refused_and_a_bad_row_of_one_is_named(catalog: Catalog, tmp_path: Path):
    options = ImportOptions(folder=tmp_path / "work")
    created(catalog, NUMBERED)

    with pytest.raises(InvalidArgument, match="expected an object of the Arrow PyCapsule interface, got list"):
        import_table(catalog, "books", [1], options)
    table = pa.table({"id": [1, None], "vector": [[0.0] * 4] * 2, "year": [1, 2]})
    with pytest.raises(InvalidArgument, match="<Table>: row 1: field 'id': expected int64, got null"):
        import_table(catalog, "books", table, options)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow", "npy"])
def test_rows_come_by_standard_input_and_are_told_by_their_first_bytes(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    schema = Schema(primary_key="int64", vector_fields=(VECTOR,))
    created(catalog, schema)
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, VECTORS)
    elif kind == "csv":
        write_table(pa.table({"id": range(ROWS), "vector": [str(vector) for vector in VECTORS.tolist()]}), path)
    else:
        write_table(pa.table({"id": range(ROWS), "vector": VECTORS.tolist()}), path)
    pipe = io.BytesIO(path.read_bytes())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))

    assert run(["store", "import", "books", "-", "--store", f"file:{tmp_path / 'store'}"]) == 0

    ids, vectors, _ = read_back(catalog, tmp_path)
    assert ids == list(range(ROWS))
    assert np.array_equal(vectors, VECTORS)


def test_a_folder_of_parquet_files_is_read_in_the_order_of_their_names(catalog: Catalog, tmp_path: Path):
    schema = Schema(primary_key="int64", vector_fields=(VECTOR,))
    created(catalog, schema)
    folder = tmp_path / "parts"
    folder.mkdir()
    table = pa.table({"id": list(range(ROWS)), "vector": pa.array(VECTORS.tolist(), pa.list_(pa.float32()))})
    for number, start in enumerate(range(0, ROWS, 300)):
        pq.write_table(table.slice(start, 300), folder / f"part-{number:05}.parquet")

    assert imported(catalog, tmp_path, "parts") == ROWS

    ids, vectors, _ = read_back(catalog, tmp_path)
    assert ids == list(range(ROWS))
    assert np.array_equal(vectors, VECTORS)
    pq.write_table(table.rename_columns(["id", "vectors"]), folder / "part-00009.parquet")
    with pytest.raises(InvalidArgument, match=r"part-00009\.parquet has other columns than part-00000\.parquet"):
        imported(catalog, tmp_path, "parts")
