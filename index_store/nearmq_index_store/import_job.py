"""An import that a kill does not undo: what it has stored so far, kept in the store until its commit.

Under `<collection>/imports/<BLAKE3-128 of the job id>/` lie `job`, when and with what the import began, and `<number>`
for each segment that is stored; all are put if absent. The same job id again takes over the segments whose blobs are
still there, and commits under one id whose outcome the ledger remembers: nothing is built twice, and no row is there
twice. Garbage collection leaves the blobs alone as long as the job's hold lasts, and the state goes with them.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from blake3 import blake3
from ulid import ULID

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt, InvalidArgument
from nearmq_index_store.holds import release
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.sealed import FORMAT, Reader, seal

_STATES = "imports/"
_JOB = "job"


class _Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """When an import began, as a ULID, and what decides its segments, as texts."""

    format: int = FORMAT
    began: str
    facts: dict[str, str]


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A stored segment of the rows from `first_row` of the source on."""

    format: int = FORMAT
    first_row: int
    entry: SegmentEntry


_BEGINNINGS = Reader(_Beginning)
_SEGMENTS = Reader(_Stored)


class ImportJob:
    """The state of one import of a collection; another process with the same id shares it."""

    def __init__(self, catalog: Catalog, collection_id: str, job_id: str, source: str) -> None:
        """Nothing is read or written yet.

        Args:
            source: the identity of what is imported.
        """
        self._catalog = catalog
        self._store = catalog.store
        self._collection_id = collection_id
        self._job_id = job_id
        self._folder = f"{collection_id}/{_STATES}{blake3(job_id.encode()).hexdigest(length=16)}/"
        #: The id of the commit: of this very source, so that another one is not taken for done.
        self.commit_id = f"import {job_id} of {source}"

    def taken(self) -> Outcome | None:
        """Return the outcome of the commit if there was one."""
        return self._catalog.taken(self._collection_id, self.commit_id)

    def begin(self, facts: Mapping[str, str]) -> str:
        """Begin, or go on with what began with the same facts; return the ULID before which nothing was staged.

        Raises:
            InvalidArgument: it began with others; names the first that differs.
        """
        self._store.put_if_absent(self._folder + _JOB, seal(_Beginning(began=str(ULID()), facts=dict(facts))))
        beginning = _BEGINNINGS.read(self._store, self._folder + _JOB, f"import {self._job_id!r}")
        for name, now in facts.items():
            before = beginning.facts.get(name)
            if before != now:
                raise InvalidArgument(
                    f"import {self._job_id!r} began with {name} {before}, got {now}: expected the same again, or "
                    "another job id",
                    field="job_id",
                )
        return beginning.began

    def stored(self, number: int, first_row: int, rows: int) -> SegmentEntry | None:
        """Return the segment of this number if it was stored and its blobs are still there."""
        key = f"{self._folder}{number}"
        try:
            found = _SEGMENTS.read(self._store, key, f"segment {number} of import {self._job_id!r}")
        except BlobNotFound:
            return None
        if (found.first_row, found.entry.rows) == (first_row, rows) and all(
            self._store.exists(blob.key) for blob in found.entry.blobs()
        ):
            return found.entry
        self._store.delete(key)
        return None

    def keep(self, number: int, first_row: int, entry: SegmentEntry) -> SegmentEntry:
        """Note a stored segment, and return it, or the one that another process was faster to store."""
        key = f"{self._folder}{number}"
        if self._store.put_if_absent(key, seal(_Stored(first_row=first_row, entry=entry))):
            return entry
        return _SEGMENTS.read(self._store, key, f"segment {number} of import {self._job_id!r}").entry

    def end(self) -> None:
        """Forget the state, and end the hold: the commit was made, or never will be."""
        began = _began(self._store, self._folder + _JOB)
        if began:
            release(self._store, self._collection_id, began)
        for key in list(self._store.list(self._folder)):
            self._store.delete(key)


def abandoned_imports(store: BlobStore, keys: Iterable[str], horizon: str) -> Iterator[str]:
    """Of a collection's keys, yield those of the states of imports that nobody holds any more.

    Args:
        horizon: the ULID before which blobs that no version names are removed; a hold keeps it below what it holds.
    """
    by_folder: dict[str, list[str]] = {}
    for key in keys:
        folder, _, name = key.rpartition("/")
        if folder.partition("/")[2].startswith(_STATES):
            by_folder.setdefault(folder, []).append(name)
    for folder, names in by_folder.items():
        if _began(store, f"{folder}/{_JOB}") < horizon:
            yield from (f"{folder}/{name}" for name in names)


def _began(store: BlobStore, key: str) -> str:
    """When an import began; before all time where its state is half removed or damaged."""
    try:
        return _BEGINNINGS.read(store, key, f"import state {key}").began
    except (BlobNotFound, IndexCorrupt):
        return ""
