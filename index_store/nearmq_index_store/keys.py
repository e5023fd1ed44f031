"""Primary keys of whole collections in little memory: 8 bytes a key, whatever its type."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import read_blob
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.errors import AlreadyExists, IndexCorrupt, InvalidArgument
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.pages import Segments
from nearmq_index_store.schema import ID_COLUMN, PrimaryKey
from nearmq_index_store.sources.protocol import Source

Fingerprints = npt.NDArray[np.int64]

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

    def check_absent(self, store: BlobStore, segments: Segments, primary_key: PrimaryKey) -> None:
        """Raise AlreadyExists, naming the key and its row, when one of the segments has a key of the source.

        A segment that was looked at before is not read again.
        """
        for entry in segments:
            if entry.id not in self._free_of and self._may_share(entry):
                keys, _ = read_keys(store, entry, primary_key)
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
