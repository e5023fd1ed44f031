"""Array columns: one element, and which values a row's array holds.

Both kinds of Arrow list are read through their offsets, so that slices and nulls with leftover elements are right.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.filters.numbers import as_type, one_zero

RowNumbers = npt.NDArray[np.int64]


def element(array: pa.Array, index: int) -> pa.Array:
    """Return one element of each row's array; null where the array is null or shorter."""
    values, starts, ends = _parts(array)
    at = starts + min(index, len(values))
    return pc.take(values, pa.array(at, mask=at >= ends))


def contains(array: pa.Array, wanted: tuple[Any, ...], *, need_all: bool) -> pa.Array:
    """Say of each row whether its array holds all of the wanted values, or one at least; null where it is null.

    No wanted value at all is held by every array under `need_all`, and by none otherwise. Null elements equal nothing.
    """
    possible = as_type(wanted, array.type.value_type)
    values, starts, _ = _parts(array)
    if need_all and len(possible) < len(set(wanted)):
        found = np.zeros(len(array), dtype=bool)  # 2.5 is in no array of integers
    else:
        codes = pc.index_in(one_zero(values), pa.array(possible, values.type), skip_nulls=True)
        row, code = _held(codes, starts)
        if need_all:
            found = _distinct(row, code, len(array), len(possible)) == len(possible)
        else:
            found = np.bincount(row, minlength=len(array)) > 0
    return pa.array(found, mask=array.is_null().to_numpy(zero_copy_only=False))


def _parts(array: pa.Array) -> tuple[pa.Array, RowNumbers, RowNumbers]:
    """Return the elements of all rows, and where each row's start and end among them; a null row is empty."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    values = array.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets -= offsets[0]
    nulls = array.is_null().to_numpy(zero_copy_only=False)
    return values, offsets[:-1], np.where(nulls, offsets[:-1], offsets[1:])


def _held(codes: pa.Array, starts: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
    """Return the codes that are not null, in order, each with its row; null rows may hold some too."""
    at = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    row = np.searchsorted(starts, at, side="right") - 1  # of rows that start together all but the last are empty
    return row, codes.take(pa.array(at)).to_numpy().astype(np.int64)


def _distinct(row: RowNumbers, code: RowNumbers, rows: int, kinds: int) -> RowNumbers:
    """Count each row's different codes, which are 0 to kinds - 1."""
    pairs = np.sort(row * kinds + code, kind="stable")  # almost sorted already, which the stable sort is fast on
    first = np.diff(pairs, prepend=-1) > 0
    return np.bincount(pairs[first] // max(1, kinds), minlength=rows)
