"""Recall at nearmq's own defaults on the real data: 29,000 x 384 sentence embeddings, 1,000 queries, k = 10.

Judged by distance, since the data holds ties: a hit counts when it is no farther than the true tenth, within 1e-5.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.schema import Metric
from nearmq_index_store.search import resolve, search_part
from nearmq_index_store.segment import Segment
from tests.segments import make_segment, schema_of, vector_field

DATA = Path(__file__).parents[3] / "shared" / "data" / "pypi_minilm_30k.f16.npy"
ROWS, LIMIT = 29_000, 10

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not DATA.exists() and "CI" not in os.environ, reason=f"{DATA.name} is not there"),
]


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    vectors = np.load(DATA, allow_pickle=False).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["COSINE", "L2"])
def truth(
    request: pytest.FixtureRequest, data: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Metric, np.ndarray]:
    """The metric, and the exact distances of each query's nearest rows."""
    folder = tmp_path_factory.mktemp("flat")
    exact = make_segment(folder, vector_field(data.shape[1], request.param), data[:ROWS], range(ROWS))
    return request.param, search_part(exact, data[ROWS:], LIMIT, SearchParams()).distances


def test_flat_equals_the_numpy_oracle(data: np.ndarray, truth: tuple[Metric, np.ndarray]):
    metric, distances = truth
    rows, queries = data[:ROWS].astype(np.float64), data[ROWS:].astype(np.float64)
    products = queries @ rows.T
    if metric == "L2":
        exact = np.sort((rows**2).sum(axis=1) + (queries**2).sum(axis=1)[:, np.newaxis] - 2 * products)[:, :LIMIT]
    else:
        lengths = np.linalg.norm(queries, axis=1)[:, np.newaxis] * np.linalg.norm(rows, axis=1)
        exact = -np.sort(-products / lengths)[:, :LIMIT]
    np.testing.assert_allclose(distances, exact, atol=1e-6)


class Indexed:
    """A segment of one kind, and what its queries must find."""

    def __init__(self, segment: Segment, queries: np.ndarray, truth: np.ndarray) -> None:
        self.segment, self.queries, self.truth = segment, queries, truth

    def recall(self, **params: float) -> float:
        field = self.segment.field
        _, resolved = resolve(schema_of(field), field=None, metric_type=None, params=params, limit=LIMIT)
        found = search_part(self.segment, self.queries, LIMIT, resolved).distances
        sign = 1 if field.metric == "L2" else -1
        return float((sign * found <= sign * self.truth[:, -1:] + 1e-5).mean())


@pytest.fixture(scope="module", params=["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def indexed(
    request: pytest.FixtureRequest,
    data: np.ndarray,
    truth: tuple[Metric, np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> Indexed:
    metric, distances = truth
    field = vector_field(data.shape[1], metric, request.param)
    segment = make_segment(tmp_path_factory.mktemp(request.param), field, data[:ROWS], range(ROWS), threads=2)
    return Indexed(segment, data[ROWS:], distances)


def test_recall_at_10_at_the_defaults_is_at_least_095(indexed: Indexed):
    assert indexed.recall() >= 0.95


def test_the_recall_that_is_asked_for_is_reached_and_hardly_more(indexed: Indexed):
    for asked in (0.8, 0.9, 0.95, 0.99):
        assert asked - 0.01 <= indexed.recall(recall=asked) <= asked + 0.8 * (1 - asked), asked
    assert indexed.recall(recall=1) == 1
