"""What `indexes/protocol.py` promises, held to every kind and every metric."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from nearmq_index_store.errors import IndexCorrupt, InvalidArgument
from nearmq_index_store.indexes import INDEX_KINDS, index_kind
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.cells import Cells, Visits
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.mapped import map_file
from nearmq_index_store.schema import METRICS
from nearmq_index_store.search import resolve, search_part
from nearmq_index_store.segment import Segment
from tests.segments import distances_to, make_segment, schema_of, vector_field

ROWS, DIM = 1_500, 16
DECLARED = {
    "FLAT": {},
    "HNSW": {"M": 8, "efConstruction": 60},
    "IVF_FLAT": {"nlist": 16},
    "IVF_SQ8": {"nlist": 16},
    "IVF_PQ": {"nlist": 16, "m": 8, "nbits": 6},
}
CASES = [(kind, metric) for kind in INDEX_KINDS for metric in METRICS]


def clustered(rows: int, seed: int) -> np.ndarray:
    """Vectors in 30 clusters, with zero vectors and duplicates among them."""
    random = np.random.default_rng(seed)
    centers = 3 * np.random.default_rng(0).standard_normal((30, DIM))
    vectors = centers[random.integers(0, 30, rows)] + random.standard_normal((rows, DIM))
    vectors[:: rows // 8] = 0
    vectors[1 :: rows // 10] = vectors[1]
    return vectors.astype(np.float32)


VECTORS, QUERIES = clustered(ROWS, 1), clustered(50, 2)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def segment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Segment:
    kind, metric = request.param
    field = vector_field(DIM, metric, kind, **DECLARED[kind])
    return make_segment(tmp_path_factory.mktemp(kind), field, VECTORS, np.random.default_rng(3).permutation(ROWS))


def resolved(segment: Segment, limit: int, **params: int) -> SearchParams:
    schema = schema_of(segment.field)
    return resolve(schema, field=None, metric_type=None, params=params, limit=limit)[1]


def hits_of(segment: Segment, queries: np.ndarray, limit: int, params: SearchParams):
    hits = search_part(segment, queries, limit, params)
    return [
        (ids[:count].tolist(), distances[:count].tobytes())
        for ids, distances, count in zip(hits.ids, hits.distances, hits.counts, strict=True)
    ]


@pytest.mark.parametrize("limit", [1, 10, 700, ROWS, 1_048_576])
def test_candidates_are_rows_of_the_segment_enough_of_them_and_none_twice(segment: Segment, limit: int):
    found = segment.index.candidates(QUERIES[:20], limit, resolved(segment, limit))
    assert len(found) == 20
    for rows in found:
        assert rows.dtype == np.int64
        assert len(np.unique(rows)) == len(rows) >= min(limit, ROWS)
        assert rows.min() >= 0
        assert rows.max() < ROWS


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_building_and_searching_leave_the_caller_as_many_threads_of_faiss_as_it_had(
    kind: str, threads: int, tmp_path: Path
):
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        field = vector_field(DIM, "L2", kind, **DECLARED[kind])
        segment = make_segment(tmp_path, field, VECTORS, range(ROWS), threads=threads)
        search_part(segment, QUERIES, 10, resolved(segment, 10))
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_a_query_gets_the_same_alone_as_in_a_batch_of_50_with_larger_limits(segment: Segment):
    params = resolved(segment, 60)
    together = search_part(segment, QUERIES, 60, params)
    for number, query in enumerate(QUERIES):
        alone = search_part(segment, query[np.newaxis], 10, params)
        assert alone.counts.tolist() == [10]
        np.testing.assert_array_equal(alone.ids[0], together.ids[number, :10])
        np.testing.assert_array_equal(alone.distances[0], together.distances[number, :10])


def test_hits_are_ordered_by_distance_then_id(segment: Segment):
    hits = search_part(segment, QUERIES, 200, resolved(segment, 200))
    sign = 1 if segment.field.metric == "L2" else -1
    for ids, distances in zip(hits.ids, sign * hits.distances, strict=True):
        keys = list(zip(distances.tolist(), ids.tolist(), strict=True))
        assert keys == sorted(keys)


def test_recall_at_the_defaults_is_at_least_095_by_distance(segment: Segment):
    found = search_part(segment, QUERIES, 10, resolved(segment, 10)).distances
    exact = search_part(make_exact(segment), QUERIES, 10, SearchParams()).distances
    sign = 1 if segment.field.metric == "L2" else -1
    assert (sign * found <= sign * exact[:, -1:] + 1e-5).mean() >= 0.95


def make_exact(segment: Segment) -> Segment:
    vectors = segment.rows.vectors(segment.field.name)
    index = index_kind("FLAT").open(None, {}, vectors, segment.field.metric)
    return Segment(entry=segment.entry, field=segment.field, rows=segment.rows, index=index)


def masks() -> dict[str, np.ndarray]:
    """Allowed rows: at random, one, all, and those that lie in one direction."""
    random = np.random.default_rng(4).random(ROWS)
    side = VECTORS @ np.random.default_rng(5).standard_normal(DIM)
    return {
        "half": random < 0.5,
        "most": random < 0.9,
        "few": random < 0.01,
        "one": np.arange(ROWS) == 700,
        "all": np.ones(ROWS, dtype=bool),
        "side": side > np.quantile(side, 0.7),
    }


@pytest.mark.parametrize("limit", [1, 10, 700])
def test_candidates_among_some_rows_are_allowed_enough_and_none_twice(segment: Segment, limit: int):
    params = resolved(segment, limit)
    for name, mask in masks().items():
        allowed = AllowedRows(mask[np.asarray(segment.rows.ids)])
        index = segment.index.among(allowed)
        if index is None:
            assert segment.field.index.kind == "FLAT"
            return
        found = index.candidates(QUERIES[:20], limit, params)
        assert len(found) == 20
        assert index.cost(params) > 0
        for rows in found:
            if len(rows):
                assert allowed.mask[rows].all()
                assert len(np.unique(rows)) == len(rows) >= min(limit, allowed.count)
        if name in ("half", "most", "all"):
            assert len(found.without()) <= 5


def test_a_query_among_some_rows_gets_the_same_alone_as_in_a_batch(segment: Segment):
    params = resolved(segment, 20)
    for mask in masks().values():
        index = segment.index.among(AllowedRows(mask))
        if index is None:
            return
        together = index.candidates(QUERIES, 20, params)
        for query, rows in zip(QUERIES, together, strict=True):
            (alone,) = index.candidates(query[np.newaxis], 20, params)
            assert sorted(alone) == sorted(rows)


@pytest.mark.parametrize("allowed", ["half", "most", "side"])
def test_recall_among_some_rows_is_at_least_095_where_the_index_answers(segment: Segment, allowed: str):
    mask = masks()[allowed][np.asarray(segment.rows.ids)]
    index = segment.index.among(AllowedRows(mask))
    if index is None:
        return
    vectors, metric = segment.rows.vectors("vector"), segment.field.metric
    sign = 1 if metric == "L2" else -1
    shares = []
    for query, rows in zip(QUERIES, index.candidates(QUERIES, 10, resolved(segment, 10)), strict=True):
        if len(rows):
            found = np.sort(sign * distances_to(query, vectors, rows, metric))[:10]
            exact = np.sort(sign * distances_to(query, vectors, np.flatnonzero(mask), metric))[:10]
            shares.append((found <= exact[-1] + 1e-5).mean())
    assert np.mean(shares or [1]) >= 0.95


def test_ivf_flat_over_all_cells_equals_flat(tmp_path: Path):
    for metric in METRICS:
        field = vector_field(DIM, metric, "IVF_FLAT", nlist=16)
        folder = tmp_path / metric
        folder.mkdir()
        segment = make_segment(folder, field, VECTORS, range(ROWS))
        expected = hits_of(make_exact(segment), QUERIES, 300, SearchParams())
        assert hits_of(segment, QUERIES, 300, resolved(segment, 300, nprobe=16)) == expected


def test_no_queries_have_no_candidates(segment: Segment):
    assert list(segment.index.candidates(QUERIES[:0], 10, resolved(segment, 10))) == []


def test_queries_of_any_finite_size_are_answered(segment: Segment):
    extreme = np.stack([QUERIES[0] * np.float32(scale) for scale in (0, 1e-45, 1e-30, 1e20, 3e37)])
    hits = search_part(segment, extreme, 10, resolved(segment, 10))
    assert hits.counts.tolist() == [10] * 5
    assert np.isfinite(hits.distances).all()


def test_threads_with_different_params_do_not_disturb_each_other(segment: Segment):
    limits = [1, 10, 100, 1_000] * 4
    expected = {limit: hits_of(segment, QUERIES, limit, resolved(segment, limit)) for limit in set(limits)}
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda limit: hits_of(segment, QUERIES, limit, resolved(segment, limit)), limits)
        assert [expected[limit] for limit in limits] == list(found)


def test_rows_that_are_all_alike_are_found_by_smaller_id(tmp_path: Path):
    """An island of duplicates: hnswlib's graph falls apart, k-means has one cluster."""
    alike = np.ones((ROWS, DIM), dtype=np.float32)
    for kind, declared in DECLARED.items():
        folder = tmp_path / kind
        folder.mkdir()
        segment = make_segment(folder, vector_field(DIM, "L2", kind, **declared), alike, range(ROWS))
        hits = search_part(segment, QUERIES, 100, resolved(segment, 100))
        assert hits.counts.tolist() == [100] * 50
        if kind in ("FLAT", "IVF_FLAT"):
            assert hits.ids.tolist() == [list(range(100))] * 50


