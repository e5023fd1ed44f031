"""HNSW graphs without their vectors: the graph that hnswlib built, whatever order it built it in, and nothing else."""

from pathlib import Path

import hnswlib
import numpy as np
import pytest

from nearmq_index_store.distances import unit_vectors
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.hnsw import Hnsw
from nearmq_index_store.indexes.hnsw_file import read_graph, write_graph
from nearmq_index_store.mapped import map_file
from nearmq_index_store.schema import METRICS, Metric

ROWS, DIM, M, EF_CONSTRUCTION = 2_000, 12, 4, 40
RANDOM = np.random.default_rng(3)
VECTORS = RANDOM.standard_normal((ROWS, DIM)).astype(np.float32)
ORDER = RANDOM.permutation(ROWS)
BUILT = {"M": M, "efConstruction": EF_CONSTRUCTION}


def saved_graph(folder: Path, metric: Metric, vectors: np.ndarray) -> hnswlib.Index:
    """A graph whose nodes are not in the order of the rows, as several threads leave it, and its file."""
    graph = hnswlib.Index(space="l2" if metric == "L2" else "ip", dim=DIM)
    graph.init_index(max_elements=ROWS, M=M, ef_construction=EF_CONSTRUCTION, random_seed=1)
    graph.add_items(vectors[ORDER], ORDER, num_threads=1)
    graph.save_index(str(folder / "saved"))
    write_graph(folder / "saved", folder / "graph", rows=ROWS, dim=DIM, m=M, ef_construction=EF_CONSTRUCTION)
    return graph


def test_an_opened_graph_is_saved_for_hnswlib_itself(tmp_path: Path):
    graph = saved_graph(tmp_path, "L2", VECTORS)
    Hnsw().open(map_file(tmp_path / "graph"), BUILT, VECTORS, "L2").save(tmp_path / "again")
    again = hnswlib.Index(space="l2", dim=DIM)
    again.load_index(str(tmp_path / "again"), max_elements=ROWS)
    for index in (graph, again):
        index.set_ef(30)
    np.testing.assert_array_equal(again.knn_query(VECTORS, k=10)[0], graph.knn_query(VECTORS, k=10)[0])


@pytest.mark.parametrize("metric", METRICS)
def test_walks_find_what_they_find_in_the_graph_that_was_built(tmp_path: Path, metric: Metric):
    rows = VECTORS * RANDOM.uniform(0.1, 10, (ROWS, 1)).astype(np.float32)
    graph = saved_graph(tmp_path, metric, unit_vectors(rows) if metric == "COSINE" else rows)
    index = Hnsw().open(map_file(tmp_path / "graph"), BUILT, rows, metric)
    queries = unit_vectors(VECTORS[:200])
    graph.set_ef(1)
    expected, _ = graph.knn_query(queries, k=30, num_threads=1)
    found, stranded = index.walk(queries, 30, 30)
    assert not len(stranded)
    assert [set(rows.tolist()) for rows in found] == [set(row) for row in expected.tolist()]


def test_cosine_rows_of_any_length_are_walked_at_length_1(tmp_path: Path):
    saved_graph(tmp_path, "COSINE", unit_vectors(VECTORS))
    file = map_file(tmp_path / "graph")
    plain = Hnsw().open(file, BUILT, VECTORS, "COSINE")
    scales = np.array([1e-25, 1, 1e25], dtype=np.float32)[np.arange(ROWS) % 3, np.newaxis]
    scaled = Hnsw().open(file, BUILT, VECTORS * scales, "COSINE")
    (some, stranded), (others, stranded_too) = (index.walk(VECTORS[:50], 20, 20) for index in (plain, scaled))
    assert not len(stranded) + len(stranded_too)
    for one, other in zip(some, others, strict=True):
        assert len(set(one.tolist()) & set(other.tolist())) >= 19


def damaged(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + value.to_bytes(4, "little") + data[at + 4 :]


def test_all_that_hnswlib_would_follow_is_checked(tmp_path: Path):
    saved_graph(tmp_path, "L2", VECTORS)
    data = (tmp_path / "graph").read_bytes()
    facts = {"rows": ROWS, "dim": DIM, "m": M, "ef_construction": EF_CONSTRUCTION}
    graph = read_graph(data, **facts)
    ground, upper = 48, 48 + graph.ground.nbytes
    low = int(np.flatnonzero(graph.levels == 0)[0])
    for what, harm in {
        "header": [damaged(data, at, 77) for at in (0, 8, 12, 16, 20, 32)],
        "entry point": [damaged(data, 28, ROWS), damaged(data, 28, low), damaged(data, 24, graph.top + 1)],
        "length": [data[:10], data[:-1], data + b"\0", damaged(data, 40, len(graph.upper) + 1)],
        "link count": [damaged(data, ground, 2 * M + 1), damaged(data, upper, M + 1), damaged(data, ground, 1 << 16)],
        "link": [damaged(data, ground + 4, ROWS), damaged(data, upper + 4, ROWS)],
        "level of a link": [damaged(data, upper + 4, low)],
        "number of nodes": [data[:-ROWS] + b"\x09" + data[1 - ROWS :]],
    }.items():
        for bad in harm:
            with pytest.raises(IndexCorrupt, match=f"^the {what} of the HNSW index contradicts"):
                read_graph(bad, **facts)
