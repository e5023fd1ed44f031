"""Primary keys in little memory: looked up in segments by 8 bytes a key, whatever its type."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.deletes import DeletesReader
from nearmq_index_store.digest import read_blob
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.errors import AlreadyExists, IndexCorrupt, InvalidArgument
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.pages import Segments
from nearmq_index_store.recent import Recent
from nearmq_index_store.schema import ID_COLUMN, PrimaryKey
from nearmq_index_store.sources.protocol import Source

Fingerprints = npt.NDArray[np.int64]

#: Keys of segments that are remembered: of some 20 million rows with integer keys.
KEYS_KEPT_BYTES = 256 << 20

#: Suspects that one more pass over a file looks at: a bound on memory where most keys are there twice.
_SUSPECTS_A_PASS = 1_024


def fingerprints(keys: pa.Array) -> Fingerprints:
    """Return 8 bytes for each key: an int64 itself, the first bytes of a string's BLAKE3.

    Equal keys have equal fingerprints. Of strings, two different ones of a billion share one with a chance of 3 %, so
    equal fingerprints only make suspects.
    """
    if pa.types.is_int64(keys.type):
        numbers: Fingerprints = keys.to_numpy()
        return numbers
    digests = b"".join(blake3(key.encode()).digest(length=8) for key in keys.to_pylist())
    return np.frombuffer(digests, dtype=np.int64)


def read_keys(store: BlobStore, entry: SegmentEntry, primary_key: PrimaryKey) -> tuple[pa.Array, RowNumbers]:
    """Read a segment's sorted primary keys and their row numbers.

    Raises:
        IndexCorrupt: the blob is missing, fails its digest, or is not what the manifest says.
    """
    data = read_blob(store, entry.keys.blob)
    try:
        reader = pa.ipc.open_file(pa.py_buffer(data))
        batch = reader.get_batch(0)
        batch.validate()
    except pa.ArrowException as error:
        raise IndexCorrupt(f"keys of segment {entry.id} cannot be read: {error}") from error
    expected = pa.schema([(ID_COLUMN, pa.int64() if primary_key == "int64" else pa.string()), ("row", pa.uint32())])
    if [(column.name, column.type) for column in batch.schema] != [(column.name, column.type) for column in expected]:
        raise IndexCorrupt(
            f"keys of segment {entry.id} have the columns {batch.schema.names}, types {batch.schema.types}"
        )
    if batch.num_rows != entry.rows or reader.num_record_batches != 1:
        raise IndexCorrupt(f"segment {entry.id} has {batch.num_rows} keys, {entry.rows} rows in the manifest")
    return batch.column(0), batch.column(1).to_numpy().astype(np.int64)


class SegmentKeys:
    """The primary keys of one segment, ready to be looked up."""

    def __init__(self, keys: pa.Array, rows: RowNumbers) -> None:
        """Take keys, each there once, and the number of the row that each is of."""
        found = fingerprints(keys)
        order = np.argsort(found, kind="stable")
        self._fingerprints = found[order]
        self._rows = rows[order].astype(np.uint32)
        self._texts = None if pa.types.is_int64(keys.type) else keys.take(pa.array(order))

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self._fingerprints.nbytes + self._rows.nbytes + (0 if self._texts is None else self._texts.nbytes)

    def find(self, keys: pa.Array) -> tuple[RowNumbers, RowNumbers]:
        """Look keys up, of the segment's type, without nulls.

        Returns:
            The positions of those that are there, in no promised order, and beside each the number of its row.
        """
        wanted = fingerprints(keys)
        order = np.argsort(wanted)  # in their order the lookups stay in the processor's cache
        low = np.searchsorted(self._fingerprints, wanted[order])
        places = np.minimum(low, len(self._fingerprints) - 1)
        is_found = self._fingerprints[places] == wanted[order]
        positions, places = order[is_found], places[is_found]
        if self._texts is not None:
            positions, places = self._same_texts(keys, positions, places)
        return positions, self._rows[places].astype(np.int64)

    def _same_texts(self, keys: pa.Array, positions: RowNumbers, places: RowNumbers) -> tuple[RowNumbers, RowNumbers]:
        """Of equal fingerprints, keep those of equal texts; those that share one stand side by side."""
        assert self._texts is not None
        kept: list[tuple[RowNumbers, RowNumbers]] = []
        while len(positions):
            is_same = pc.equal(self._texts.take(pa.array(places)), keys.take(pa.array(positions)))
            same = is_same.to_numpy(zero_copy_only=False)
            kept.append((positions[same], places[same]))
            positions, following = positions[~same], places[~same] + 1
            is_next = (following < len(self._fingerprints)) & (
                self._fingerprints[np.minimum(following, len(self._fingerprints) - 1)]
                == self._fingerprints[following - 1]
            )
            positions, places = positions[is_next], following[is_next]
        none = np.empty(0, dtype=np.int64)
        return (
            np.concatenate([none, *(found for found, _ in kept)]),
            np.concatenate([none, *(found for _, found in kept)]),
        )


class KeysReader:
    """Reads the keys of segments, and remembers the last; may be used by any number of threads."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._recent: Recent[str, SegmentKeys] = Recent(KEYS_KEPT_BYTES, lambda keys: keys.bytes)

    def keys(self, entry: SegmentEntry, primary_key: PrimaryKey) -> SegmentKeys:
        """Return a segment's keys.

        Raises:
            IndexCorrupt: as `read_keys`.
        """
        found = self._recent.get(entry.id)
        if found is None:
            found = SegmentKeys(*read_keys(self._store, entry, primary_key))
            self._recent.put(entry.id, found)
        return found

    def remember(self, entry: SegmentEntry, keys: SegmentKeys) -> None:
        """Take over the keys of a segment that was just made."""
        self._recent.put(entry.id, keys)