def test_queries_stranded_on_an_island_of_duplicates_are_answered_exactly(tmp_path: Path):
    vectors = VECTORS.copy()
    vectors[200:500] = 100  # rows that link to each other only
    field = vector_field(DIM, "L2", "HNSW", **DECLARED["HNSW"])
    segment = make_segment(tmp_path, field, vectors, range(ROWS))
    queries = np.concatenate([QUERIES, vectors[200:202]])
    params = resolved(segment, 100)
    with pytest.raises(RuntimeError):
        segment.index._graph.knn_query(queries[-1:], k=100)
    together = hits_of(segment, queries, 100, params)
    assert together[-2:] == hits_of(make_exact(segment), queries[-2:], 100, SearchParams())
    assert together == [hits_of(segment, query[np.newaxis], 100, params)[0] for query in queries]


@pytest.mark.parametrize(
    ("kind", "declared", "message"),
    [
        ("FLAT", {"nlist": 16}, "FLAT has no parameter 'nlist', it takes none"),
        ("HNSW", {"efconstruction": 16}, "no parameter 'efconstruction', did you mean 'efConstruction'"),
        ("HNSW", {"M": 1}, "M must be a whole number from 2 to 2048, got 1"),
        ("HNSW", {"efConstruction": 0}, "efConstruction must be a whole number from 1 to 65536, got 0"),
        ("IVF_FLAT", {"nlist": 65_537}, "nlist must be a whole number from 1 to 65536, got 65537"),
        ("IVF_SQ8", {"nlist": True}, "nlist must be a whole number from 1 to 65536, got True"),
        ("IVF_SQ8", {"m": 4}, "IVF_SQ8 has no parameter 'm', only 'nlist'"),
        ("IVF_PQ", {"m": 5}, "m must divide dim, 16, got 5"),
        ("IVF_PQ", {"nbits": 17}, "nbits must be a whole number from 1 to 16, got 17"),
    ],
)
def test_bad_build_params_are_refused_with_their_range(kind: str, declared: dict[str, int], message: str):
    with pytest.raises(InvalidArgument, match=message):
        index_kind(kind).check_build_params(declared, DIM)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("FLAT", {"nprobe": 1}, "FLAT search has no parameter 'nprobe', it takes none"),
        ("HNSW", {"ef": 9}, "ef must be a whole number from 10 to 1048576, got 9"),
        ("HNSW", {"ef": 64.0}, "ef must be a whole number from 10 to 1048576, got 64.0"),
        ("IVF_FLAT", {"nprobe": 17}, "nprobe must be a whole number from 1 to 16, got 17"),
        ("IVF_FLAT", {"nprob": 4}, "IVF_FLAT search has no parameter 'nprob', did you mean 'nprobe'"),
        ("IVF_SQ8", {"nprobe": 0}, "nprobe must be a whole number from 1 to 16, got 0"),
        ("IVF_PQ", {"refine": 1_025}, "refine must be a whole number from 1 to 1024, got 1025"),
    ],
)
def test_bad_search_params_are_refused_with_their_range(kind: str, params: dict[str, int | float], message: str):
    field = vector_field(DIM, "L2", kind, **DECLARED[kind])
    with pytest.raises(InvalidArgument, match=message):
        index_kind(kind).resolve(params, field, 10)


