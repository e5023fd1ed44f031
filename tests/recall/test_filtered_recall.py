"""Recall among some rows on the real data, beside the recall of an unfiltered search by the same queries.

Judged by distance, since the data holds ties: a hit counts when it is no farther than the true tenth, within 1e-5.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.schema import Schema
from nearmq_index_store.search import read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from tests.recall.conftest import LIMIT, ROWS, SPREADS, SegmentOf

pytestmark = pytest.mark.shared_data


class Subject:
    """A segment of one kind beside an exact one, and queries that are like each other."""

    def __init__(self, segment: Segment, exact: Segment, schema: Schema, queries: np.ndarray) -> None:
        self.segment, self.exact, self.schema, self.queries = segment, exact, schema, queries
        self.params = resolve(schema, field=None, metric_type=None, params={}, limit=LIMIT)[1]

    def recall(self, expr: str | None = None, deleted_ids: Sequence[int] = ()) -> float:
        condition = None if expr is None else read_expr(self.schema, expr, {})
        found, exact = (
            search_part(
                segment, self.queries, LIMIT, self.params, deleted=rows_of(segment, deleted_ids), condition=condition
            )
            for segment in (self.segment, self.exact)
        )
        return float((found.distances >= exact.distances[:, -1:] - 1e-5).mean())


def rows_of(segment: Segment, ids: Sequence[int]) -> DeletedRows:
    return DeletedRows(np.flatnonzero(np.isin(segment.rows.ids, ids)).tolist())


@pytest.fixture(scope="module", params=["HNSW", "IVF_FLAT"])
def subject(request: pytest.FixtureRequest, data: np.ndarray, direction: np.ndarray, segment_of: SegmentOf) -> Subject:
    segment, schema = segment_of("COSINE", request.param)
    exact, _ = segment_of("COSINE", "FLAT")
    queries = data[ROWS:]
    queries = np.ascontiguousarray(queries[np.argsort(-(queries @ direction), kind="stable")[:300]])
    return Subject(segment, exact, schema, queries)


@pytest.mark.parametrize("spread", SPREADS)
def test_recall_at_10_of_a_filtered_search_is_at_most_001_under_the_unfiltered(subject: Subject, spread: str):
    """Allowed rows lie at random, or are those most, or least, like the queries."""
    unfiltered = subject.recall()
    for share in (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
        assert subject.recall(f"{spread} < {round(share * ROWS)}") >= unfiltered - 0.01, share


def test_recall_at_10_with_deleted_rows_is_at_most_001_under_the_one_before(subject: Subject):
    unfiltered = subject.recall()
    order = np.random.default_rng(2).permutation(ROWS)
    for share in (0.01, 0.05, 0.1, 0.2):
        assert subject.recall(deleted_ids=order[: round(share * ROWS)]) >= unfiltered - 0.01, share
