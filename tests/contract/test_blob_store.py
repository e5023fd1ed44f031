"""What every blob store does, whatever keeps the blobs."""

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from nearmq_index_store.blobs import BlobStore, SignedStore
from nearmq_index_store.blobs.protocol import MAX_CONDITIONAL_BYTES
from nearmq_index_store.blobs.signed import SIGNATURE_BYTES
from nearmq_index_store.digest import put_blob
from nearmq_index_store.errors import BlobNotFound, InvalidArgument
from tests.contract.conftest import Place

#: Put once under a name that ends in a digest, as blobs are; so a cached store does cache it.
BLOB = "0c9b2f/01HZY3K6Q8W4V5T7R9P2M1N0XA-" + "ab" * 32
#: Any other key, as a manifest's.
MANIFEST = "0c9b2f/m/00000000000000000007"

KEYS = pytest.mark.parametrize("key", [BLOB, MANIFEST], ids=["blob", "manifest"])

PROCESSES = 3
RACES = 40


@KEYS
def test_a_missing_key_raises_blob_not_found(store: BlobStore, key: str):
    with pytest.raises(BlobNotFound, match=key):
        store.get(key)
    with pytest.raises(BlobNotFound, match=key):
        store.get(key, 3, 7)
    with pytest.raises(BlobNotFound, match=key):
        store.get(key, 3, 3)
    assert not store.exists(key)


@KEYS
def test_what_was_put_is_read_back(store: BlobStore, key: str):
    store.put(key, b"nearest ", bytearray(b"neighbour"), memoryview(b" search"))
    assert bytes(store.get(key)) == b"nearest neighbour search"
    assert bytes(store.get(key)) == b"nearest neighbour search"
    assert store.exists(key)


@KEYS
@pytest.mark.parametrize(
    ("start", "end"), [(0, 4), (3, 7), (0, 10), (7, None), (3, 99), (10, None), (10, 12), (99, 100), (4, 4), (7, 3)]
)
def test_a_range_is_cut_like_a_slice(store: BlobStore, key: str, start: int, end: int | None):
    store.put(key, b"0123456789")
    for _ in range(2):  # the second time from the cache, where there is one
        assert bytes(store.get(key, start, end)) == b"0123456789"[start:end]


@KEYS
def test_an_empty_blob_is_there(store: BlobStore, key: str):
    store.put(key)
    assert store.exists(key)
    for _ in range(2):
        assert bytes(store.get(key)) == bytes(store.get(key, 0, 5)) == bytes(store.get(key, 5)) == b""


@KEYS
def test_a_large_blob_in_parts_is_joined(store: BlobStore, key: str):
    data = random.Random(1).randbytes(20_000_000)
    if key == MANIFEST and isinstance(store, SignedStore):
        with pytest.raises(InvalidArgument, match=f"at most {MAX_CONDITIONAL_BYTES}"):
            store.put(key, data)
        return
    store.put(key, data[:1], memoryview(data)[1:9_000_000], b"", data[9_000_000:])
    for _ in range(2):
        assert bytes(store.get(key)) == data
    for start, end in [(0, 1), (4_194_303, 4_194_305), (3_000_000, 17_000_000), (19_999_990, 30_000_000)]:
        assert bytes(store.get(key, start, end)) == data[start:end]


@pytest.mark.parametrize("size", [8 << 20, (8 << 20) + 1])
def test_a_blob_of_whole_chunks_has_an_end(store: BlobStore, size: int):
    store.put(BLOB, b"x" * size)
    for _ in range(2):
        assert len(store.get(BLOB)) == size
        assert bytes(store.get(BLOB, size - 1)) == b"x"
        assert bytes(store.get(BLOB, size)) == b""


def test_parts_of_other_items_than_bytes_count_in_bytes(store: BlobStore):
    numbers = memoryview(bytes(range(24))).cast("I", [3, 2])
    store.put(MANIFEST, numbers, memoryview(b"")[:0])
    assert bytes(store.get(MANIFEST)) == bytes(range(24))


@pytest.mark.parametrize(
    ("key", "before", "after"), [(MANIFEST, b"old", b"newer"), (BLOB, b"o" * 9_000_000, b"n" * 5_000_000)]
)
def test_a_put_replaces(store: BlobStore, key: str, before: bytes, after: bytes):
    store.put(key, before)
    store.put(key, after)
    assert bytes(store.get(key)) == after


def test_put_if_absent_writes_once(store: BlobStore):
    assert store.put_if_absent(MANIFEST, b"first")
    assert not store.put_if_absent(MANIFEST, b"second")
    assert bytes(store.get(MANIFEST)) == b"first"
    store.delete(MANIFEST)
    assert store.put_if_absent(MANIFEST, b"third")