def test_defaults_are_the_documented_ones():
    assert index_kind("HNSW").check_build_params({}, 64) == {"M": 16, "efConstruction": 200}
    assert index_kind("IVF_PQ").check_build_params({}, 64) == {"nlist": 128, "m": 16, "nbits": 8}
    assert [index_kind("IVF_PQ").check_build_params({}, dim)["m"] for dim in (1, 6, 10, 127, 384)] == [1, 2, 5, 127, 96]
    defaults = {kind: index_kind(kind).resolve({}, vector_field(DIM, "L2", kind), 10) for kind in INDEX_KINDS}
    assert defaults == {
        "FLAT": SearchParams(),
        "HNSW": SearchParams(ef=64, candidates=16),
        "IVF_FLAT": SearchParams(nprobe=48, candidates=128),
        "IVF_SQ8": SearchParams(nprobe=48, candidates=32),
        "IVF_PQ": SearchParams(nprobe=48, candidates=128),
    }


def test_an_unknown_kind_is_refused_naming_the_nearest():
    with pytest.raises(InvalidArgument, match="no index kind 'IVF_FLATT', did you mean 'IVF_FLAT'"):
        index_kind("IVF_FLATT")
    with pytest.raises(InvalidArgument, match="known are FLAT, HNSW, IVF_FLAT, IVF_SQ8, IVF_PQ"):
        index_kind("annoy")


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_an_index_of_other_rows_or_params_is_corrupt(tmp_path: Path, kind: str):
    field = vector_field(DIM, "L2", kind, **DECLARED[kind])
    built = index_kind(kind).build(VECTORS, field, tmp_path, threads=1, seed=1)
    others = [(VECTORS[:-1], built.params), (np.ascontiguousarray(VECTORS[:, :-8]), built.params)]
    others += [(VECTORS, built.params | {key: value * 2}) for key, value in built.params.items()]
    for vectors, params in others:
        with pytest.raises(IndexCorrupt):
            index_kind(kind).open(map_file(built.path), params, vectors, "L2")


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_an_empty_index_file_is_corrupt(tmp_path: Path, kind: str):
    field = vector_field(DIM, "L2", kind, **DECLARED[kind])
    (tmp_path / "index").touch()
    with pytest.raises(IndexCorrupt):
        index_kind(kind).open(map_file(tmp_path / "index"), field.index.params, VECTORS, "L2")


