"""Reads of stored rows, as pure functions over opened segments: by their ids, in the order of their ids, and how many.

The worker calls `find_rows` with the keys of the segments, and `FirstRows.and_of` for one segment after the other with
what is true of its rows (`RowMasks`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.deletes import DeletedRows, DeletesReader
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.filters import Filter
from nearmq_index_store.given_rows import key_array
from nearmq_index_store.keys import SegmentKeys, may_hold
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.places import Places, to_places
from nearmq_index_store.recent import Recent
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import PrimaryKey

#: Whether each row of a segment takes part; bool, shape (rows,).
RowMask = npt.NDArray[np.bool_]

#: Masks that are remembered: of some 64 million rows.
MASKS_KEPT_BYTES = 64 << 20

_INT64 = range(-(2**63), 2**63)


def to_keys(ids: Sequence[int | str], primary_key: PrimaryKey, *, as_text: bool = False) -> pa.Array:
    """Return ids as a column of a collection's primary key.

    Args:
        as_text: also take integers that are written as strings.

    Raises:
        InvalidArgument: an id is of the other type; names its position.
    """
    return key_array([_from_text(id_) for id_ in ids] if as_text and primary_key == "int64" else ids, primary_key)


def to_key(id_: int | str, primary_key: PrimaryKey, *, field: str, as_text: bool = False) -> pa.Scalar:
    """Return one id, given as the argument `field`, as `to_keys` does."""
    try:
        return to_keys([id_], primary_key, as_text=as_text)[0]
    except InvalidArgument:
        raise InvalidArgument(f"{field} is {id_!r:.80}, the primary keys are {primary_key}", field=field) from None


def find_rows(
    segments: Sequence[SegmentEntry],
    keys: pa.Array,
    keys_of: Callable[[SegmentEntry], SegmentKeys],
    deleted_of: Callable[[SegmentEntry], DeletedRows],
) -> Places:
    """Find the live row of each key; only segments whose bounds leave room for a key are looked at.

    Args:
        segments: each is the part of its number here.
        keys: of the collection's primary key, no nulls; one may be there several times.

    Returns:
        The place of each key's row, shape (keys,); -1 where there is none.
    """
    places = np.full(len(keys), -1, dtype=np.int64)
    for part, entry in enumerate(segments):
        missing = np.flatnonzero(places < 0)
        if len(missing) == 0:
            break
        wanted = keys.take(pa.array(missing))
        if may_hold(entry, wanted):
            positions, rows = keys_of(entry).find(wanted)
            is_live = ~deleted_of(entry).holds(rows)
            places[missing[positions[is_live]]] = to_places(part, rows[is_live])
    return places


class RowMasks:
    """Which rows of segments are there and allowed; remembers the last answers. Safe for many threads."""

    def __init__(self, deletes: DeletesReader) -> None:
        self._deletes = deletes
        self._recent: Recent[tuple[str, str, str | None], RowMask] = Recent(MASKS_KEPT_BYTES, lambda mask: mask.nbytes)

    def mask(self, entry: SegmentEntry, rows: Rows, condition: Filter | None) -> RowMask:
        """Return for each row of a segment whether it is not deleted and a filter allows it; read-only.

        Raises:
            IndexCorrupt: the deletes cannot be read.
        """
        deleted = self._deletes.deleted(entry)
        key = entry.id, deleted.key, None if condition is None else condition.key
        mask = self._recent.get(key)
        if mask is None:
            mask = ~deleted.mask(len(rows))
            if condition is not None:
                mask &= condition.mask(rows.filtered_column, len(rows))
            mask.setflags(write=False)
            self._recent.put(key, mask)
        return mask


@dataclass(frozen=True, slots=True)
class FirstRows:
    """The rows with the smallest ids of those looked at so far, ascending by id, at most so many.

    Attributes:
        keys: Arrow, int64 or string; strings are in the order of their UTF-8 bytes.
        places: of the rows, shape (keys,).
    """

    keys: pa.Array
    places: Places
    most: int

    def has_room_for(self, entry: SegmentEntry) -> bool:
        """Say whether a segment may hold one of the first rows."""
        return len(self.keys) < self.most or bool(entry.keys.min < self.keys[-1].as_py())

    def and_of(self, part: int, rows: Rows, mask: RowMask, after: pa.Scalar | None) -> "FirstRows":
        """Return the first rows of these and of one more segment's.

        Args:
            part: the segment's number.
            mask: which of its rows take part.
            after: only rows with a larger id; None for all.
        """
        found = _first_rows(rows.keys, mask, after, self.most)
        keys = pa.concat_arrays([self.keys, rows.keys.take(pa.array(found))])
        places = np.concatenate([self.places, to_places(part, found)])
        order = pc.sort_indices(keys)[: self.most]
        return FirstRows(keys.take(order), places[order.to_numpy()], self.most)


def no_rows(primary_key: PrimaryKey, most: int) -> FirstRows:
    """Return the first rows of no segment."""
    return FirstRows(to_keys([], primary_key), np.empty(0, dtype=np.int64), most)


def _first_rows(keys: pa.Array, mask: RowMask, after: pa.Scalar | None, most: int) -> RowNumbers:
    """Return the numbers of the rows with the smallest keys, in no promised order."""
    if after is not None:
        mask = mask & pc.greater(keys, after).to_numpy(zero_copy_only=False)
    numbers = np.flatnonzero(mask)
    if len(numbers) <= most:
        return numbers
    among = keys if len(numbers) == len(keys) else keys.take(pa.array(numbers))
    smallest = pc.select_k_unstable(among, most, sort_keys=[("", "ascending")])
    first: RowNumbers = numbers[smallest.to_numpy()]
    return first


def _from_text(id_: int | str) -> int | str:
    """Return the integer that a string writes, or what was given."""
    if isinstance(id_, str) and id_.removeprefix("-").isdecimal() and id_.isascii() and int(id_) in _INT64:
        return int(id_)
    return id_
