"""The real data, 29,000 x 384 sentence embeddings, 1,000 queries, and segments of it, each built once."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nearmq_index_store.schema import Metric, ScalarField, Schema
from nearmq_index_store.segment import Segment, build_segment
from tests.segments import open_built, table_of, vector_field

DATA = Path(__file__).parents[3] / "shared" / "data" / "pypi_minilm_30k.f16.npy"
ROWS, LIMIT = 29_000, 10
#: Scalar fields that number the rows: at random, or the most, or the least, like `direction` first.
SPREADS = ("random", "like", "unlike")

SegmentOf = Callable[[Metric, str], tuple[Segment, Schema]]


@pytest.fixture(scope="session")
def data() -> np.ndarray:
    if not DATA.exists() and "CI" not in os.environ:
        pytest.skip(f"{DATA.name} is not there")
    vectors = np.load(DATA, allow_pickle=False).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="session")
def direction(data: np.ndarray) -> np.ndarray:
    return data[:300].mean(axis=0)


@pytest.fixture(scope="session")
def segment_of(data: np.ndarray, direction: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> SegmentOf:
    """Build a segment by a metric, with an index of a kind."""
    rows = data[:ROWS]
    likeness = np.argsort(np.argsort(-(rows @ direction), kind="stable"))
    numbers = np.random.default_rng(1).permutation(ROWS), likeness, ROWS - 1 - likeness
    table = table_of(range(ROWS), vector=rows)
    for name, column in zip(SPREADS, numbers, strict=True):
        table = table.append_column(name, pa.array(column))

    @cache
    def build(metric: Metric, kind: str) -> tuple[Segment, Schema]:
        field = vector_field(data.shape[1], metric, kind)
        scalars = tuple(ScalarField(name=name, type="int64") for name in SPREADS)
        schema = Schema(vector_fields=(field,), scalar_fields=scalars)
        built = build_segment(table, schema, tmp_path_factory.mktemp(kind), threads=2)
        return open_built(built, schema, field), schema

    return build
