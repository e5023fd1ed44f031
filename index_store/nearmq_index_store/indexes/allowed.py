"""The rows of a segment that a search may return: those neither deleted nor refused by its filter."""

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import RowNumbers

#: bool, shape (rows,).
Mask = npt.NDArray[np.bool_]


class AllowedRows:
    """Some rows of a segment; never changes.

    Attributes:
        mask: True where a row is allowed.
        rows: how many rows the segment has.
        count: how many of them are allowed.
        share: the allowed share of all rows, 0..1.
    """

    __slots__ = ("count", "mask", "rows", "share")

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self.rows = len(mask)
        self.count = int(np.count_nonzero(mask))
        self.share = self.count / self.rows

    def __len__(self) -> int:
        return self.count

    def numbers(self) -> RowNumbers:
        """The row numbers, ascending."""
        return np.flatnonzero(self.mask)
