"""Walks of an HNSW graph among some rows, where the filter goes against the queries."""

import numpy as np
import pytest

from nearmq_index_store.indexes.hnsw import HnswIndex
from nearmq_index_store.search import Hits, read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from tests.segments import make_segment, schema_of, vector_field

ROWS, DIM, CLUSTER = 30_000, 8, 150


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    """Clusters of 150 rows, one after the other."""
    random = np.random.default_rng(1)
    vectors = np.repeat(random.standard_normal((ROWS // CLUSTER, DIM)), CLUSTER, axis=0)
    vectors += 0.05 * random.standard_normal((ROWS, DIM))
    field = vector_field(DIM, "L2", "HNSW", M=16, efConstruction=100)
    return make_segment(tmp_path_factory.mktemp("graph"), field, vectors.astype(np.float32), range(ROWS))


def search(segment: Segment, queries: np.ndarray, expr: str, ef: int = 16) -> Hits:
    schema = schema_of(segment.field)
    params = resolve(schema, field=None, metric_type=None, params={"ef": ef}, limit=3)[1]
    return search_part(segment, queries, 3, params, condition=read_expr(schema, expr, {}))


def widths_walked(index: HnswIndex, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The queries and the width of each walk from now on."""
    walks, walk = [], index.walk

    def told(queries: np.ndarray, ef: int, *arguments: int, **options: object) -> object:
        walks.append((len(queries), ef))
        return walk(queries, ef, *arguments, **options)

    monkeypatch.setattr(index, "walk", told)
    return walks


def test_queries_that_find_too_few_rows_are_walked_again_wider(segment: Segment, monkeypatch: pytest.MonkeyPatch):
    walks = widths_walked(segment.index, monkeypatch)
    vectors = segment.rows.vectors("vector")
    queries = vectors[[5, 20_000, 25]]  # the first and the last in a cluster that is not allowed
    together = search(segment, queries, f"id >= {CLUSTER}")
    assert [queries for queries, _ in walks] == [3, 2]
    assert walks[1][1] == 8 * walks[0][1]
    assert together.counts.tolist() == [3, 3, 3]
    for number, query in enumerate(queries):
        alone = search(segment, query[np.newaxis], f"id >= {CLUSTER}")
        assert alone.ids[0].tolist() == together.ids[number].tolist()


def test_queries_that_no_walk_helps_are_answered_exactly(segment: Segment):
    vectors = segment.rows.vectors("vector")
    queries = vectors[[5, 20_000, 1_000]]  # the first and the last far from all rows that are allowed
    found = search(segment, queries, f"id >= {ROWS // 4}", ef=16)
    assert found.explanation is not None
    assert (found.explanation.way, found.explanation.exact_queries) == ("index", 2)
    for query, ids in zip(queries, found.ids, strict=True):
        distances = np.square(vectors[ROWS // 4 :].astype(np.float64) - query).sum(axis=1)
        assert ids.tolist() == (np.argsort(distances)[:3] + ROWS // 4).tolist()
