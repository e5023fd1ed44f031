# ruff: noqa: ARG002 - the protocol's parameters; not every kind needs them all
"""HNSW by hnswlib, the one module that imports it.

Defaults, measured on 29,000 x 384 real vectors (recall@10, COSINE): M 16, efConstruction 200 and ef = max(64, limit)
reach 0.98; Milvus's ef = max(limit, 16) reaches 0.89.

hnswlib checks little and crashes easily, so this module asks it only what cannot fail:
- ef is a property of its index, and two threads with different ef would race. But the walk's width is max(ef, k): ef
  stays 1 for ever, and k carries the width of each call.
- A walk that finds fewer than k rows, because near-duplicates can form an island of the graph that nothing leaves,
  raises for the whole batch and leaks its result arrays (12 bytes a row asked for). Such a batch is walked again one
  query at a time, and the stranded queries are answered exactly.
- Its file loader follows whatever the file says: see `hnsw_file.py`.

Source: Malkov and Yashunin, arXiv:1603.09320.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from nearmq_index_store.distances import FloatMatrix, RowNumbers, row_blocks, unit_vectors
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.flat import FlatIndex, flat_instead
from nearmq_index_store.indexes.hnsw_file import check_file
from nearmq_index_store.indexes.params import MAX_LIMIT, check_params
from nearmq_index_store.indexes.protocol import BuiltIndex, SearchParams
from nearmq_index_store.indexes.scan import in_range
from nearmq_index_store.schema import Metric, VectorField

#: Row numbers that one call of hnswlib may return: 32 MiB of labels.
_LABELS_AT_ONCE = 1 << 22

#: What hnswlib keeps in memory for a row beside the file's bytes: mutex, hash table entry, pointer, level, visited
#: mark.
_OVERHEAD_BYTES = 120

#: What `ef` is without one: this, or the limit where it is larger.
DEFAULT_EF = 64


class Hnsw:
    """The HNSW kind: M links a node and efConstruction to build, ef to search."""

    name = "HNSW"

    def check_build_params(self, params: Mapping[str, int], dim: int) -> dict[str, int]:
        """Fill in M 16 and efConstruction 200."""
        ranges = {"M": (2, 2_048), "efConstruction": (1, 65_536)}
        return {"M": 16, "efConstruction": 200} | check_params(params, ranges, "HNSW")

    def resolve(self, params: Mapping[str, int | float], field: VectorField, limit: int) -> SearchParams:
        """Fill in ef = max(64, limit)."""
        given = check_params(params, {"ef": (limit, MAX_LIMIT)}, "HNSW search")
        return SearchParams(ef=given.get("ef", max(DEFAULT_EF, limit)))

    def build(self, vectors: FloatMatrix, field: VectorField, folder: Path, *, threads: int, seed: int) -> BuiltIndex:
        """Insert all rows, labelled by row number."""
        rows, dim = vectors.shape
        if not in_range(vectors, field.metric):
            return flat_instead(rows)
        path = folder / f"{field.name}.hnsw"
        graph = hnswlib.Index(space=_space(field.metric), dim=dim)
        graph.init_index(
            max_elements=rows,
            M=field.index.params["M"],
            ef_construction=field.index.params["efConstruction"],
            random_seed=seed,
        )
        for block in row_blocks(vectors):
            chunk = unit_vectors(vectors[block]) if field.metric == "COSINE" else vectors[block]
            graph.add_items(chunk, np.arange(block.start, block.stop), num_threads=threads)
        graph.save_index(str(path))
        return BuiltIndex(
            kind=self.name,
            params=dict(field.index.params),
            path=path,
            memory_bytes=path.stat().st_size + _OVERHEAD_BYTES * rows,
        )

    def open(self, path: Path | None, built: Mapping[str, int], vectors: FloatMatrix, metric: Metric) -> "HnswIndex":
        """Check the whole graph, then let hnswlib load it."""
        if path is None:
            raise IndexCorrupt("an HNSW index has a file, the manifest names none")
        rows, dim = vectors.shape
        check_file(path, rows=rows, dim=dim, m=built["M"], ef_construction=built["efConstruction"])
        graph = hnswlib.Index(space=_space(metric), dim=dim)
        try:
            graph.load_index(str(path), max_elements=rows)
        except RuntimeError as error:
            raise IndexCorrupt(f"hnswlib cannot load the index: {error}") from error
        graph.set_ef(1)
        return HnswIndex(graph, vectors, metric)


class HnswIndex:
    """A loaded graph."""

    def __init__(self, graph: Any, vectors: FloatMatrix, metric: Metric) -> None:
        self._graph = graph
        self._vectors = vectors
        self._metric = metric

    def candidates(self, queries: FloatMatrix, limit: int, params: SearchParams) -> list[RowNumbers]:
        """Return all that walks of width ef find; every row where ef reaches their number."""
        rows = len(self._vectors)
        if params.ef >= rows:
            return [np.arange(rows)] * len(queries)
        walked = unit_vectors(queries) if self._metric == "COSINE" else queries
        found: list[RowNumbers] = []
        step = max(1, _LABELS_AT_ONCE // params.ef)
        for start in range(0, len(queries), step):
            found += self._walk(queries[start : start + step], walked[start : start + step], params.ef)
        return found

    def _walk(self, queries: FloatMatrix, walked: FloatMatrix, ef: int) -> list[RowNumbers]:
        try:
            # One native thread a call: callers run segments and batches in parallel, and a second thread costs 70 us.
            labels, _ = self._graph.knn_query(walked, k=ef, num_threads=1)
        except RuntimeError:
            if len(queries) == 1:
                return self._exact.nearest(queries, ef)
            return [self._walk(queries[i : i + 1], walked[i : i + 1], ef)[0] for i in range(len(queries))]
        return list(labels.astype(np.int64))

    @cached_property
    def _exact(self) -> FlatIndex:
        return FlatIndex(self._vectors, self._metric)


def _space(metric: Metric) -> str:
    # COSINE is the inner product of vectors that are normalised here, so that a zero vector has similarity 0.
    return "l2" if metric == "L2" else "ip"
