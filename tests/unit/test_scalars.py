"""Scalar fields: what a column may hold, and what comes back out of a segment's rows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearmq_index_store.catalog import check_schema
from nearmq_index_store.errors import FieldNotFound, IndexCorrupt, InvalidArgument
from nearmq_index_store.scalars import BadValue, ScalarColumn, arrow_type, can_hold, to_scalars
from nearmq_index_store.schema import SCALAR_TYPES, IndexSpec, ScalarField, ScalarType, Schema, VectorField
from nearmq_index_store.segment import build_segment, open_rows
from tests.segments import table_of, vector_field

VALUES: dict[ScalarType, list[Any]] = {
    "bool": [True, False, None],
    "int64": [-(2**63), 2**63 - 1, None],
    "float64": [0.1, -1e300, None],
    "string": ["é", "", None],
    "json": ['{"a":[1,2.5,null]}', '"x"', None],
    "array<bool>": [[True, False], [], None],
    "array<int64>": [[2**63 - 1], [], None],
    "array<float64>": [[0.1, 2.0], [], None],
    "array<string>": [["a", "é"], [], None],
}
SCALARS = tuple(ScalarField(name=f"f{number}", type=kind, nullable=True) for number, kind in enumerate(SCALAR_TYPES))
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


def schema_with(*scalars: ScalarField, index: str = "FLAT", dim: int = 4) -> Schema:
    return Schema(vector_fields=(vector_field(dim, "L2", index),), scalar_fields=scalars)


def table_with(ids: Any, vectors: np.ndarray, **scalars: pa.Array) -> pa.Table:
    table = table_of(ids, vector=vectors)
    for name, column in scalars.items():
        table = table.append_column(name, column)
    return table


def test_every_type_comes_back_from_the_rows_of_a_segment(tmp_path: Path):
    columns = {field.name: pa.array(VALUES[field.type]) for field in SCALARS}
    schema = schema_with(*SCALARS)
    built = build_segment(table_with(range(3), VECTORS, **columns), schema, tmp_path, threads=1)
    rows = open_rows(built.rows_path, 3, schema)
    for field in SCALARS:
        expected = [{"a": [1, 2.5, None]}, "x", None] if field.type == "json" else VALUES[field.type]
        assert rows.column(field.name).to_pylist() == VALUES[field.type]
        assert rows.values_at(field.name, np.array([2, 0, 1, 0])) == [expected[row] for row in (2, 0, 1, 0)]


def test_scalars_follow_their_rows_into_the_cells_of_an_index(tmp_path: Path):
    random = np.random.default_rng(1)
    vectors = (random.integers(0, 20, (600, 1)) * 10 + random.standard_normal((600, 6))).astype(np.float32)
    schema = schema_with(
        ScalarField(name="n", type="int64"), ScalarField(name="t", type="string"), index="IVF_FLAT", dim=6
    )
    table = table_with(range(600), vectors, n=pa.array(range(600)), t=pa.array(map(str, range(600))))
    built = build_segment(table, schema, tmp_path, threads=1)
    rows = open_rows(built.rows_path, 600, schema)
    assert rows.ids.tolist() != list(range(600))
    assert rows.column("n").to_pylist() == rows.ids.tolist()
    assert rows.column("t").to_pylist() == [str(number) for number in rows.ids]


def test_rows_whose_scalars_contradict_the_manifest_are_corrupt(tmp_path: Path):
    table = table_with(range(3), VECTORS, n=pa.array([1, None, 3]))
    nullable = schema_with(ScalarField(name="n", type="int64", nullable=True))
    built = build_segment(table, nullable, tmp_path, threads=1)
    with pytest.raises(IndexCorrupt, match="rows have nulls"):
        open_rows(built.rows_path, 3, schema_with(ScalarField(name="n", type="int64")))
    for other in (schema_with(), schema_with(ScalarField(name="n", type="float64", nullable=True))):
        with pytest.raises(IndexCorrupt, match="rows have the columns"):
            open_rows(built.rows_path, 3, other)


@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        ("int64", pa.array([1, 2], pa.uint8()), [1, 2]),
        ("int64", pa.array([1, 2], pa.uint64()), [1, 2]),
        ("float64", pa.array([1, 2**53]), [1.0, 2.0**53]),
        ("float64", pa.array(np.array([0.5, 2], np.float16)), [0.5, 2.0]),
        ("string", pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        ("json", pa.array([' { "b" : 1.50 , "a":[ ] } ', "1e2"]), ['{"b":1.50,"a":[]}', "1e2"]),
        ("array<int64>", pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)), [[1, 2], [3, 4]]),
        ("array<string>", pa.array([["a"], []], pa.large_list(pa.large_string())), [["a"], []]),
    ],
)
def test_a_column_becomes_the_fields_type_when_nothing_is_lost(kind: ScalarType, column: pa.Array, expected: list[Any]):
    field = ScalarField(name="f", type=kind)
    assert can_hold(field, column.type)
    assert to_scalars(field, column).to_pylist() == expected


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("bool", pa.int8()),
        ("int64", pa.float64()),
        ("int64", pa.bool_()),
        ("float64", pa.string()),
        ("string", pa.binary()),
        ("json", pa.struct([("a", pa.int64())])),
        ("array<int64>", pa.int64()),
        ("array<int64>", pa.list_(pa.float32())),
        ("string", pa.null()),
    ],
)
def test_a_column_of_another_type_cannot_be_held(kind: ScalarType, found: pa.DataType):
    assert not can_hold(ScalarField(name="f", type=kind), found)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("bool", [True, None, False], 3),
        ("int64", [1, None, 2], 24),
        ("float64", [1, None, 2], 24),
        ("string", ["é", None, "abcde"], 12 + 2 + 5),
        ("json", ["{}", None, "[1]"], 12 + 2 + 3),
        ("array<int64>", [[1, 2], None, []], 12 + 16),
        ("array<bool>", [[True], None, []], 12 + 1),
        ("array<string>", [["ab", "c"], None, [""]], 12 + 3 * 4 + 3),
    ],
)
def test_what_values_take_is_known_before_they_are_read(kind: ScalarType, values: list[Any], expected: int):
    field = ScalarField(name="f", type=kind, nullable=True)
    column = pa.array([values[1], *values, values[0]], arrow_type(field))
    assert ScalarColumn(field, column).bytes_at(np.array([3, 1, 2])) == expected
    assert ScalarColumn(field, column.slice(1, 3)).bytes_at(np.arange(3)) == expected
    assert ScalarColumn(field, pa.array([], arrow_type(field))).bytes_at(np.array([], dtype=np.int64)) == 0


def text_of_bytes(*values: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


NOT_UTF8 = text_of_bytes(b"a", b"b\xff")
#: The bad value stands in row 1.
BAD: dict[str, tuple[ScalarType, pa.Array, str, str]] = {
    "null": ("int64", pa.array([1, None]), "int64", "null"),
    "beyond int64": ("int64", pa.array([1, 2**63], pa.uint64()), "int64", "9223372036854775808"),
    "beyond float64's digits": ("float64", pa.array([1, 2**53 + 1]), "float64", "9007199254740993"),
    "nan": ("float64", pa.array([1.0, np.nan]), "finite float64", "nan"),
    "infinity": ("float64", pa.array([1.0, -np.inf]), "finite float64", "-inf"),
    "no UTF-8": ("string", NOT_UTF8, "string", r"b'b\xff'"),
    "null in an array": ("array<int64>", pa.array([[1], [2, None]]), "array<int64> without nulls", "[2, None]"),
    "nan in an array": ("array<float64>", pa.array([[], [1, np.nan]]), "finite array<float64>", "[1.0, nan]"),
    "beyond int64 in an array": ("array<int64>", pa.array([[], [2**63]], pa.list_(pa.uint64())), "array<int64>", "[92"),
    "no UTF-8 in an array": (
        "array<string>",
        pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), NOT_UTF8),
        "array<string>",
        r"b'b\xff'",
    ),
    "no JSON": ("json", pa.array(["1", "{'a': 1}"]), "JSON", "\"{'a': 1}\" (JSON is malformed"),
    "empty JSON": ("json", pa.array(["1", ""]), "JSON", "''"),
    "JSON with NaN": ("json", pa.array(["1", "[NaN]"]), "JSON", "'[NaN]'"),
    "JSON beyond float64": ("json", pa.array(["1", "1e999"]), "JSON", "'1e999' (Number out of range)"),
    "JSON beyond 64 bits": ("json", pa.array(["1", f"[{2**64}]"]), "JSON", "is beyond 64 bits)"),
    "deep JSON": ("json", pa.array(["[" * 64 + "]" * 64, "[" * 65 + "]" * 65]), "JSON at most 64 levels deep", "'[[["),
    "very deep JSON": ("json", pa.array(["1", "[" * 10**5]), "JSON at most 64 levels deep", "'[[["),
}


@pytest.mark.parametrize("case", BAD)
def test_a_value_that_does_not_fit_is_named_with_its_row(case: str, tmp_path: Path):
    kind, column, expected, got = BAD[case]
    field = ScalarField(name="f", type=kind)
    with pytest.raises(BadValue) as caught:
        to_scalars(field, column)
    assert (caught.value.row, caught.value.expected) == (1, expected)
    assert got in caught.value.got

    with pytest.raises(InvalidArgument, match=f"^row 1: field 'f': expected {re.escape(expected)}, got") as refused:
        build_segment(table_with(range(2), VECTORS[:2], f=column), schema_with(field), tmp_path, threads=1)
    assert refused.value.field == "f"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def test_only_json_that_is_not_compact_is_copied():
    field = ScalarField(name="f", type="json")
    texts = [f"[{number}]" for number in range(3_000)]
    column = pa.array(texts)
    assert to_scalars(field, column).buffers()[2].address == column.buffers()[2].address
    spaced = [*texts[:2999], "[ 1 ]"]
    assert to_scalars(field, pa.array(spaced)).to_pylist() == [*texts[:2999], "[1]"]
    with pytest.raises(BadValue, match="row 2999: expected JSON, got"):
        to_scalars(field, pa.array([*texts[:2999], "["]))


@given(values=st.lists(json_values, min_size=1, max_size=5))
def test_json_comes_back_as_it_was_given(values: list[Any]):
    field = ScalarField(name="f", type="json")
    column = to_scalars(field, pa.array([json.dumps(value, indent=2) for value in values]))
    assert ScalarColumn(field, column).at(np.arange(len(values))) == values


def declared(*scalars: ScalarField) -> Schema:
    vector = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="FLAT"))
    return check_schema(Schema(vector_fields=(vector,), scalar_fields=scalars))


@pytest.mark.parametrize(
    ("scalars", "message"),
    [
        ([ScalarField(name="id", type="int64")], "field name 'id' is taken"),
        ([ScalarField(name="vector", type="int64")], "field name 'vector' is taken"),
        ([ScalarField(name="a", type="int64")] * 2, "field name 'a' is taken"),
        ([ScalarField(name="a b", type="int64")], "field name 'a b' does not match"),
        ([ScalarField(name="a", type="int32")], "type of field 'a' must be one of bool, int64, .*, got 'int32'"),
        ([ScalarField(name=f"f{n}", type="bool") for n in range(65)], "at most 64 scalar fields, got 65"),
    ],
)
def test_scalar_fields_that_make_no_schema_are_refused(scalars: list[ScalarField], message: str):
    with pytest.raises(InvalidArgument, match=message):
        declared(*scalars)


def test_output_fields_are_scalar_fields_by_name_or_all_of_them():
    schema = declared(ScalarField(name="year", type="int64"), ScalarField(name="title", type="string"))
    assert schema.output_fields(["title"]) == ("title",)
    assert schema.output_fields(["title", "*", "title"]) == ("title", "year")
    assert declared().output_fields(["*"]) == ()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("yaer", FieldNotFound, "no scalar field 'yaer', did you mean 'year'"),
        ("zzz", FieldNotFound, "no scalar field 'zzz', the collection has 'year'"),
        ("id", FieldNotFound, "no scalar field 'id', ids are in every answer"),
        ("vector", InvalidArgument, "'vector' is a vector field, output_fields takes scalar fields only"),
    ],
)
def test_an_output_field_that_is_none_is_refused(name: str, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        declared(ScalarField(name="year", type="int64")).output_fields(["year", name])
