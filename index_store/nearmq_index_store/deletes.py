"""The deleted rows of a segment, as a roaring bitmap of their row numbers.

A segment never changes; what is deleted from it at a version stands in the version's manifest. The bitmaps that one
commit made are put together as one blob.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from pyroaring import BitMap

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import VerifiedBlob, put_blob
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import Deletes, SegmentEntry
from nearmq_index_store.recent import Recent

#: Bitmaps that are remembered; of a million rows, a fifth deleted, one takes 125 KB.
BITMAPS_KEPT = 1_024


class DeletedRows:
    """Some rows of a segment; never changes.

    Attributes:
        key: equal for equal rows.
    """

    __slots__ = ("_bitmap", "key")

    def __init__(self, rows: Iterable[int]) -> None:
        self._bitmap = BitMap(rows)
        self._bitmap.run_optimize()
        self.key = blake3(self.serialized()).hexdigest(length=16)

    def __len__(self) -> int:
        return len(self._bitmap)

    def __contains__(self, row: int) -> bool:
        return row in self._bitmap

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeletedRows) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def union(self, rows: Iterable[int]) -> "DeletedRows":
        """Return these rows and more."""
        return DeletedRows(self._bitmap | BitMap(rows))

    def holds(self, rows: RowNumbers) -> npt.NDArray[np.bool_]:
        """Say of each of some rows, few beside the segment's, whether it is deleted; shape as given."""
        return np.fromiter((row in self._bitmap for row in rows.tolist()), np.bool_, len(rows))

    def numbers(self) -> RowNumbers:
        """The row numbers, ascending."""
        return np.frombuffer(self._bitmap.to_array(), dtype=np.uint32).astype(np.int64)

    def mask(self, rows: int) -> npt.NDArray[np.bool_]:
        """Return for each of the segment's rows whether it is deleted; shape (rows,)."""
        mask = np.zeros(rows, dtype=np.bool_)
        mask[self.numbers()] = True
        return mask

    def serialized(self) -> bytes:
        """The bitmap in the portable format of the roaring libraries."""
        return bytes(self._bitmap.serialize())


#: No row at all.
NONE_DELETED = DeletedRows(())


def put_deletes(
    store: BlobStore, collection_id: str, deleted: Mapping[str, DeletedRows], *, not_before: str
) -> dict[str, Deletes]:
    """Put the bitmaps of several segments as one blob, and return what their entries shall say.

    Args:
        deleted: by segment id; none is empty.
        not_before: a ULID that the blob's key must not sort before.
    """
    if not deleted:
        return {}
    bitmaps = [rows.serialized() for rows in deleted.values()]
    starts = np.cumsum([0, *map(len, bitmaps)]).tolist()
    blob = put_blob(store, collection_id, *bitmaps, not_before=not_before)
    return {
        segment: Deletes(rows=len(rows), blob=blob, start=start, bytes=len(bitmap))
        for (segment, rows), bitmap, start in zip(deleted.items(), bitmaps, starts[:-1], strict=True)
    }


class DeletesReader:
    """Reads the deleted rows of segments, and remembers the last; may be used by any number of threads."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self._recent: Recent[tuple[str, int], DeletedRows] = Recent(BITMAPS_KEPT)

    def deleted(self, entry: SegmentEntry) -> DeletedRows:
        """Return the rows of a segment that are deleted at the version that the entry is of.

        Raises:
            IndexCorrupt: the bitmap is missing, fails its digest, or is not what the entry says.
        """
        deletes = entry.deletes
        if deletes is None:
            return NONE_DELETED
        key = deletes.blob.key, deletes.start
        found = self._recent.get(key)
        if found is None:
            found = _decoded(self._read(deletes), entry, deletes)
            self._recent.put(key, found)
        return found

    def remember(self, entries: Iterable[SegmentEntry], deleted: Mapping[str, DeletedRows]) -> None:
        """Take over bitmaps that were just put, by segment id."""
        for entry in entries:
            if entry.deletes is not None and entry.id in deleted:
                self._recent.put((entry.deletes.blob.key, entry.deletes.start), deleted[entry.id])

    def _read(self, deletes: Deletes) -> bytes:
        return bytes(VerifiedBlob(self.store, deletes.blob).read(deletes.start, deletes.start + deletes.bytes))


def _decoded(data: bytes, entry: SegmentEntry, deletes: Deletes) -> DeletedRows:
    try:
        found = DeletedRows(BitMap.deserialize(data))
    except ValueError as error:
        raise IndexCorrupt(f"the deletes of segment {entry.id} cannot be read: {error}") from error
    if len(found) != deletes.rows or (len(found) and int(found.numbers()[-1]) >= entry.rows):
        raise IndexCorrupt(
            f"segment {entry.id} has {len(found)} deleted rows, {deletes.rows} of {entry.rows} in the manifest"
        )
    return found
