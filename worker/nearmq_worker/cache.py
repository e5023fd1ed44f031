"""The segments in memory: admitted by bytes, loaded once for all who wait, kept by least recent use."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import NamedTuple, Protocol

from nearmq.errors import ResourceExhausted
from nearmq_index_store.manifest import Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import Schema
from nearmq_index_store.segment import Segment

_Key = tuple[str, str | None]  # segment id, field; None for its rows alone


class Loader(Protocol):
    """Brings segments into memory, as `spool.py` does. Any thread may call."""

    def open(self, entry: SegmentEntry, schema: Schema, field: str) -> Segment:
        """Open one field of a segment: the rows, and the field's index."""
        ...

    def open_rows(self, entry: SegmentEntry, schema: Schema) -> Rows:
        """Open the rows of a segment without any index."""
        ...


class Used(NamedTuple):
    """A segment in use, and whether it was in memory before."""

    segment: Segment
    cached: bool


@dataclass(slots=True, eq=False)
class _Slot:
    """One opened segment, or one that is being loaded.

    Attributes:
        bytes: without `kept_bytes`.
        loaded: for who waits for it.
        segment: once it is loaded with an index.
        is_replaced: the newest version of its collection does not have it.
    """

    bytes: int
    collection_id: str
    partition: str
    loaded: "Future[Segment | Rows]" = dataclass_field(default_factory=Future)
    segment: Segment | None = None
    users: int = 0
    is_replaced: bool = False
    pinned: bool = False
    released: bool = False
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Bytes admitted and allowed, and what was found, loaded and evicted since the start."""

    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class SegmentCache:
    """Opened segments by (segment, field), and rows by segment, within a budget of bytes. Safe for many threads.

    A segment is immutable, so its id is the whole key. Who uses a segment holds no other one, so waiting for room
    always ends.

    A segment that is replaced, by a newer version of its collection, is the first to make room, and unpinned; it stays
    as long as there is room, for what still reads older versions.

    What a segment keeps of the filters that searched it counts too, from when the search leaves it. It is soonest made
    again, so it goes before any segment does.
    """

    def __init__(self, loader: Loader, limit_bytes: int) -> None:
        self._loader = loader
        self._limit_bytes = limit_bytes
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()  # least recently used first
        self._versions: dict[str, int] = {}  # of each collection the newest that was noticed
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0
        self._freed = threading.Condition()

    @contextmanager
    def use(self, manifest: Manifest, entry: SegmentEntry, field: str) -> Iterator[Used]:
        """Give the opened segment, which stays in memory at least as long as the context.

        Raises:
            ResourceExhausted: it is larger than the budget, or than what pinned segments leave of it.
            IndexCorrupt, StoreUnavailable: as loading it raised, for all who waited for the load.
        """
        with self._using(manifest, entry, [field]) as (slot, cached):
            segment = slot.loaded.result()
            assert isinstance(segment, Segment)
            segment.rows.widen(manifest.schema)
            segment.renew(entry)
            yield Used(segment, cached)

    @contextmanager
    def use_rows(self, manifest: Manifest, entry: SegmentEntry) -> Iterator[Rows]:
        """Give the rows of a segment, of a field that is in memory, else loaded alone. Errors are those of `use`."""
        fields = [field.name for field in manifest.schema.vector_fields]
        with self._using(manifest, entry, [*fields, None]) as (slot, _):
            loaded = slot.loaded.result()
            rows = loaded.rows if isinstance(loaded, Segment) else loaded
            rows.widen(manifest.schema)
            yield rows

    def pin(self, manifest: Manifest, entry: SegmentEntry, field: str) -> int:
        """Load a segment and keep it until `release`; return its bytes. Errors are those of `use`."""
        with self._using(manifest, entry, [field]) as (slot, _):
            slot.loaded.result()
            slot.pinned, slot.released = not slot.is_replaced, False
            return slot.bytes

    def notice(self, snapshot: Snapshot) -> None:
        """Let what a version replaced go before what it has; earlier ones than were noticed before change nothing."""
        manifest = snapshot.manifest
        if manifest.version <= self._versions.get(manifest.collection_id, 0):
            return
        with self._freed:
            self._versions[manifest.collection_id] = manifest.version
            live = {entry.id for entry in snapshot.segments}
            for key, slot in list(self._slots.items()):
                segment_id, _ = key
                if slot.collection_id == manifest.collection_id and segment_id not in live:
                    slot.is_replaced, slot.pinned = True, False
                    self._slots.move_to_end(key, last=False)
            self._freed.notify_all()

    def release(self, collection_id: str, partitions: AbstractSet[str] | None = None) -> int:
        """Unpin and drop a collection's segments, of all or of these partitions; those in use go when they are left.

        Returns:
            The bytes that are or will be free.
        """
        with self._freed:
            freed = 0
            for key, slot in list(self._slots.items()):
                if slot.collection_id == collection_id and (partitions is None or slot.partition in partitions):
                    slot.pinned, slot.released = False, True
                    freed += slot.bytes + slot.kept_bytes
                    if slot.users == 0:
                        self._drop(key)
            self._freed.notify_all()
            return freed

    def stats(self) -> CacheStats:
        """Return the counters as they stand."""
        with self._freed:
            return CacheStats(
                bytes=self._bytes,
                limit_bytes=self._limit_bytes,
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
            )

    @contextmanager
    def _using(
        self, manifest: Manifest, entry: SegmentEntry, fields: Sequence[str | None]
    ) -> Iterator[tuple[_Slot, bool]]:
        """Hold the slot of the first of these fields that is in memory, else of the last, which is loaded.

        Yields:
            The slot, and whether it was there.
        """
        key, slot, was_there = self._acquire(manifest, entry, fields)
        if not was_there:
            self._fill(key, slot, manifest.schema, entry)
        try:
            yield slot, was_there
        finally:
            self._leave(key, slot)

    def _acquire(
        self, manifest: Manifest, entry: SegmentEntry, fields: Sequence[str | None]
    ) -> tuple[_Key, _Slot, bool]:
        with self._freed:
            key = self._held(entry, fields)
            if key is None:
                self._make_room(entry, segment_bytes(entry, manifest.schema, fields[-1]))
                key = self._held(entry, fields)  # someone else may have loaded it while this thread waited
            if key is not None:
                slot = self._slots[key]
                self._hits += 1
                self._slots.move_to_end(key, last=not slot.is_replaced)
                slot.users += 1
                slot.released = False
                return key, slot, True
            key = (entry.id, fields[-1])
            slot = _Slot(
                segment_bytes(entry, manifest.schema, fields[-1]), manifest.collection_id, entry.partition, users=1
            )
            self._misses += 1
            self._slots[key] = slot
            self._bytes += slot.bytes
            return key, slot, False

    def _held(self, entry: SegmentEntry, fields: Sequence[str | None]) -> _Key | None:
        return next((key for field in fields if (key := (entry.id, field)) in self._slots), None)

    def _fill(self, key: _Key, slot: _Slot, schema: Schema, entry: SegmentEntry) -> None:
        _, field = key
        try:
            if field is None:
                slot.loaded.set_result(self._loader.open_rows(entry, schema))
            else:
                slot.segment = self._loader.open(entry, schema, field)
                slot.loaded.set_result(slot.segment)
        except BaseException as error:
            slot.loaded.set_exception(error)
            with self._freed:
                self._drop(key)
                self._freed.notify_all()

    def _make_room(self, entry: SegmentEntry, wanted: int) -> None:
        """Evict idle segments, or wait for others' to fall idle, until `wanted` bytes fit. Holds the lock."""
        for slot in self._slots.values():
            if self._bytes + wanted > self._limit_bytes and slot.kept_bytes:
                self._forget_kept(slot)
        while self._bytes + wanted > self._limit_bytes:
            idle = next((key for key, slot in self._slots.items() if slot.users == 0 and not slot.pinned), None)
            if idle is not None:
                self._drop(idle)
                self._evictions += 1
                continue
            pinned = sum(slot.bytes for slot in self._slots.values() if slot.pinned)
            if pinned + wanted > self._limit_bytes:
                raise ResourceExhausted(
                    f"segment {entry.id} takes {wanted} bytes, the budget is {self._limit_bytes} bytes"
                    f" of which {pinned} are pinned by load"
                )
            self._freed.wait()

    def _leave(self, key: _Key, slot: _Slot) -> None:
        with self._freed:
            slot.users -= 1
            if slot.users == 0 and slot.released and self._slots.get(key) is slot:
                self._drop(key)
            elif self._slots.get(key) is slot:
                self._count_kept(slot)
            self._freed.notify_all()

    def _count_kept(self, slot: _Slot) -> None:
        """Count what a segment keeps of filters now, or have it forgotten where there is no room. Holds the lock."""
        if slot.segment is not None:
            kept_bytes = slot.segment.kept_bytes
            self._bytes += kept_bytes - slot.kept_bytes
            slot.kept_bytes = kept_bytes
            if self._bytes > self._limit_bytes:
                self._forget_kept(slot)

    def _forget_kept(self, slot: _Slot) -> None:
        assert slot.segment is not None
        slot.segment.forget()
        self._bytes -= slot.kept_bytes
        slot.kept_bytes = 0

    def _drop(self, key: _Key) -> None:
        slot = self._slots.pop(key)
        self._bytes -= slot.bytes + slot.kept_bytes


def segment_bytes(entry: SegmentEntry, schema: Schema, field: str | None) -> int:
    """Return what an opened field of a segment takes: its index, and its rows without other fields' vectors.

    None: all rows, and no index.
    """
    if field is None:
        return entry.rows_blob.bytes
    others = sum(4 * other.dim for other in schema.vector_fields if other.name != field)
    return entry.rows_blob.bytes - entry.rows * others + entry.indexes[field].memory_bytes
