"""The memory-bounded cache of opened segments."""

import threading
from collections.abc import Callable

import pytest

from nearmq.errors import ResourceExhausted
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import BlobRef, IndexEntry, KeysEntry, SegmentEntry
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_worker.cache import SegmentCache

SCHEMA = Schema(vector_fields=(VectorField(name="v", dim=2, metric="L2", index=IndexSpec(kind="FLAT")),))
BLOB = BlobRef(key="k", bytes=1, digest="d")
#: Of one segment of ten rows: vectors, ids, index.
SIZE = 10 * (2 * 4 + 8) + 40


def entry(name: str, partition: str = "_default") -> SegmentEntry:
    index = IndexEntry(kind="FLAT", params={}, blob=None, memory_bytes=40)
    keys = KeysEntry(blob=BLOB, min=0, max=9)
    return SegmentEntry(id=name, partition=partition, rows=10, rows_blob=BLOB, keys=keys, indexes={"v": index})


class Loads:
    """Stands in for the spool: counts the loads, and blocks or fails them when told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self, entry: SegmentEntry, _schema: Schema, _field: str) -> object:
        self.names.append(entry.id)
        self.before()
        return f"segment {entry.id}"


def use(cache: SegmentCache, name: str) -> object:
    with cache.use("c", entry(name), SCHEMA, "v") as segment:
        return segment


def test_a_segment_is_loaded_once_and_found_again():
    loads = Loads()
    cache = SegmentCache(loads, 10 * SIZE)
    assert [use(cache, "a"), use(cache, "a")] == ["segment a"] * 2
    assert loads.names == ["a"]
    stats = cache.stats()
    assert (stats.bytes, stats.hits, stats.misses, stats.evictions) == (SIZE, 1, 1, 0)


def test_one_load_serves_all_who_wait():
    loads, started, go = Loads(), threading.Event(), threading.Event()
    loads.before = lambda: (started.set(), go.wait(10))
    cache = SegmentCache(loads, 10 * SIZE)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(use(cache, "a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert found == ["segment a"] * 8
    assert loads.names == ["a"]


def test_the_least_recently_used_segment_makes_room():
    loads = Loads()
    cache = SegmentCache(loads, 2 * SIZE)
    for name in ("a", "b", "a", "c", "a", "b"):
        use(cache, name)
    assert loads.names == ["a", "b", "c", "b"]
    assert cache.stats().bytes == 2 * SIZE
    assert cache.stats().evictions == 2


def test_a_segment_in_use_is_not_evicted_and_the_next_waits_for_it():
    loads = Loads()
    cache = SegmentCache(loads, SIZE)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(use(cache, "b")))
    with cache.use("c", entry("a"), SCHEMA, "v"):
        thread.start()
        thread.join(0.05)
        assert found == []
        assert cache.stats().bytes == SIZE
    thread.join(10)
    assert found == ["segment b"]
    assert cache.stats().bytes == SIZE


def test_a_segment_larger_than_the_budget_or_than_pins_leave_is_refused():
    with pytest.raises(ResourceExhausted, match=f"{SIZE} bytes.*{SIZE - 1} bytes"):
        use(SegmentCache(Loads(), SIZE - 1), "a")
    cache = SegmentCache(Loads(), 2 * SIZE - 1)
    cache.pin("c", entry("a"), SCHEMA, "v")
    with pytest.raises(ResourceExhausted, match="pinned"):
        use(cache, "b")
    assert use(cache, "a") == "segment a"


def test_a_failed_load_fails_all_who_wait_and_the_next_try_loads_again():
    loads = Loads()

    def fail() -> None:
        raise IndexCorrupt("bad digest")

    loads.before = fail
    cache = SegmentCache(loads, SIZE)
    with pytest.raises(IndexCorrupt):
        use(cache, "a")
    assert cache.stats().bytes == 0
    loads.before = lambda: None
    assert use(cache, "a") == "segment a"


def test_release_frees_by_partition_at_once_or_when_left():
    cache = SegmentCache(Loads(), 10 * SIZE)
    one, two = entry("a", "one"), entry("b", "two")
    assert [cache.pin("c", part, SCHEMA, "v") for part in (one, two)] == [SIZE, SIZE]
    cache.pin("other", entry("x", "one"), SCHEMA, "v")
    assert cache.release("c", {"one"}) == SIZE
    assert cache.stats().bytes == 2 * SIZE
    with cache.use("c", two, SCHEMA, "v"):
        assert cache.release("c") == SIZE
        assert cache.stats().bytes == 2 * SIZE
    assert cache.stats().bytes == SIZE


def test_many_threads_stay_within_the_budget_and_finish():
    cache = SegmentCache(Loads(), 3 * SIZE)
    over: list[int] = []

    def work(seed: int) -> None:
        for step in range(200):
            use(cache, str((seed * 7 + step * 3) % 9))
            over.append(cache.stats().bytes)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert max(over) <= 3 * SIZE
