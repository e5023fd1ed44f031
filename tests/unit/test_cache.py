"""The memory-bounded cache of opened segments."""

import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from nearmq.errors import ResourceExhausted
from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import BlobRef, IndexEntry, KeysEntry, Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import Rows
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.search import search_part
from nearmq_index_store.segment import Segment
from nearmq_worker.cache import SegmentCache, segment_bytes

SCHEMA = Schema(vector_fields=(VectorField(name="v", dim=2, metric="L2", index=IndexSpec(kind="FLAT")),))
VECTORS = np.zeros((10, 2), dtype=np.float32)
ROWS = Rows(pa.array(range(10)), {"v": VECTORS}, {})
#: Of the rows alone.
ROWS_SIZE = 150
BLOB = BlobRef(key="k", bytes=ROWS_SIZE, digest="d")
#: Of one segment of ten rows, with an index.
SIZE = ROWS_SIZE + 40


def entry(name: str, partition: str = "_default") -> SegmentEntry:
    index = IndexEntry(kind="FLAT", params={}, blob=None, memory_bytes=40)
    keys = KeysEntry(blob=BLOB, min=0, max=9)
    return SegmentEntry(id=name, partition=partition, rows=10, rows_blob=BLOB, keys=keys, indexes={"v": index})


def manifest(collection_id: str, *scalars: ScalarField, version: int = 1) -> Manifest:
    schema = Schema(vector_fields=SCHEMA.vector_fields, scalar_fields=scalars)
    return Manifest(
        collection_id=collection_id, version=version, attempt="0" * 26, name=collection_id, schema=schema, partitions=()
    )


C, OTHER = manifest("c"), manifest("other")


