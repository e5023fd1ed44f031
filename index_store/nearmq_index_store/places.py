"""Where a row is among several segments, as one number."""

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import RowNumbers

#: int64: the number of a part, times 2^32, plus the number of a row in it.
Places = npt.NDArray[np.int64]

_ROW_BITS = 32


def to_places(part: int, rows: RowNumbers) -> Places:
    """Return the places of some rows of one part."""
    return (part << _ROW_BITS) + rows


def split_places(places: Places) -> tuple[npt.NDArray[np.int64], RowNumbers]:
    """Return the numbers of the parts and of the rows that places are made of."""
    return places >> _ROW_BITS, places & ((1 << _ROW_BITS) - 1)