def test_put_if_absent_takes_up_to_its_bound(store: BlobStore):
    bound = MAX_CONDITIONAL_BYTES - (SIGNATURE_BYTES if isinstance(store, SignedStore) else 0)
    assert store.put_if_absent(MANIFEST, b"x" * bound)
    assert len(store.get(MANIFEST)) == bound
    with pytest.raises(InvalidArgument, match=f"{MAX_CONDITIONAL_BYTES + 1} bytes, at most {MAX_CONDITIONAL_BYTES}"):
        store.put_if_absent("0c9b2f/m/8", b"x" * (bound + 1))


def test_of_many_racing_threads_one_wins_put_if_absent(store: BlobStore):
    racers = 8
    start = threading.Barrier(racers)

    def race(racer: int) -> list[bool]:
        wins = []
        for turn in range(RACES):
            start.wait()
            wins.append(store.put_if_absent(f"race/{turn}", b"%d" % racer))
        return wins

    with ThreadPoolExecutor(racers) as executor:
        outcomes = list(executor.map(race, range(racers)))
    for turn, wins in enumerate(zip(*outcomes, strict=True)):
        assert sum(wins) == 1
        assert bytes(store.get(f"race/{turn}")) == b"%d" % wins.index(True)


_RACER = f"""
import sys
from nearmq_index_store.blobs import open_store

store = open_store(sys.argv[1], sys.argv[2] or None)
print("ready", flush=True)
sys.stdin.readline()
print(*(turn for turn in range({RACES}) if store.put_if_absent("race/%d" % turn, sys.argv[3].encode())))
"""


def test_of_several_racing_processes_one_wins_put_if_absent(shared_place: Place):
    command = [sys.executable, "-c", _RACER, shared_place.url, shared_place.cache_url or ""]
    racers = [
        subprocess.Popen([*command, str(racer)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for racer in range(PROCESSES)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {racer: racers[racer].communicate(timeout=60)[0].split() for racer in range(PROCESSES)}
    store = shared_place.open()
    assert sorted(int(turn) for turns in won.values() for turn in turns) == list(range(RACES))
    for racer, turns in won.items():
        for turn in turns:
            assert bytes(store.get(f"race/{turn}")) == b"%d" % racer


@KEYS
def test_a_deleted_key_is_gone_and_may_be_deleted_again(store: BlobStore, key: str):
    store.put(key, b"x" * (9_000_000 if key == BLOB else 9))
    store.delete(key)
    store.delete(key)
    assert not store.exists(key)
    assert list(store.list("0c9b2f/")) == []
    with pytest.raises(BlobNotFound):
        store.get(key)


def test_list_gives_the_keys_below_a_folder(store: BlobStore):
    keys = {"a/1", "a/2", "a/b/3", "a/b/c/4"}
    for key in keys | {"ab/1", "b/1", "a.b/1", "a-b/1"}:
        store.put(key, b"x")
    assert sorted(store.list("a/")) == sorted(keys)
    assert sorted(store.list("a/b/")) == ["a/b/3", "a/b/c/4"]
    assert list(store.list("a/1/")) == []
    assert list(store.list("nothing/")) == []


def test_list_gives_more_keys_than_fit_a_page(store: BlobStore, monkeypatch: pytest.MonkeyPatch):
    for adapter in ("object_store", "redis"):
        monkeypatch.setattr(f"nearmq_index_store.blobs.{adapter}.LIST_PAGE", 50)
    keys = [f"many/{number:03d}" for number in range(130)]
    for key in keys:
        store.put(key)
    assert sorted(store.list("many/")) == keys


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "a#1", "ä", "a\n"])
def test_no_other_keys_are_written(store: BlobStore, key: str):
    with pytest.raises(InvalidArgument, match="blob key"):
        store.put(key, b"x")
    with pytest.raises(InvalidArgument, match="blob key"):
        store.put_if_absent(key, b"x")


@pytest.mark.parametrize("prefix", ["", "a", "/a/", "../"])
def test_no_other_prefixes_are_listed(store: BlobStore, prefix: str):
    with pytest.raises(InvalidArgument, match="list prefix"):
        list(store.list(prefix))


def test_many_threads_share_a_store(store: BlobStore):
    def work(number: int) -> bool:
        data = random.Random(number).randbytes(100_000 * number)
        ref = put_blob(store, f"c{number}", data)
        return bytes(store.get(ref.key, 0, ref.bytes)) == data and list(store.list(f"c{number}/")) == [ref.key]

    with ThreadPoolExecutor(8) as executor:
        assert all(executor.map(work, range(24)))


def test_a_store_names_itself_the_same_each_time(shared_place: Place):
    assert shared_place.open().id == shared_place.open().id
    assert shared_place.open().id in repr(shared_place.open())
