"""The exact scan of the cells that queries visit: it misses none of the nearest rows in them (`scan.py`).

Where several queries visit a cell, one matrix product ranks its rows for all of them; so that most of these keys are
looked at while they are in the processor's cache, and never again, each query's nearest cells come first and tell how
near a row must be. Where hardly any two queries visit the same cell, each is ranked by itself, in one pass over all of
its rows.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import FloatMatrix, FloatVector, RowNumbers
from nearmq_index_store.indexes.allowed import Mask
from nearmq_index_store.indexes.cells import VisitedCells
from nearmq_index_store.indexes.scan import (
    KEYS_AT_ONCE,
    Measured,
    Prepared,
    Scan,
    above,
    cut,
    may_overflow,
)
from nearmq_index_store.schema import Metric

#: Where a row is ranked for more queries than this, on average, products for all of them are faster than each alone:
#: measured 7 to 12 on 29,000 x 384 real vectors and on 200,000 x 128 synthetic ones, visiting 1 to 100 % of the cells.
_SHARED = 8


class Among(NamedTuple):
    """Some rows of the cells.

    Attributes:
        refused: the others, by position.
        counts: int64, shape (nlist,): how many there are in each cell.
    """

    refused: Mask
    counts: npt.NDArray[np.int64]


class _Ranked(NamedTuple):
    """Positions of rows and their keys, each for a query of a batch; in no order."""

    queries: npt.NDArray[np.int64]
    positions: RowNumbers
    keys: FloatVector

    def cuts(self, limit: int, slack: npt.NDArray[np.float64]) -> FloatVector:
        """Return of each query a key above which none can be among its `limit` smallest (`scan.cut`)."""
        counts = np.bincount(self.queries, minlength=len(slack))
        ordered = self.keys[np.lexsort((self.keys, self.queries))]
        nth = np.minimum(np.cumsum(counts) - counts + limit, len(ordered)) - 1
        return above(np.where(counts < limit, np.inf, ordered[nth]) + slack)


class CellScan:
    """Rows in the order of their cells, each cell a slice of positions."""

    def __init__(
        self, offsets: npt.NDArray[np.int64], vectors: FloatMatrix, metric: Metric, measured: Measured
    ) -> None:
        """Take offsets as Cells has them, and the rows by position, with what was measured of them."""
        self._offsets = offsets
        self._sizes = np.diff(offsets)
        self._scan = Scan(vectors, metric, measured)

    @may_overflow
    def prepare(self, queries: FloatMatrix) -> Prepared:
        """Prepare queries for `nearest`."""
        return self._scan.prepare(queries)

    @may_overflow
    def nearest(
        self, prepared: Prepared, cells: VisitedCells, limit: int, among: Among | None = None
    ) -> list[RowNumbers]:
        """Return for each query the positions that certainly hold the nearest `limit` rows of its cells, ties included.

        Args:
            among: the only rows to return; None is all.
        """
        counts = self._sizes if among is None else among.counts
        if not self._are_shared(cells, counts):
            return self._alone(prepared, cells, limit, among)
        found = []
        most = np.where(cells < 0, 0, self._sizes[cells]).sum(axis=1).max()
        step = max(1, KEYS_AT_ONCE // int(most))
        for start in range(0, len(cells), step):
            chunk = slice(start, start + step)
            found += self._together(prepared.some(chunk), cells[chunk], limit, among)
        # Refused rows are left where there are few others, or nothing is known of the keys.
        return found if among is None else [positions[~among.refused[positions]] for positions in found]

    def _are_shared(self, cells: VisitedCells, counts: npt.NDArray[np.int64]) -> bool:
        """Say whether so many queries visit the same cells that a product for all of them takes less time.

        Args:
            counts: the rows of each cell that are ranked for a query alone.
        """
        if len(cells) <= _SHARED:
            return False
        visitors = np.bincount(cells.reshape(-1) + 1, minlength=len(counts) + 1)[1:]
        return bool(visitors @ counts > _SHARED * (self._sizes @ (visitors > 0)))

    def _alone(self, prepared: Prepared, cells: VisitedCells, limit: int, among: Among | None) -> list[RowNumbers]:
        """Rank the rows of its cells for one query after the other."""
        found = []
        for query, slack, visited in zip(prepared.queries, prepared.slack.tolist(), cells, strict=True):
            positions = self._positions(visited[visited >= 0])
            if among is not None:
                positions = positions[~among.refused[positions]]
            found.append(self._scan.nearest_at(query, slack, positions, limit))
        return found

    def _positions(self, cells: npt.NDArray[np.int64]) -> RowNumbers:
        """Return the positions that some cells hold, one cell after the other."""
        sizes = self._sizes[cells]
        positions: RowNumbers = (self._offsets[cells] - (sizes.cumsum() - sizes)).repeat(sizes)
        positions += np.arange(len(positions))
        return positions

    def _together(self, prepared: Prepared, cells: VisitedCells, limit: int, among: Among | None) -> list[RowNumbers]:
        """Rank the rows of each cell for all queries that visit it."""
        counts = np.where(cells < 0, 0, (self._sizes if among is None else among.counts)[cells])
        is_near = np.cumsum(counts, axis=1) - counts < limit
        near = self._ranked(prepared, np.where(is_near, cells, -1), limit, among)
        cuts = near.cuts(limit, prepared.slack)
        far = self._ranked(prepared, np.where(is_near, -1, cells), limit, among, cuts)
        both = _joined([near, far])
        kept = ~(both.keys > both.cuts(limit, prepared.slack)[both.queries])
        return _by_query(both.queries[kept], both.positions[kept], len(cells))

    def _ranked(
        self,
        prepared: Prepared,
        cells: VisitedCells,
        limit: int,
        among: Among | None,
        cuts: FloatVector | None = None,
    ) -> _Ranked:
        """Return the rows of the cells that each query visits, without those whose keys are above its cut.

        Args:
            cuts: of each query; None takes from each cell alone the rows that may be the nearest `limit` ones.
        """
        visitors, places = np.nonzero(cells >= 0)
        visited = cells[visitors, places]
        by_cell = np.argsort(visited, kind="stable")
        visitors, visited = visitors[by_cell], visited[by_cell]
        found = [_Ranked(visitors[:0], visitors[:0], np.empty(0, dtype=np.float32))]
        for first, end in pairwise([0, *(np.flatnonzero(np.diff(visited)) + 1).tolist(), len(visited)]):
            if first == end:
                break
            cell, members = visited[first], visitors[first:end]
            start, stop = int(self._offsets[cell]), int(self._offsets[cell + 1])
            keys = self._scan.keys(prepared.queries[members], start, stop)
            if among is not None:
                np.copyto(keys, np.inf, where=among.refused[start:stop])
            bounds = cut(keys, limit, prepared.slack[members]) if cuts is None else cuts[members]
            # Written so that NaN keys, of which nothing is known, stay in.
            kept = (~(keys > bounds[:, np.newaxis])).reshape(-1).nonzero()[0]
            if len(kept):  # of most cells none
                line, row = np.divmod(kept, stop - start)
                found.append(_Ranked(members[line], row + start, keys.reshape(-1)[kept]))
        return _joined(found)


def _joined(parts: Sequence[_Ranked]) -> _Ranked:
    queries, positions, keys = (np.concatenate(values) for values in zip(*parts, strict=True))
    return _Ranked(queries, positions, keys)


def _by_query(owners: npt.NDArray[np.int64], positions: RowNumbers, queries: int) -> list[RowNumbers]:
    """Return the positions of each of so many queries."""
    positions = positions[np.argsort(owners, kind="stable")]
    bounds = np.cumsum(np.bincount(owners, minlength=queries)).tolist()
    return [positions[start:stop] for start, stop in pairwise([0, *bounds])]
