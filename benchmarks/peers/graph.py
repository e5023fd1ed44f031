"""The graph that every peer searches, in whatever process: raw hnswlib over the graph that nearmq's segment has."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import hnswlib
import msgspec
import numpy as np

from benchmarks.data import LIMIT
from benchmarks.stage import Built

#: What one-query jobs are searched with; recall is 0.99 on the synthetic data.
EF = 32
_VARIABLE = "NEARMQ_BENCH_GRAPH"


class GraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the graph is and how it is opened."""

    path: str
    space: str
    dim: int
    rows: int


def environment(graph: Built) -> Mapping[str, str]:
    """Return the environment in which a server finds the graph."""
    return {**os.environ, _VARIABLE: msgspec.json.encode(_file(graph)).decode()}


def open_graph(graph: Built, ef: int) -> Any:
    """Open it with raw hnswlib."""
    return _open(_file(graph), ef)


@cache
def _served() -> Any:
    return _open(msgspec.json.decode(os.environ[_VARIABLE], type=GraphFile), EF)


def search(vector: Any) -> tuple[list[int], list[float]]:
    """Search for one query, in a server; the graph is opened at the first."""
    labels, distances = _served().knn_query(np.asarray(vector, dtype=np.float32), k=LIMIT, num_threads=1)
    return labels[0].tolist(), distances[0].tolist()


def _file(graph: Built) -> GraphFile:
    space = "l2" if graph.data.metric == "L2" else "ip"
    return GraphFile(path=str(graph.graph_path), space=space, dim=graph.data.dim, rows=len(graph.data.rows))


def _open(file: GraphFile, ef: int) -> Any:
    index = hnswlib.Index(space=file.space, dim=file.dim)
    index.load_index(file.path, max_elements=file.rows)
    index.set_ef(ef)
    return index