def may_hold(entry: SegmentEntry, keys: pa.Array) -> bool:
    """Say whether a segment's bounds leave room for any of some keys, which are not none."""
    bounds = pc.min_max(keys)
    return bool(bounds["min"].as_py() <= entry.keys.max and entry.keys.min <= bounds["max"].as_py())


class NewKeys:
    """The primary keys of a source that is to be imported; 8 bytes a row in memory."""

    def __init__(self, source: Source) -> None:
        """Read all keys.

        Raises:
            InvalidArgument: a key is missing or no key, or there are no rows.
        """
        self._source = source
        parts = [fingerprints(ids) for ids in source.ids()]
        if not parts:
            raise InvalidArgument(f"{source.path}: expected rows, got none", field="file")
        self._sorted = np.concatenate(parts)
        self._sorted.sort()
        self._free_of: set[str] = set()

    def __len__(self) -> int:
        return len(self._sorted)

    def check_unique(self) -> None:
        """Raise InvalidArgument, naming the key and both rows, when a key is in the source twice."""
        repeated = np.unique(self._sorted[1:][self._sorted[1:] == self._sorted[:-1]])
        for start in range(0, len(repeated), _SUSPECTS_A_PASS):
            first_rows: dict[int | str, int] = {}
            for row, key in self._rows_of(repeated[start : start + _SUSPECTS_A_PASS]):
                if key in first_rows:
                    raise InvalidArgument(
                        f"{self._source.path}: row {row}: field {ID_COLUMN!r}: expected each id once, got {key!r}, "
                        f"which row {first_rows[key]} has",
                        field=ID_COLUMN,
                    )
                first_rows[key] = row

    def check_absent(self, deletes: DeletesReader, segments: Segments, primary_key: PrimaryKey) -> None:
        """Raise AlreadyExists, naming the key and its row, when a live row of a segment has a key of the source.

        A segment that was looked at before is not read again: no row of it comes back to life.
        """
        for entry in segments:
            if entry.id not in self._free_of and self._may_share(entry):
                keys, rows = read_keys(deletes.store, entry, primary_key)
                deleted = deletes.deleted(entry)
                if len(deleted):
                    keys = keys.filter(pa.array(~np.isin(rows, deleted.numbers())))
                self._check_absent(keys)
            self._free_of.add(entry.id)

    def _may_share(self, entry: SegmentEntry) -> bool:
        low, high = entry.keys.min, entry.keys.max
        if not isinstance(low, int) or not isinstance(high, int):
            return True  # fingerprints of strings are not in the order of the strings
        first = int(np.searchsorted(self._sorted, low))
        return first < len(self._sorted) and int(self._sorted[first]) <= high

    def _check_absent(self, keys: pa.Array) -> None:
        theirs = fingerprints(keys)
        places = np.minimum(np.searchsorted(self._sorted, theirs), len(self._sorted) - 1)
        is_shared = self._sorted[places] == theirs
        shared = np.flatnonzero(is_shared)
        for start in range(0, len(shared), _SUSPECTS_A_PASS):
            suspects = shared[start : start + _SUSPECTS_A_PASS]
            present = set(keys.take(pa.array(suspects)).to_pylist())
            for row, key in self._rows_of(theirs[suspects]):
                if key in present:
                    raise AlreadyExists(
                        f"{self._source.path}: row {row}: field {ID_COLUMN!r}: expected an id that the collection does "
                        f"not have, got {key!r}",
                        field=ID_COLUMN,
                    )

    def _rows_of(self, wanted: Fingerprints) -> Iterator[tuple[int, int | str]]:
        """Read the source again for the rows whose keys have these fingerprints, with the keys."""
        first_row = 0
        for ids in self._source.ids():
            for place in np.flatnonzero(np.isin(fingerprints(ids), wanted)):
                yield first_row + int(place), ids[int(place)].as_py()
            first_row += len(ids)