def test_a_cell_whose_distance_is_beyond_float32_is_visited_last():
    cells = Cells(np.array([[1e30], [0]], np.float32), np.array([0, 1, 2]), np.array([0, 1]))
    visits, query = Visits(cells, "L2"), np.zeros((1, 1), np.float32)
    ((_, visited),) = visits.choose(visits.prepare(query), nprobe=1, at_least=2)
    assert visited.tolist() == [[1, 0]]
    visited, distances = visits.nearest_first(query, visited)
    assert visited.tolist() == [[1, 0]]
    assert distances.tolist() == [[0, np.finfo(np.float32).max]]


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"])
def test_200_damaged_files_are_refused_or_searched_without_a_crash(tmp_path: Path, kind: str):
    rows, dim, seed = 400, 8, 5
    vectors = np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)
    field = vector_field(dim, "L2", kind, **({} if kind == "HNSW" else {"nlist": 8}))
    built = index_kind(kind).build(vectors, field, tmp_path, threads=1, seed=1)
    script = Path(__file__).with_name("mutated_index.py")
    arguments = [sys.executable, str(script), kind, str(built.path), str(rows), str(dim), str(seed)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    refused, searched = map(int, ended.stdout.split())
    assert refused + searched == 200
    assert refused >= 90, "truncations and damaged headers are refused"
