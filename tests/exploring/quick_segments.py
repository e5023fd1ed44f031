"""Segments of a few rows, without the files that take most of the time to build one."""

import atexit
import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nearmq_index_store.rows import Rows, take_columns
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_index_store.segment import BuiltSegment, build_segment
from tests.segments import table_of

SCHEMA = Schema(vector_fields=(VectorField(name="vector", dim=2, metric="L2", index=IndexSpec(kind="FLAT")),))

#: Thousands of small files a minute: in memory where that is possible.
FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


def build_once(table: pa.Table, *_arguments: Any, **_options: Any) -> BuiltSegment:
    """Build a segment in the place of `build_segment`, the same rows once only."""
    values = table.column("vector").combine_chunks().flatten().to_pylist()[::2]
    return _built(tuple(zip(table.column("id").to_pylist(), values, strict=True)))


@lru_cache(maxsize=4_096)
def parse_rows(data: bytes) -> Rows:
    """Open what a rows blob holds."""
    return take_columns(pa.ipc.open_file(pa.py_buffer(data)).read_all(), SCHEMA)


@cache
def _built(rows: tuple[tuple[int, float], ...]) -> BuiltSegment:
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    ids, values = zip(*rows, strict=True)
    vectors = np.array([[value, 0] for value in values], np.float32)
    return build_segment(table_of(ids, vector=vectors), SCHEMA, folder, threads=1, indexed=False)


@cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(dir=FOLDER, prefix="nearmq-explored-")
    atexit.register(folder.cleanup)
    return folder.name
