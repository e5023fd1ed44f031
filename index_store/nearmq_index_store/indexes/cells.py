"""The cells of the IVF indexes: k-means over the rows, and which cells a query visits."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import (
    Distances,
    FloatMatrix,
    RowNumbers,
    exact_distances,
    nearest_first,
    row_blocks,
    unit_vectors,
)
from nearmq_index_store.indexes._faiss import assign_to_nearest, kmeans
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.indexes.scan import in_range
from nearmq_index_store.schema import Metric

#: How many cells there may be, and are by default.
NLIST = (1, 65_536)
DEFAULT_NLIST = 128

#: Rows to train on, and at least so many a cell (as far as there are as many).
SAMPLE_ROWS, _SAMPLE_ROWS_PER_CELL = 16_384, 32


@dataclass(frozen=True, slots=True)
class Cells:
    """Rows grouped by their nearest centroid.

    Attributes:
        centroids: float32, shape (nlist, dim), of unit length where the metric is COSINE.
        offsets: int64, shape (nlist + 1,): cell c holds the positions offsets[c] to offsets[c + 1].
        order: int64, shape (rows,): the row number at each position.
    """

    centroids: FloatMatrix
    offsets: npt.NDArray[np.int64]
    order: RowNumbers

    @property
    def are_slices(self) -> bool:
        """Whether the rows are in the order of the cells already."""
        return bool(np.array_equal(self.order, np.arange(len(self.order))))

    def of_sorted_rows(self) -> "Cells":
        """Return the same cells over rows that were brought into `order`."""
        return Cells(self.centroids, self.offsets, np.arange(len(self.order)))


def default_nprobe(nlist: int) -> int:
    """Return the cells to visit without a given nprobe: three eighths of them, rounded up."""
    return -(-3 * nlist // 8)


def train_cells(vectors: FloatMatrix, metric: Metric, nlist: int, *, threads: int, seed: int) -> Cells | None:
    """Cluster the rows by k-means on a sample of them.

    Returns:
        None where that is impossible: fewer rows than cells, or values so large that float32 sums overflow.
    """
    if len(vectors) < nlist or not in_range(vectors, metric):
        return None
    sample = sample_rows(vectors, metric, max(SAMPLE_ROWS, nlist * _SAMPLE_ROWS_PER_CELL), seed=seed)
    centroids = kmeans(sample, nlist, spherical=metric == "COSINE", threads=threads, seed=seed)
    cells = np.empty(len(vectors), dtype=np.int64)
    for rows in row_blocks(vectors):
        cells[rows] = assign_to_nearest(centroids, as_indexed(vectors[rows], metric), threads=threads)
    offsets = np.zeros(nlist + 1, dtype=np.int64)
    np.cumsum(np.bincount(cells, minlength=nlist), out=offsets[1:])
    return Cells(centroids, offsets, np.argsort(cells, kind="stable"))


def sample_rows(vectors: FloatMatrix, metric: Metric, count: int, *, seed: int) -> FloatMatrix:
    """Return `count` random rows as they are indexed, in row order; all where there are not more."""
    if count >= len(vectors):
        return as_indexed(vectors, metric)
    chosen = np.random.default_rng(seed).choice(len(vectors), count, replace=False)
    return as_indexed(vectors[np.sort(chosen)], metric)


def as_indexed(vectors: FloatMatrix, metric: Metric) -> FloatMatrix:
    """Return vectors as an index sees them: at unit length where the metric is COSINE."""
    return unit_vectors(vectors) if metric == "COSINE" else vectors


class Visits:
    """Chooses the cells that a query visits: the nearest ones, in order.

    For COSINE the centroids have unit length: on the real data, ranking by the similarity to the direction of a cell
    gave recall 0.980 at nprobe 48 of 128, by the inner product with its mean 0.975, by L2 0.968.
    """

    def __init__(self, cells: Cells, metric: Metric) -> None:
        """Take the metric of the field; cells are ranked by L2 for L2, by inner product for IP and COSINE."""
        self._centroids = cells.centroids
        self._metric: Metric = "L2" if metric == "L2" else "IP"
        self._ranked = FlatIndex(cells.centroids, self._metric)
        self._sizes = np.diff(cells.offsets)

    def choose(self, queries: FloatMatrix, nprobe: int, at_least: int) -> list[tuple[RowNumbers, Distances]]:
        """Return for each query its cells, nearest first, and their centroids' distances.

        Args:
            queries: as they are indexed.
            nprobe: how many cells, at least.
            at_least: further cells are added until all hold so many rows, or there are no more cells.
        """
        found = []
        for query, near in zip(queries, self._ranked.nearest(queries, nprobe), strict=True):
            cells, distances = self._in_order(query, near)
            count = nprobe
            if self._sizes[cells[:nprobe]].sum() < at_least:
                cells, distances = self._in_order(query, np.arange(len(self._sizes)))
                enough = int(np.searchsorted(np.cumsum(self._sizes[cells]), at_least)) + 1
                count = max(nprobe, enough)
            found.append((cells[:count], distances[:count]))
        return found

    def _in_order(self, query: npt.NDArray[np.float32], cells: RowNumbers) -> tuple[RowNumbers, Distances]:
        distances = exact_distances(query, self._centroids, cells, self._metric)
        order = nearest_first(cells, distances, self._metric)
        return cells[order], distances[order]
