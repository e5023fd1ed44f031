"""The cells of the IVF indexes: k-means over the rows, and which cells a query visits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import Distances, FloatMatrix, exact_distances, row_blocks, unit_vectors
from nearmq_index_store.indexes._faiss import assign_to_nearest, kmeans
from nearmq_index_store.indexes.allowed import Mask
from nearmq_index_store.indexes.scan import Prepared, Scan, in_range, may_overflow
from nearmq_index_store.schema import Metric

#: How many cells there may be, and are by default.
NLIST = (1, 65_536)
DEFAULT_NLIST = 128

#: Rows to train on, and at least so many a cell (as far as there are as many). With fewer, cells are less even and
#: visits cost more: of 200,000 x 128 synthetic rows in 1,024 cells, a query's nearest 32 cells hold 22,500 trained on
#: 32 rows a cell, 21,100 on 64, 20,200 on 256 (means of five seeds), for 0.7, 1.5 and 5.5 s.
SAMPLE_ROWS, _SAMPLE_ROWS_PER_CELL = 16_384, 64

#: Distances between queries and centroids held at a time: 32 MiB.
_DISTANCES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Cells:
    """Rows grouped by their nearest centroid.

    Attributes:
        centroids: float32, shape (nlist, dim), of unit length where the metric is COSINE.
        offsets: int64, shape (nlist + 1,): cell c holds the positions offsets[c] to offsets[c + 1].
        order: int64, or uint32 as stored, shape (rows,): the row number at each position.
    """

    centroids: FloatMatrix
    offsets: npt.NDArray[np.int64]
    order: npt.NDArray[np.integer]

    @cached_property
    def are_slices(self) -> bool:
        """Whether the rows are in the order of the cells already: each number, from 0, is above the one before."""
        order = self.order
        return bool(order[0] == 0 and order[-1] == len(order) - 1 and (order[1:] > order[:-1]).all())

    def of_sorted_rows(self) -> "Cells":
        """Return the same cells over rows that were brought into `order`."""
        return Cells(self.centroids, self.offsets, np.arange(len(self.order)))


def default_nprobe(nlist: int) -> int:
    """Return the cells to visit without a given nprobe: three eighths of them, rounded up."""
    return -(-3 * nlist // 8)


def rising_nprobes(nlist: int) -> list[int]:
    """Return the numbers of cells at which recall is measured, doubling from a hundredth of them up to all."""
    fewest = max(1, nlist // 128)
    return [min(nlist, fewest << step) for step in range(math.ceil(math.log2(nlist / fewest)) + 1)]


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


@dataclass(frozen=True, slots=True)
class CellCounts:
    """How the allowed rows are spread over the cells.

    Attributes:
        counts: int64, shape (nlist,): the allowed rows of each cell.
        share: the allowed share of all rows, above 0.
    """

    counts: npt.NDArray[np.int64]
    share: float

    @classmethod
    def of(cls, allowed: Mask, offsets: npt.NDArray[np.int64]) -> "CellCounts":
        """Count the allowed rows by cell.

        Args:
            allowed: by position.
            offsets: as Cells has them.
        """
        before = np.zeros(len(allowed) + 1, dtype=np.int64)
        np.cumsum(allowed, out=before[1:])
        return cls(np.diff(before[offsets]), float(before[-1]) / len(allowed))

    def widened(self, nprobe: int) -> int:
        """Return how many cells to visit where allowed rows lie at random.

        The nearest allowed rows lie farther out than the nearest of all, but not by as much as they are fewer.
        """
        return min(len(self.counts), math.ceil(nprobe / math.sqrt(self.share)))


#: int64, shape (n, width): the cells that each of n queries visits, nearest first, -1 where there is none.
VisitedCells = npt.NDArray[np.int64]


class Visits:
    """Chooses the cells that a query visits: the nearest ones.

    For COSINE the centroids have unit length: on the real data, ranking by the similarity to the direction of a cell
    gave recall 0.980 at nprobe 48 of 128, by the inner product with its mean 0.975, by L2 0.968.
    """

    def __init__(self, cells: Cells, metric: Metric) -> None:
        """Take the metric of the field; cells are ranked by L2 for L2, by inner product for IP and COSINE."""
        self._by: Metric = "L2" if metric == "L2" else "IP"
        self._centroids = cells.centroids
        self._scan = Scan(cells.centroids, self._by)
        # In float64, in which the squared lengths of centroids and query may stand for the differences of the two.
        self._wide = cells.centroids.astype(np.float64)
        self._squares = np.vecdot(self._wide, self._wide) if metric == "L2" else None
        self._sizes = np.diff(cells.offsets)
        # How many rows the so many smallest cells hold, and none of them where some hold none.
        self._least_held = np.sort(self._sizes).cumsum() * bool(self._sizes.all())

    @property
    def longest(self) -> float:
        """At least the length of the longest centroid."""
        return self._scan.longest

    def prepare(self, queries: FloatMatrix) -> Prepared:
        """Prepare queries, as they are indexed, for `choose`."""
        return self._scan.prepare(queries)

    def choose(
        self, prepared: Prepared, nprobe: int, at_least: int, allowed: "CellCounts | None" = None
    ) -> Iterator[tuple[slice, VisitedCells]]:
        """Yield the cells of the queries, so many queries at a time that the choice takes bounded memory.

        Args:
            prepared: by this, or by a scan of rows by the same metric, none of which is longer than `longest`.
            nprobe: how many cells, at least.
            at_least: further cells are added until all hold so many rows, or there are no more cells.
            allowed: the allowed rows of each cell. Then cells are visited until they hold as many allowed rows as
                `widened` ones would hold at random (so where allowed rows are few or far, all), and those without any
                are left out.
        """
        step = max(1, _DISTANCES_AT_ONCE // len(self._sizes))
        for start in range(0, len(prepared.queries), step):
            chunk = slice(start, start + step)
            yield chunk, self._choose(prepared.some(chunk), nprobe, at_least, allowed)

    @may_overflow
    def _choose(self, prepared: Prepared, nprobe: int, at_least: int, allowed: "CellCounts | None") -> VisitedCells:
        if allowed is not None:
            return self._choose_enough(prepared, nprobe, at_least, allowed)
        cells, is_certain = self._nearest(prepared, min(nprobe, len(self._sizes)))
        if self._least_held[cells.shape[1] - 1] < at_least:
            sizes = self._sizes[cells]
            is_certain &= sizes.all(axis=1) & (sizes.sum(axis=1) >= at_least)
        if is_certain.all():
            return cells
        others = self._choose_enough(prepared.some(~is_certain), nprobe, at_least, None)
        both = np.full((len(cells), max(cells.shape[1], others.shape[1])), -1)
        both[is_certain, : cells.shape[1]] = cells[is_certain]
        both[~is_certain, : others.shape[1]] = others
        return both

    def _nearest(self, prepared: Prepared, nprobe: int) -> tuple[VisitedCells, Mask]:
        """Return cells of each query by their keys, and whether they certainly are the nearest ones."""
        keys = self._scan.keys(prepared.queries, 0, len(self._sizes))
        if nprobe == len(self._sizes):
            return keys.argsort(axis=1), np.isfinite(prepared.slack)
        lines = np.arange(len(keys))[:, np.newaxis]
        nearest = keys.argpartition((nprobe - 1, nprobe), axis=1)[:, : nprobe + 1]
        keys = keys[lines, nearest]
        is_certain = keys[:, nprobe] - keys[:, nprobe - 1] > prepared.slack
        return nearest[lines, keys[:, :nprobe].argsort(axis=1)], is_certain

    def _choose_enough(
        self, prepared: Prepared, nprobe: int, at_least: int, allowed: "CellCounts | None"
    ) -> VisitedCells:
        """Choose among all cells in their order."""
        nearest = np.argsort(self._keys(prepared.queries))
        sizes = self._sizes[nearest[:, :nprobe]]
        rows = sizes.sum(axis=1)
        if allowed is None and rows.min() >= at_least and sizes.all():
            return nearest[:, :nprobe]
        counts, kept = (self._sizes, 1.0) if allowed is None else (allowed.counts, math.sqrt(allowed.share))
        wanted = np.maximum(at_least, np.ceil(kept * rows))
        width, nlist = nprobe, len(self._sizes)
        while width < nlist and (counts[nearest[:, :width]].sum(axis=1) < wanted).any():
            width = min(2 * width, nlist)
        cells = nearest[:, :width]
        held = counts[cells]
        is_visited = np.cumsum(held, axis=1) - held < wanted[:, np.newaxis]
        visited = np.where(is_visited & (held > 0), cells, -1)
        return visited[:, : int(is_visited.sum(axis=1).max())]

    def _keys(self, prepared: FloatMatrix) -> npt.NDArray[np.float64]:
        """Return the keys that a scan gives all cells, but in float64, one dot product a pair, whatever the batch."""
        keys: npt.NDArray[np.float64] = np.vecdot(self._wide, prepared.astype(np.float64)[:, np.newaxis])
        if self._squares is not None:
            keys += self._squares
        return keys

    def nearest_first(self, queries: FloatMatrix, visited: VisitedCells) -> tuple[VisitedCells, Distances]:
        """Return the cells that queries, as they are indexed, visit in their order, and the distances of the centroids.

        The same whatever the batch, unlike the order in which `choose` leaves cells that are nearly as near.

        Returns:
            Of the shape of `visited`; distances are float32.
        """
        owners = np.arange(len(visited)).repeat(visited.shape[1])
        distances = exact_distances(queries, owners, self._centroids, visited.reshape(-1), self._by)
        distances = distances.reshape(visited.shape)
        order = np.lexsort((visited, distances if self._by == "L2" else -distances))
        return np.take_along_axis(visited, order, axis=1), np.take_along_axis(distances, order, axis=1)
