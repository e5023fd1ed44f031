"""Recall at nearmq's own defaults on the real data.

Judged by distance, since the data holds ties: a hit counts when it is no farther than the true tenth, within 1e-5.
"""

import numpy as np
import pytest

from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.schema import Metric, Schema
from nearmq_index_store.search import resolve, search_part
from nearmq_index_store.segment import Segment
from tests.recall.conftest import LIMIT, ROWS, SegmentOf

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module", params=["COSINE", "L2"])
def truth(request: pytest.FixtureRequest, data: np.ndarray, segment_of: SegmentOf) -> tuple[Metric, np.ndarray]:
    """The metric, and the exact distances of each query's nearest rows."""
    exact, _ = segment_of(request.param, "FLAT")
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

    def __init__(self, segment: Segment, schema: Schema, queries: np.ndarray, truth: np.ndarray) -> None:
        self.segment, self.schema, self.queries, self.truth = segment, schema, queries, truth

    def recall(self, **params: float) -> float:
        _, resolved = resolve(self.schema, field=None, metric_type=None, params=params, limit=LIMIT)
        found = search_part(self.segment, self.queries, LIMIT, resolved).distances
        sign = 1 if self.segment.field.metric == "L2" else -1
        return float((sign * found <= sign * self.truth[:, -1:] + 1e-5).mean())


@pytest.fixture(scope="module", params=["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def indexed(
    request: pytest.FixtureRequest,
    data: np.ndarray,
    truth: tuple[Metric, np.ndarray],
    segment_of: SegmentOf,
) -> Indexed:
    metric, distances = truth
    return Indexed(*segment_of(metric, request.param), data[ROWS:], distances)


def test_recall_at_10_at_the_defaults_is_at_least_095(indexed: Indexed):
    assert indexed.recall() >= 0.95


def test_the_recall_that_is_asked_for_is_reached_and_hardly_more(indexed: Indexed):
    for asked in (0.8, 0.9, 0.95, 0.99):
        assert asked - 0.01 <= indexed.recall(recall=asked) <= asked + 0.8 * (1 - asked), asked
    assert indexed.recall(recall=1) == 1
