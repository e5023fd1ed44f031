"""The version of a collection that a job reads, and its segments, opened one at a time while the job is awaited."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from nearmq.errors import VersionTimeout
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import Schema
from nearmq_worker.awaited import Awaited
from nearmq_worker.cache import SegmentCache


def check_reached(manifest: Manifest, min_version: int | None) -> None:
    """Raise VersionTimeout where a collection has not reached the version that a job waits for."""
    if min_version is not None and min_version > manifest.version:
        message = f"collection {manifest.name!r} is at version {manifest.version}, min_version is {min_version}"
        raise VersionTimeout(message, field="min_version")


def read_version(catalog: Catalog, collection: str, *, min_version: int | None, version: int | None = None) -> Snapshot:
    """Read a version of a collection whole: the newest, or the one that a job is pinned to.

    Raises:
        CollectionNotFound: no collection has this name.
        VersionTimeout: the newest version is below `min_version`.
        VersionExpired: the version that is asked for has been removed.
    """
    newest = catalog.snapshot(collection)
    check_reached(newest.manifest, min_version)
    if version is None or version == newest.manifest.version:
        return newest
    return catalog.version(newest.manifest, version)


class ReadVersion:
    """The segments of one version that a job reads; opens their rows, one at a time.

    Attributes:
        segments: each is the part of its number here.
        load_s: seconds that went into loading so far.
    """

    def __init__(
        self,
        cache: SegmentCache,
        snapshot: Snapshot,
        segments: Sequence[SegmentEntry],
        awaited: Awaited,
        *,
        field: str | None = None,
    ) -> None:
        """Take what is read, and for which job.

        Args:
            awaited: the job; nothing more is opened when nobody waits for it.
            field: the vector field that will be searched next, so that its index is loaded with the rows.
        """
        self._cache = cache
        self._field = field
        self._manifest = snapshot.manifest
        self._awaited = awaited
        self.segments = segments
        self.load_s = 0.0

    @property
    def schema(self) -> Schema:
        """The collection's schema at this version."""
        return self._manifest.schema

    @contextmanager
    def open(self, part: int) -> Iterator[Rows]:
        """Give the rows of the segment of this number.

        Raises:
            DeadlineExceeded, Cancelled: nobody waits for the job any more.
            ResourceExhausted, IndexCorrupt, StoreUnavailable: as `SegmentCache.use_rows`.
        """
        self._awaited.check()
        asked = time.monotonic()
        entry = self.segments[part]
        with ExitStack() as stack:
            if self._field is None:
                rows = stack.enter_context(self._cache.use_rows(self._manifest, entry))
            else:
                rows = stack.enter_context(self._cache.use(self._manifest, entry, self._field)).segment.rows
            self.load_s += time.monotonic() - asked
            yield rows