class Loads:
    """Stands in for the spool: counts the loads, and blocks or fails them when told to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.before: Callable[[], None] = lambda: None

    def open(self, entry: SegmentEntry, schema: Schema, field: str) -> Segment:
        self.names.append(entry.id)
        self.before()
        return Segment(entry=entry, field=schema.field(field), rows=ROWS, index=FlatIndex(VECTORS, "L2"))

    def open_rows(self, entry: SegmentEntry, _schema: Schema) -> Rows:
        self.names.append(f"rows of {entry.id}")
        self.before()
        return ROWS


def use(cache: SegmentCache, name: str) -> str:
    with cache.use(C, entry(name), "v") as used:
        return used.segment.entry.id


def use_rows(cache: SegmentCache, name: str) -> Rows:
    with cache.use_rows(C, entry(name)) as rows:
        return rows


def test_a_segment_is_loaded_once_and_found_again():
    loads = Loads()
    cache = SegmentCache(loads, 10 * SIZE)
    assert [use(cache, "a"), use(cache, "a")] == ["a", "a"]
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
    assert found == ["a"] * 8
    assert loads.names == ["a"]


def test_the_least_recently_used_segment_makes_room():
    loads = Loads()
    cache = SegmentCache(loads, 2 * SIZE)
    for name in ("a", "b", "a", "c", "a", "b"):
        use(cache, name)
    assert loads.names == ["a", "b", "c", "b"]
    assert cache.stats().bytes == 2 * SIZE
    assert cache.stats().evictions == 2


def search_some(cache: SegmentCache, name: str) -> int:
    """Search a segment of which rows are deleted, and return the bytes that it keeps of them."""
    with cache.use(C, entry(name), "v") as used:
        search_part(used.segment, VECTORS[:1], 3, SearchParams(), deleted=DeletedRows(range(9)))
        return used.segment.kept_bytes


def test_what_a_segment_keeps_of_a_search_counts_and_goes_before_any_segment():
    loads = Loads()
    cache = SegmentCache(loads, 3 * SIZE - 1)
    kept_bytes = search_some(cache, "a")
    assert kept_bytes > 10 + 8
    assert cache.stats().bytes == SIZE + kept_bytes
    assert search_some(cache, "a") == kept_bytes
    assert cache.stats().bytes == SIZE + kept_bytes
    use(cache, "b")
    assert cache.stats().bytes == 2 * SIZE + kept_bytes
    cache = SegmentCache(loads, 2 * SIZE)
    search_some(cache, "a")
    use(cache, "b")
    assert (cache.stats().bytes, cache.stats().evictions) == (2 * SIZE, 0)
    search_some(cache, "b")
    assert cache.stats().bytes == 2 * SIZE
    search_some(cache, "a")
    assert cache.release("c") == 2 * SIZE
    assert cache.stats().bytes == 0


def test_a_segment_in_use_is_not_evicted_and_the_next_waits_for_it():
    loads = Loads()
    cache = SegmentCache(loads, SIZE)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(use(cache, "b")))
    with cache.use(C, entry("a"), "v"):
        thread.start()
        thread.join(0.05)
        assert found == []
        assert cache.stats().bytes == SIZE
    thread.join(10)
    assert found == ["b"]
    assert cache.stats().bytes == SIZE


def test_a_segment_larger_than_the_budget_or_than_pins_leave_is_refused():
    with pytest.raises(ResourceExhausted, match=f"{SIZE} bytes.*{SIZE - 1} bytes"):
        use(SegmentCache(Loads(), SIZE - 1), "a")
    cache = SegmentCache(Loads(), 2 * SIZE - 1)
    cache.pin(C, entry("a"), "v")
    with pytest.raises(ResourceExhausted, match="pinned"):
        use(cache, "b")
    assert use(cache, "a") == "a"


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
    assert use(cache, "a") == "a"


def test_release_frees_by_partition_at_once_or_when_left():
    cache = SegmentCache(Loads(), 10 * SIZE)
    one, two = entry("a", "one"), entry("b", "two")
    assert [cache.pin(C, part, "v") for part in (one, two)] == [SIZE, SIZE]
    cache.pin(OTHER, entry("x", "one"), "v")
    assert cache.release("c", {"one"}) == SIZE
    assert cache.stats().bytes == 2 * SIZE
    with cache.use(C, two, "v"):
        assert cache.release("c") == SIZE
        assert cache.stats().bytes == 2 * SIZE
    assert cache.stats().bytes == SIZE


def test_rows_are_taken_from_a_field_that_is_in_memory_and_loaded_alone_otherwise():
    loads = Loads()
    cache = SegmentCache(loads, 10 * SIZE)
    assert use_rows(cache, "a") is ROWS
    assert cache.stats().bytes == ROWS_SIZE
    use(cache, "b")
    assert use_rows(cache, "b") is ROWS
    assert use_rows(cache, "a") is ROWS
    assert loads.names == ["rows of a", "b"]
    assert cache.stats().bytes == ROWS_SIZE + SIZE
    assert cache.release("c") == ROWS_SIZE + SIZE
    assert cache.stats().bytes == 0


def test_a_segment_in_memory_has_null_in_a_field_that_was_added_since():
    loads = Loads()
    cache = SegmentCache(loads, 10 * SIZE)
    use(cache, "a")
    use_rows(cache, "b")
    added = manifest("c", ScalarField(name="year", type="int64", nullable=True))
    with cache.use(added, entry("a"), "v") as used, cache.use_rows(added, entry("b")) as rows:
        assert used.segment.rows.column("year").to_pylist() == rows.column("year").to_pylist() == [None] * 10
    assert loads.names == ["a", "rows of b"]


def test_what_a_newer_version_replaced_goes_first_although_it_is_pinned_or_was_used_last():
    loads = Loads()
    cache = SegmentCache(loads, 3 * SIZE)
    for name in ("b", "a"):
        cache.pin(C, entry(name), "v")
    with cache.use(OTHER, entry("x"), "v"):
        pass
    replaced = Snapshot(manifest=manifest("c", version=3), segments=(entry("b"), entry("c")))
    cache.notice(replaced)
    cache.notice(Snapshot(manifest=manifest("c", version=2), segments=(entry("a"), entry("b"))))
    use(cache, "a")
    use(cache, "c")
    assert loads.names == ["b", "a", "x", "c"]
    assert (cache.stats().bytes, cache.stats().evictions) == (3 * SIZE, 1)
    with cache.use(OTHER, entry("x"), "v") as used:
        assert used.cached
    use(cache, "a")
    assert loads.names[-1] == "a"


def test_what_old_and_new_versions_take_is_never_above_the_budget():
    cache = SegmentCache(Loads(), 2 * SIZE)
    for version in range(1, 20):
        now = manifest("c", version=version)
        segments = [entry(f"{version}-{number}") for number in range(2)]
        cache.notice(Snapshot(manifest=now, segments=tuple(segments)))
        for one in segments:
            cache.pin(now, one, "v")
            assert cache.stats().bytes <= 2 * SIZE


def test_other_fields_vectors_are_no_part_of_a_segments_size():
    fields = [VectorField(name=name, dim=2, metric="L2", index=IndexSpec(kind="FLAT")) for name in ("v", "w")]
    assert segment_bytes(entry("a"), Schema(vector_fields=tuple(fields)), "v") == SIZE - 10 * 8
    assert segment_bytes(entry("a"), SCHEMA, None) == ROWS_SIZE


def test_a_segment_says_whether_it_was_in_memory():
    cache = SegmentCache(Loads(), 10 * SIZE)
    for expected in (False, True):
        with cache.use(C, entry("a"), "v") as used:
            assert used.cached is expected


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
