"""Any rows, written as CSV or JSON Lines, are read as they were."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.sources import open_source

DIM = 3
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
INT64 = st.integers(-(2**63), 2**63 - 1)
FLOAT64 = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.booleans() | INT64 | FLOAT64 | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int64": INT64,
    "float64": FLOAT64,
    "string": TEXT,
    "json": JSON,
    "array<bool>": st.lists(st.booleans(), max_size=3),
    "array<int64>": st.lists(INT64, max_size=3),
    "array<float64>": st.lists(FLOAT64, max_size=3),
    "array<string>": st.lists(TEXT, max_size=3),
}
SCHEMA = Schema(
    primary_key="string",
    vector_fields=(VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="FLAT")),),
    scalar_fields=tuple(ScalarField(name=kind.strip(">"), type=kind, nullable=True) for kind in VALUES),
)
ROW = st.fixed_dictionaries(
    {
        # An empty cell is null in CSV, and null is no id.
        "id": TEXT.filter(bool),
        "vector": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=DIM, max_size=DIM),
        **{kind.strip(">"): st.none() | values for kind, values in VALUES.items()},
    }
)


def as_csv(rows: list[dict[str, Any]]) -> str:
    lines = [",".join(map(quoted, sorted(rows[0])))]
    cells = [
        ["" if value is None else quoted(cell(name, value)) for name, value in sorted(row.items())] for row in rows
    ]
    lines += [",".join(one) for one in cells]
    return "\n".join(lines) + "\n"


def cell(name: str, value: Any) -> str:
    return value if name in ("id", "string") else json.dumps(value, ensure_ascii=False)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.mark.parametrize(("ending", "write"), [("csv", as_csv), ("jsonl", as_json_lines)])
@settings(max_examples=150, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=5))
def test_rows_are_read_as_they_were_written(ending: str, write: Any, rows: list[dict[str, Any]]):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"x.{ending}"
        path.write_bytes(write(rows).encode())
        source = open_source(path, SCHEMA)
        batches = list(source.batches())
        ids = pa.concat_arrays(list(source.ids()))

    assert ids.to_pylist() == [row["id"] for row in rows]
    vectors = np.concatenate([batch.vectors["vector"] for batch in batches])
    assert np.array_equal(vectors, np.array([row["vector"] for row in rows], dtype=np.float32))
    for field in SCHEMA.scalar_fields:
        found = [value for batch in batches for value in batch.scalars[field.name].to_pylist()]
        if field.type == "json":
            found = [None if value is None else json.loads(value) for value in found]
        assert found == [row[field.name] for row in rows]
