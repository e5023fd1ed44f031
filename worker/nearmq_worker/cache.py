"""The segments in memory: admitted by bytes, loaded once for all who wait, kept by least recent use."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from nearmq.errors import ResourceExhausted
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.segment import Segment

#: Opens one field of a segment.
Load = Callable[[SegmentEntry, Schema, str], Segment]

_Key = tuple[str, str]  # segment id, field


@dataclass(slots=True, eq=False)
class _Slot:
    bytes: int
    collection_id: str
    partition: str
    loaded: "Future[Segment]" = dataclass_field(default_factory=Future)
    users: int = 0
    pinned: bool = False
    released: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """Bytes admitted and allowed, and what was found, loaded and evicted since the start."""

    bytes: int
    limit_bytes: int
    hits: int
    misses: int
    evictions: int


class SegmentCache:
    """Opened segments by (segment, field), within a budget of bytes. Safe for many threads.

    A segment is immutable, so its id is the whole key. Who uses a segment holds no other one, so waiting for room
    always ends.
    """

    def __init__(self, load: Load, limit_bytes: int) -> None:
        self._load = load
        self._limit_bytes = limit_bytes
        self._slots: OrderedDict[_Key, _Slot] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._hits = self._misses = self._evictions = 0
        self._freed = threading.Condition()

    @contextmanager
    def use(self, collection_id: str, entry: SegmentEntry, schema: Schema, field: str) -> Iterator[Segment]:
        """Give the opened segment, which stays in memory at least as long as the context.

        Raises:
            ResourceExhausted: it is larger than the budget, or than what pinned segments leave of it.
            IndexCorrupt, StoreUnavailable: as loading it raised, for all who waited for the load.
        """
        slot = self._acquire(collection_id, entry, schema, field)
        try:
            yield slot.loaded.result()
        finally:
            self._leave((entry.id, field), slot)

    def pin(self, collection_id: str, entry: SegmentEntry, schema: Schema, field: str) -> int:
        """Load a segment and keep it until `release`; return its bytes. Errors are those of `use`."""
        with self.use(collection_id, entry, schema, field):
            slot = self._slots[entry.id, field]
            slot.pinned, slot.released = True, False
            return slot.bytes

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
                    freed += slot.bytes
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

    def _acquire(self, collection_id: str, entry: SegmentEntry, schema: Schema, field: str) -> _Slot:
        key = (entry.id, field)
        with self._freed:
            slot = self._slots.get(key)
            if slot is None:
                self._make_room(entry, segment_bytes(entry, schema, field))
                slot = self._slots.get(key)  # someone else may have loaded it while this thread waited
            if slot is not None:
                self._hits += 1
                self._slots.move_to_end(key)
                slot.users += 1
                slot.released = False
                return slot
            slot = _Slot(segment_bytes(entry, schema, field), collection_id, entry.partition, users=1)
            self._misses += 1
            self._slots[key] = slot
            self._bytes += slot.bytes
        try:
            slot.loaded.set_result(self._load(entry, schema, field))
        except BaseException as error:
            slot.loaded.set_exception(error)
            with self._freed:
                self._drop(key)
                self._freed.notify_all()
        return slot

    def _make_room(self, entry: SegmentEntry, wanted: int) -> None:
        """Evict idle segments, or wait for others' to fall idle, until `wanted` bytes fit. Holds the lock."""
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
            self._freed.notify_all()

    def _drop(self, key: _Key) -> None:
        self._bytes -= self._slots.pop(key).bytes


def segment_bytes(entry: SegmentEntry, schema: Schema, field: str) -> int:
    """Return what an opened field of a segment takes: its vectors, its ids (8 bytes each) and its index."""
    return entry.rows * (4 * schema.field(field).dim + 8) + entry.indexes[field].memory_bytes
