"""What an opened index takes is what the manifest said before it was loaded."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nearmq_index_store.blobs import open_store
from nearmq_index_store.schema import Metric
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_worker.spool import Spool
from tests.segments import schema_of, table_of, vector_field
from tests.unit import resident_memory

COLLECTION = "00000000-0000-0000-0000-000000000000"
ROWS = 40_000


@pytest.mark.parametrize(
    ("kind", "metric", "dim", "params"),
    [
        ("HNSW", "L2", 32, {"M": 8, "efConstruction": 20}),
        ("HNSW", "COSINE", 16, {"M": 16, "efConstruction": 20}),
        ("IVF_SQ8", "IP", 64, {"nlist": 32}),
        ("IVF_PQ", "L2", 32, {"nlist": 128, "m": 16, "nbits": 8}),
    ],
)
def test_an_index_takes_the_memory_that_was_said(
    tmp_path: Path, kind: str, metric: Metric, dim: int, params: dict[str, int]
):
    schema = schema_of(vector_field(dim, metric, kind, **params))
    vectors = np.random.default_rng(1).standard_normal((ROWS, dim)).astype(np.float32)
    store = open_store(f"file:{tmp_path / resident_memory.STORE}")
    spool = Spool(store, tmp_path / resident_memory.SPOOL, 1 << 30)
    stored = []
    for rows in (1_000, ROWS):
        folder = tmp_path / str(rows)
        folder.mkdir()
        built = build_segment(table_of(range(rows), vector=vectors[:rows]), schema, folder, threads=2)
        stored.append(store_segment(store, COLLECTION, "_default", built))
        spool.open(stored[-1], schema, "vector")
    spool.close()
    (tmp_path / resident_memory.SEGMENTS).write_bytes(msgspec.json.encode([schema, *stored]))
    command = [sys.executable, "-m", resident_memory.__name__, str(tmp_path)]
    taken = int(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    said = stored[-1].indexes["vector"].memory_bytes
    assert 0.95 * said <= taken <= 1.05 * said, f"{taken / said:.3f} of {said} bytes"
