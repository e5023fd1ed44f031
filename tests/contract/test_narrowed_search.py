"""Every kind of index among some rows: those that are not deleted, and that a filter allows."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes import INDEX_KINDS
from nearmq_index_store.schema import METRICS, Metric
from nearmq_index_store.search import Hits, read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from nearmq_index_store.ways import Explanation
from tests.segments import distances_to, make_segment, schema_of, vector_field

DECLARED = {
    "FLAT": {},
    "HNSW": {"M": 8, "efConstruction": 60},
    "IVF_FLAT": {"nlist": 16},
    "IVF_SQ8": {"nlist": 16},
    "IVF_PQ": {"nlist": 16, "m": 4, "nbits": 4},
}
#: Params with which each kind finds all that there is to find among so few rows, through the index or not.
THOROUGH = {
    "HNSW": {"ef": 300},
    "IVF_FLAT": {"nprobe": 16},
    "IVF_SQ8": {"refine": 1_024},
    "IVF_PQ": {"refine": 1_024},
}


@dataclass
class Case:
    """A segment, queries, and which of its rows a search may return."""

    segment: Segment
    queries: np.ndarray
    deleted: DeletedRows
    condition: Filter | None
    limit: int

    @property
    def ids(self) -> np.ndarray:
        return np.asarray(self.segment.rows.ids)

    def allowed(self) -> np.ndarray:
        mask = ~self.deleted.mask(len(self.ids))
        if self.condition is not None:
            mask &= self.condition.mask(self.segment.rows.filtered_column, len(self.ids))
        return np.flatnonzero(mask)

    def search(self, **options: float) -> Hits:
        params = resolve(
            schema_of(self.segment.field),
            field=None,
            metric_type=None,
            params=THOROUGH.get(self.segment.field.index.kind, {}),
            limit=self.limit,
        )[1]
        return search_part(
            self.segment,
            self.queries,
            self.limit,
            params,
            deleted=self.deleted,
            condition=self.condition,
            part=0,
            **options,
        )


def distances_to_all(query: np.ndarray, vectors: np.ndarray, metric: Metric) -> np.ndarray:
    return distances_to(query, vectors, np.arange(len(vectors)), metric)


def expected(
    case: Case, metric: Metric, radius: float | None = None, near_end: float | None = None
) -> list[np.ndarray]:
    """The nearest distances of each query by brute force."""
    vectors = case.segment.rows.vectors("vector")[case.allowed()]
    answers = []
    for query in case.queries:
        found = distances_to_all(query, vectors, metric)
        if radius is not None:
            found = found[found < radius if metric == "L2" else found > radius]
        if near_end is not None:
            found = found[found >= near_end if metric == "L2" else found <= near_end]
        answers.append((np.sort(found) if metric == "L2" else -np.sort(-found))[: case.limit])
    return answers


def check_hits(hits: Hits, case: Case, exact: list[np.ndarray]) -> None:
    """Compare with the exact distances; every hit is an allowed row, none is there twice."""
    allowed = case.allowed()
    for query, count in enumerate(hits.counts):
        rows = hits.places[query, :count]
        assert np.isin(rows, allowed).all()
        assert len(np.unique(rows)) == count
        assert case.ids[rows].tolist() == hits.ids[query, :count].tolist()
        np.testing.assert_allclose(hits.distances[query, :count], exact[query], rtol=1e-5, atol=1e-5)


@st.composite
def cases(draw: st.DrawFn, folder: Path, kind: str, metric: Metric) -> Case:
    """Rows on a coarse grid, so that ties and duplicates are common; few or most of them deleted or refused."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, dim = draw(st.sampled_from([1, 20, 100, 500])), 8
    grid = draw(st.sampled_from([1, 3, 1_000]))
    vectors = random.integers(-grid, grid + 1, (rows, dim)).astype(np.float32)
    ids = (random.permutation(rows)).tolist()
    segment = make_segment(folder, vector_field(dim, metric, kind, **DECLARED[kind]), vectors, ids)
    deleted_share = draw(st.sampled_from([0, 0.01, 0.2, 0.9, 1]))
    deleted = DeletedRows(np.flatnonzero(random.random(rows) < deleted_share).tolist())
    least = draw(st.sampled_from([None, 0, rows // 10, rows // 2, rows - 2, rows]))
    condition = None if least is None else read_expr(schema_of(segment.field), f"id >= {least}", {})
    queries = random.integers(-grid, grid + 1, (draw(st.sampled_from([1, 9])), dim)).astype(np.float32)
    return Case(segment, queries, deleted, condition, draw(st.sampled_from([1, 10, 200])))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_no_deleted_or_refused_row_is_found_and_no_hit_is_missing(kind: str, metric: Metric):
    @settings(max_examples=12, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        with TemporaryDirectory() as folder:
            case = data.draw(cases(Path(folder), kind, metric))
            hits = case.search()
            assert hits.counts.tolist() == [min(case.limit, len(case.allowed()))] * len(case.queries)
            check_hits(hits, case, expected(case, metric))

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_hits_in_a_range_are_the_nearest_of_the_allowed_rows_in_it(kind: str, metric: Metric):
    @settings(max_examples=12, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        with TemporaryDirectory() as folder:
            case = data.draw(cases(Path(folder), kind, metric))
            # Ends that are some row's distance from the first query exactly, so that it matters which of them is in.
            distances = np.unique(distances_to_all(case.queries[0], case.segment.rows.vectors("vector"), metric))
            nearest_first = distances if metric == "L2" else distances[::-1]
            near, far = sorted(data.draw(st.tuples(*[st.integers(0, len(distances) - 1)] * 2)))
            near_end = data.draw(st.sampled_from([None, float(nearest_first[near])]))
            radius = float(nearest_first[far]) if far > near and data.draw(st.booleans()) else None
            hits = case.search(radius=radius, range_filter=near_end)
            check_hits(hits, case, expected(case, metric, radius, near_end))

    check()


def test_a_range_over_near_ties_that_float32_keys_cannot_tell_apart(tmp_path: Path):
    random = np.random.default_rng(3)
    base = 100 + random.standard_normal(64).astype(np.float32)
    vectors = base + 1e-4 * random.standard_normal((2_000, 64)).astype(np.float32)
    for metric in METRICS:
        (tmp_path / metric).mkdir()
        segment = make_segment(tmp_path / metric, vector_field(64, metric), vectors, range(2_000))
        case = Case(segment, vectors[:5], DeletedRows(range(0, 2_000, 3)), None, 50)
        distances = distances_to_all(case.queries[0], vectors, metric)
        near_end = float(np.partition(distances, 1_000)[1_000])
        check_hits(case.search(range_filter=near_end), case, expected(case, metric, None, near_end))


def test_the_way_is_explained(tmp_path: Path):
    vectors = np.random.default_rng(1).standard_normal((20_000, 8), dtype=np.float32)
    folder = tmp_path / "hnsw"
    folder.mkdir()
    segment = make_segment(folder, vector_field(8, "L2", "HNSW", M=4, efConstruction=20), vectors, range(20_000))
    few, most = (read_expr(schema_of(segment.field), f"id < {allowed}", {}) for allowed in (200, 16_000))
    _, params = resolve(schema_of(segment.field), field=None, metric_type=None, params={}, limit=5)
    deleted = DeletedRows(range(100))

    def explain(**among: Any) -> Explanation:
        found = search_part(segment, vectors[-3:], 5, params, **among).explanation
        assert found is not None
        return found

    whole = explain()
    assert (whole.way, whole.params["ef"], whole.rows, whole.allowed, whole.selectivity) == (
        "index",
        64,
        20_000,
        20_000,
        1,
    )
    exact = explain(deleted=deleted, condition=few)
    assert (exact.way, exact.params, exact.deleted, exact.allowed, exact.selectivity) == ("exact", {}, 100, 100, 0.005)
    assert (exact.index, exact.exact_queries, exact.cached) == ("HNSW", 3, False)
    assert explain(deleted=deleted, condition=few).cached
    walked = explain(condition=most)
    assert (walked.way, walked.params["ef"], walked.cached) == ("index", 72, False)
    assert explain(range_filter=1.0).way == "exact"
    assert explain(condition=read_expr(schema_of(segment.field), "id < 0", {})).allowed == 0
