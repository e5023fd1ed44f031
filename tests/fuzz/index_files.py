"""Targets: the files of the indexes, whose checks stand behind the digest, and the rows'.

A file that passes its checks is loaded and searched: what they let through must not end the process, nor name a row
that is not there.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.rows import open_rows
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.segment import build_segment
from tests.fuzz.target import Target

ROWS, DIM = 300, 8
VECTORS = np.random.default_rng(1).random((ROWS, DIM), dtype=np.float32)

DECLARED = {
    "HNSW": {"M": 2, "efConstruction": 8},
    "IVF_FLAT": {"nlist": 4},
    "IVF_SQ8": {"nlist": 4},
    "IVF_PQ": {"nlist": 4, "m": 4, "nbits": 4},
}


def _field(kind: str) -> VectorField:
    params = index_kind(kind).check_build_params(DECLARED[kind], DIM)
    return VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind=kind, params=params))


def _build(kind: str) -> bytes:
    field = _field(kind)
    with tempfile.TemporaryDirectory() as folder:
        built = index_kind(kind).build(VECTORS, field, Path(folder), threads=1, seed=1, on_rows=lambda _: None)
        assert (built.kind, built.path is None) == (kind, False)
        return built.path.read_bytes()


def _prepare_index(name: str) -> Callable[[bytes], None]:
    kind, field = index_kind(name), _field(name)
    params = kind.resolve({}, field, 5)

    def run(data: bytes) -> None:
        try:
            index = kind.open(data, field.index.params, VECTORS, "L2")
        except IndexCorrupt:
            return
        for rows in index.candidates(VECTORS[:3], 5, params):
            assert len(set(rows.tolist())) == len(rows) >= 5
            assert set(rows.tolist()) <= set(range(ROWS))

    return run


ROWS_SCHEMA = Schema(
    vector_fields=(VectorField(name="vector", dim=2, metric="L2", index=IndexSpec(kind="FLAT", params={})),),
    scalar_fields=(ScalarField(name="title", type="string", nullable=True), ScalarField(name="year", type="int64")),
)


def _rows_seeds() -> list[bytes]:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3]),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array([0, 1, 2, 3, 4, 5], pa.float32()), 2),
            "title": pa.array(["a", None, "b"]),
            "year": pa.array([1, 2, 3]),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        return [build_segment(table, ROWS_SCHEMA, Path(folder), threads=1).rows_path.read_bytes()]


def _prepare_rows() -> Callable[[bytes], None]:
    path = Path(tempfile.mkdtemp(prefix="nearmq-fuzz-"), "rows.arrow")

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)  # the last one may be mapped still
        path.write_bytes(data)
        try:
            rows = open_rows(path, 3, ROWS_SCHEMA)
        except IndexCorrupt:
            return
        assert rows.vectors("vector").shape == (3, 2)
        assert len(rows) == 3

    return run


TARGETS = (
    *(
        Target(kind.lower(), partial(lambda kind: [_build(kind)], kind), partial(_prepare_index, kind))
        for kind in DECLARED
    ),
    Target("rows", _rows_seeds, _prepare_rows),
)
