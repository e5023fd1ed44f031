"""Searches that ask for a recall, by every kind of index: each segment answers by its own measurements."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.indexes import INDEX_KINDS, index_kind
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.schema import Metric
from nearmq_index_store.search import Hits, read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from tests.segments import make_segment, schema_of, vector_field

ROWS, DIM = 6_000, 24
DECLARED = {
    "FLAT": {},
    "HNSW": {"M": 6, "efConstruction": 40},
    "IVF_FLAT": {"nlist": 64},
    "IVF_SQ8": {"nlist": 64},
    "IVF_PQ": {"nlist": 64, "m": 6, "nbits": 6},
}
APPROXIMATE = [kind for kind in DECLARED if kind != "FLAT"]

random = np.random.default_rng(1)
CENTRES = random.standard_normal((40, DIM))
ALL = (CENTRES[random.integers(40, size=ROWS + 1_000)] + random.standard_normal((ROWS + 1_000, DIM))).astype(np.float32)
VECTORS, QUERIES = ALL[:ROWS], ALL[ROWS:]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Segment]:
    made: dict[tuple[str, Metric], Segment] = {}

    def make(kind: str, metric: Metric = "L2") -> Segment:
        if (kind, metric) not in made:
            field = vector_field(DIM, metric, kind, **DECLARED[kind])
            made[kind, metric] = make_segment(tmp_path_factory.mktemp(kind), field, VECTORS, range(ROWS))
        return made[kind, metric]

    return make


def asking(segment: Segment, recall: float, limit: int = 10) -> SearchParams:
    schema = schema_of(segment.field)
    return resolve(schema, field=None, metric_type=None, params={"recall": recall}, limit=limit)[1]


def recall_of(found: Hits, exact: Hits) -> float:
    sign = 1 if found.metric == "L2" else -1
    return float((sign * found.distances <= sign * exact.distances[:, -1:] + 1e-5).mean())


def exact_twin(segment: Segment) -> Segment:
    vectors = segment.rows.vectors(segment.field.name)
    index = index_kind("FLAT").open(None, {}, vectors, segment.field.metric)
    return Segment(entry=segment.entry, field=segment.field, rows=segment.rows, index=index)


@pytest.mark.parametrize("metric", ["L2", "COSINE", "IP"])
@pytest.mark.parametrize("kind", APPROXIMATE)
def test_the_recall_that_is_asked_for_is_reached(make: Callable[..., Segment], kind: str, metric: Metric):
    segment = make(kind, metric)
    for limit in (1, 10, 60):
        exact = search_part(exact_twin(segment), QUERIES, limit, SearchParams())
        for asked in (0.8, 0.9, 0.95, 0.99, 1):
            found = search_part(segment, QUERIES, limit, asking(segment, asked, limit))
            assert recall_of(found, exact) >= asked - 0.01, (limit, asked)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_less_recall_takes_less_effort_and_all_of_it_an_exact_scan(make: Callable[..., Segment], kind: str):
    segment = make(kind)
    efforts = []
    for asked in (0.5, 0.8, 0.9):
        explanation = search_part(segment, QUERIES[:1], 10, asking(segment, asked)).explanation
        assert explanation is not None
        assert explanation.way == "index"
        efforts.append(explanation.params.get("ef") or explanation.params["nprobe"])
    assert efforts == sorted(efforts)
    assert efforts[0] < efforts[-1]
    whole = search_part(segment, QUERIES[:1], 10, asking(segment, 1)).explanation
    assert whole is not None
    assert (whole.way, whole.params, whole.exact_queries) == ("exact", {}, 1)


def test_every_kind_takes_a_recall_even_where_nothing_was_measured(tmp_path: Path):
    """FLAT finds all anyway; few rows are searched exactly."""
    for kind in INDEX_KINDS:
        (tmp_path / kind).mkdir()
        segment = make_segment(tmp_path / kind, vector_field(DIM, "L2", kind), VECTORS[:900], range(900))
        assert segment.entry.indexes["vector"].recalls == {}
        found = search_part(segment, QUERIES[:5], 10, asking(segment, 0.7))
        assert found.explanation is not None
        assert found.explanation.exact_queries == 5
        expected = search_part(exact_twin(segment), QUERIES[:5], 10, SearchParams())
        assert found.ids.tolist() == expected.ids.tolist()


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_query_that_asks_for_a_recall_gets_the_same_alone_as_among_larger_limits(
    make: Callable[..., Segment], kind: str
):
    segment = make(kind)
    assert asking(segment, 0.9, 2) == asking(segment, 0.9, 9) != asking(segment, 0.9, 11)
    together = search_part(segment, QUERIES[:30], 9, asking(segment, 0.9, 9))
    for number in range(30):
        alone = search_part(segment, QUERIES[number : number + 1], 2, asking(segment, 0.9, 2))
        assert alone.ids.tolist() == together.ids[number : number + 1, :2].tolist()


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_recall_among_some_rows(make: Callable[..., Segment], kind: str):
    segment = make(kind)
    deleted = DeletedRows(range(0, ROWS, 7))
    for allowed in (ROWS // 20, ROWS // 2, ROWS):
        condition = read_expr(schema_of(segment.field), f"id < {allowed}", {})
        found, exact = (
            search_part(one, QUERIES, 10, asking(one, 0.9), deleted=deleted, condition=condition)
            for one in (segment, exact_twin(segment))
        )
        assert recall_of(found, exact) >= 0.88


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"recall": 0}, "recall must be a number above 0 and at most 1, got 0"),
        ({"recall": 1.01}, "recall must be a number above 0 and at most 1, got 1.01"),
        ({"recall": float("nan")}, "recall must be a number above 0 and at most 1, got nan"),
        ({"recall": True}, "recall must be a number above 0 and at most 1, got True"),
        ({"recall": 0.9, "ef": 64}, "recall stands for all other parameters, give either it or 'ef'"),
        ({"recall": 0.9, "nprobe": 8, "refine": 2}, "give either it or 'nprobe', 'refine'"),
    ],
)
@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_a_bad_recall_is_refused(kind: str, params: dict[str, float], message: str):
    schema = schema_of(vector_field(DIM, "L2", kind, **DECLARED[kind]))
    with pytest.raises(InvalidArgument, match=message) as refused:
        resolve(schema, field=None, metric_type=None, params=params, limit=10)
    assert refused.value.field == "params.recall"
