"""The exact scan of a segment's allowed rows: over a copy of them, or over all rows with a mask; both find the same."""

from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.indexes.allowed import AllowedRows
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.schema import Metric

#: Above this share of allowed rows they are never copied: a scan of all rows takes at most 1.6 times as long.
_MOST_COPIED = 5 / 8

#: Up to this share a copy costs no more than one query's scan of all rows (measured on 29,000 x 384), so it is made at
#: once; above it a filter that is used only once would pay for it in vain.
_COPIED_AT_ONCE = 1 / 8


def is_copied(allowed: AllowedRows, *, at_once: bool = False) -> bool:
    """Say whether an exact scan copies the allowed rows: when it is repeated, or already the first time."""
    return allowed.share <= (_COPIED_AT_ONCE if at_once else _MOST_COPIED)


def scanned_rows(allowed: AllowedRows) -> int:
    """Return how many rows a repeated exact scan of the allowed ones ranks: those that were copied, or all."""
    return allowed.count if is_copied(allowed) else allowed.rows


class ExactScan:
    """Ranks allowed rows by approximate keys, and misses none of the nearest."""

    def __init__(self, scan: FlatIndex, *, mask: AllowedRows | None = None, numbers: RowNumbers | None = None) -> None:
        """Take a scan of all rows and a mask, or one of copied rows and their numbers."""
        self._scan = scan
        self._mask = mask
        self._numbers = numbers
        self.nbytes = 0 if numbers is None else scan.rows_nbytes + scan.nbytes + numbers.nbytes

    @classmethod
    def of_copy(cls, vectors: FloatMatrix, metric: Metric, allowed: AllowedRows) -> "ExactScan":
        """Copy the allowed rows, at least one."""
        numbers = allowed.numbers()
        return cls(FlatIndex(vectors[numbers], metric), numbers=numbers)

    def nearest(self, queries: FloatMatrix, limit: int, near_end: float | None = None) -> Candidates:
        """Return what FlatIndex.nearest does, of the allowed rows."""
        found = self._scan.nearest(queries, limit, allowed=self._mask, near_end=near_end)
        return found if self._numbers is None else found.taken(self._numbers)
