"""The next version of a collection in the making, as the jobs of one commit change it one after the other.

A draft reads what it needs of its base, the version that it follows: pages, keys, deletes and, for an expression, rows.
Nothing is written here; `commit.py` does that when all jobs have had their turn.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from nearmq_index_store.deletes import DeletedRows, DeletesReader
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.head import Heads
from nearmq_index_store.keys import KeysReader, may_hold
from nearmq_index_store.manifest import Manifest, SegmentEntry
from nearmq_index_store.new_rows import NewRows
from nearmq_index_store.rows import Rows

#: Gives the rows of a segment, of a collection at a version.
UseRows = Callable[[Manifest, SegmentEntry], AbstractContextManager[Rows]]


class Place(NamedTuple):
    """Where a live row of the base is."""

    segment: str
    row: int


@dataclass(frozen=True, slots=True)
class Readers:
    """What a draft reads its base with."""

    heads: Heads
    keys: KeysReader
    deletes: DeletesReader
    use_rows: UseRows


class Draft:
    """A version to be; an intent that raises has to leave it as it was.

    Attributes:
        base: the version that it follows.
        manifest: the base's; an intent may replace it by one with another name, state, schema or partitions. The commit
            sets version, attempt, pages, ledger.
        rows: the rows that the jobs have added, by key.
    """

    def __init__(self, readers: Readers, base: Manifest) -> None:
        self.base = base
        self.manifest = base
        self.rows = NewRows()
        self._readers = readers
        self._segments: dict[str, SegmentEntry] | None = None
        self._is_repaged = False
        self._deleted: dict[str, set[int]] = {}
        self._located: dict[int | str, Place | None] = {}

    def segments(self) -> Mapping[str, SegmentEntry]:
        """The segments by id, as the base has them but for those added and removed."""
        if self._segments is None:
            self._segments = {entry.id: entry for entry in self._readers.heads.open(self.base).segments}
        return self._segments

    @property
    def changes_segments(self) -> bool:
        """Whether the pages will differ from the base's."""
        return self._is_repaged or len(self.rows) > 0 or any(self._deleted.values())

    def add(self, entries: Iterable[SegmentEntry]) -> None:
        """Add stored segments, whose keys no live row has."""
        self._repaged().update({entry.id: entry for entry in entries})
        self._located.clear()

    def remove(self, segment_ids: Iterable[str]) -> None:
        """Remove segments with their rows."""
        for segment_id in segment_ids:
            del self._repaged()[segment_id]
            self._deleted.pop(segment_id, None)
        self._located.clear()

    def delete(self, segment_id: str, rows: Iterable[int]) -> None:
        """Delete rows of a segment, given by their numbers."""
        self._deleted.setdefault(segment_id, set()).update(rows)

    def deleted(self, entry: SegmentEntry) -> DeletedRows:
        """The rows of a segment that are deleted, by the base or by the draft."""
        before = self._readers.deletes.deleted(entry)
        more = self._deleted.get(entry.id)
        return before.union(more) if more else before

    def newly_deleted(self) -> dict[str, DeletedRows]:
        """By segment id, all deleted rows of the segments in which the draft has deleted some."""
        return {
            segment_id: self.deleted(self.segments()[segment_id]) for segment_id, rows in self._deleted.items() if rows
        }

    def use_rows(self, entry: SegmentEntry) -> AbstractContextManager[Rows]:
        """Give the rows of a segment, deleted ones too."""
        return self._readers.use_rows(self.manifest, entry)

    def locate(self, keys: pa.Array) -> dict[int | str, Place]:
        """Return where those of some keys are that live rows of segments have; rows that jobs added are not in it.

        Looking up the keys of all jobs at once is what makes a commit of many jobs cheap.
        """
        texts = keys.to_pylist()
        if any(key not in self._located for key in texts):
            self._look_up(keys, texts)
        found = ((key, self._located[key]) for key in texts)
        return {key: place for key, place in found if place is not None and not self._is_deleted(place)}

    def _look_up(self, keys: pa.Array, texts: list[int | str]) -> None:
        self._located.update(dict.fromkeys(texts))
        for entry in self.segments().values():
            if not may_hold(entry, keys):
                continue
            found = self._readers.keys.keys(entry, self.base.schema.primary_key).find(keys)
            for position, row in zip(*live(found, self._readers.deletes.deleted(entry)), strict=True):
                self._located[texts[position]] = Place(entry.id, row)

    def _is_deleted(self, place: Place) -> bool:
        return place.row in self._deleted.get(place.segment, ())

    def _repaged(self) -> dict[str, SegmentEntry]:
        self.segments()
        assert self._segments is not None
        self._is_repaged = True
        return self._segments


def live(found: tuple[RowNumbers, RowNumbers], deleted: DeletedRows) -> tuple[list[int], list[int]]:
    """Of the positions and row numbers that a lookup found, return those whose rows are not deleted."""
    positions, rows = found
    if len(deleted) and len(rows):
        is_live = ~deleted.holds(rows)
        positions, rows = positions[is_live], rows[is_live]
    return positions.tolist(), rows.tolist()
