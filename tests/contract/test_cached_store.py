"""A cache may fail, forget or lie at any time: reads go on, and what it got wrong does not stay."""

import io
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from nearmq_index_store.blobs import CachedStore, ObjectStore, memory_store
from nearmq_index_store.blobs.cached import PAUSE_S
from nearmq_index_store.blobs.redis import RedisCache, RedisStore
from nearmq_index_store.digest import copy_blob, put_blob, read_blob
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt, InvalidArgument
from nearmq_index_store.manifest import BlobRef
from tests import servers

#: Three blocks, the last one short.
DATA = random.Random(5).randbytes(10_000_000)


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def origin() -> ObjectStore:
    return memory_store()


@pytest.fixture
def store(origin: ObjectStore, redis_url: str) -> CachedStore:
    return CachedStore(origin, RedisCache(redis_url))


@pytest.fixture
def ref(store: CachedStore) -> BlobRef:
    return put_blob(store, "c", DATA)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def cached_blocks(client: redis.Redis) -> list[bytes]:
    return sorted(client.keys("nearmq:cache:*"))


def copied(store: CachedStore, ref: BlobRef) -> bytes:
    file = io.BytesIO()
    copy_blob(store, ref, file)
    return file.getvalue()


def test_what_was_put_or_read_once_is_read_from_the_cache(store: CachedStore, origin: ObjectStore, client: redis.Redis):
    put_through = put_blob(store, "c", DATA)
    put_elsewhere = put_blob(origin, "c", DATA)
    assert copied(store, put_elsewhere) == DATA
    assert len(cached_blocks(client)) == 6
    for ref in (put_through, put_elsewhere):
        origin.delete(ref.key)
        assert read_blob(store, ref) == DATA
        assert copied(store, ref) == DATA


def test_two_origins_share_a_cache_without_meeting(store: CachedStore, ref: BlobRef, redis_url: str):
    other = CachedStore(memory_store(), RedisCache(redis_url))
    with pytest.raises(BlobNotFound):
        other.get(ref.key)
    assert read_blob(store, ref) == DATA


def test_a_flush_between_reads_is_not_noticed(store: CachedStore, ref: BlobRef, client: redis.Redis):
    for _ in range(2):
        client.flushdb()
        assert read_blob(store, ref) == DATA
        client.flushdb()
        assert copied(store, ref) == DATA
    assert len(cached_blocks(client)) == 3


@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_lost_block_is_read_from_the_origin_and_cached_again(
    store: CachedStore, origin: ObjectStore, ref: BlobRef, client: redis.Redis, block: int
):
    client.delete(cached_blocks(client)[block])
    assert read_blob(store, ref) == DATA
    origin.delete(ref.key)
    assert read_blob(store, ref) == DATA


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "lengthen", "swap"])
def test_a_damaged_block_is_noticed_and_replaced(
    store: CachedStore, origin: ObjectStore, ref: BlobRef, client: redis.Redis, damage: str
):
    keys = cached_blocks(client)
    for block, key in enumerate(keys):
        good = client.get(key)
        damaged = {
            "flip": bytes([good[0] ^ 1]) + good[1:],
            "truncate": good[:-1],
            "empty": b"",
            "lengthen": good + b"\0",
            "swap": client.get(keys[block - 1]),
        }
        for read in (read_blob, copied):
            client.set(key, damaged[damage])
            assert read(store, ref) == DATA
            assert client.get(key)[: len(good)] == good
    origin.delete(ref.key)
    assert read_blob(store, ref) == DATA


def test_damage_at_the_origin_is_index_corrupt_however_often_it_is_read(
    store: CachedStore, origin: ObjectStore, ref: BlobRef, client: redis.Redis
):
    stored = bytearray(origin.get(ref.key))
    stored[5_000_000] ^= 1
    origin.put(ref.key, stored)
    client.flushdb()
    for _ in range(2):
        with pytest.raises(IndexCorrupt, match="digest"):
            read_blob(store, ref)
        with pytest.raises(IndexCorrupt, match="digest"):
            copied(store, ref)


def test_other_keys_than_blobs_never_meet_the_cache(store: CachedStore, origin: ObjectStore, client: redis.Redis):
    store.put_if_absent("c/m/1", b"manifest")
    store.put_if_absent("c/m/1", b"of a loser")
    store.put("c/floor", b"1")
    assert bytes(store.get("c/m/1")) == b"manifest"
    origin.put("c/floor", b"2")
    origin.delete("c/m/1")
    assert bytes(store.get("c/floor")) == b"2"
    assert not store.exists("c/m/1")
    assert list(store.list("c/m/")) == []
    with pytest.raises(BlobNotFound):
        store.get("c/m/1")
    assert cached_blocks(client) == []


def test_an_absent_blob_is_not_remembered_as_absent(store: CachedStore, origin: ObjectStore, ref: BlobRef):
    store.delete(ref.key)
    assert not store.exists(ref.key)
    with pytest.raises(BlobNotFound):
        store.get(ref.key)
    origin.put(ref.key, b"again")
    assert bytes(store.get(ref.key)) == b"again"


def test_a_cache_that_died_is_left_alone_for_a_while_and_then_used_again(
    origin: ObjectStore, private_redis: Callable[..., servers.Redis], caplog: pytest.LogCaptureFixture
):
    server = private_redis()
    clock = Clock()
    store = CachedStore(origin, RedisCache(server.url), clock=clock)
    ref = put_blob(store, "c", DATA)
    server.kill()
    assert read_blob(store, ref) == DATA
    assert read_blob(store, put_blob(store, "c", b"small")) == b"small"
    assert [record.message for record in caplog.records] == ["cache left alone"]
    server.start()
    assert copied(store, ref) == DATA
    with redis.Redis.from_url(server.url) as client:
        assert cached_blocks(client) == []
        clock.now_s += PAUSE_S
        assert copied(store, ref) == DATA
        assert len(cached_blocks(client)) == 3


def test_a_cache_that_hangs_holds_up_one_read_and_not_every_one(origin: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nearmq_index_store.blobs.redis.CACHE_REPLY_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        store = CachedStore(origin, RedisCache(f"redis://127.0.0.1:{port}/0"), clock=Clock())
        begin = time.monotonic()
        ref = put_blob(store, "c", DATA)
        first_s = time.monotonic() - begin
        begin = time.monotonic()
        for _ in range(20):
            assert store.get(ref.key, 0, 10) == DATA[:10]
        others_s = time.monotonic() - begin
    assert first_s >= 0.5
    assert others_s < 20 * 0.5 / 2


def test_a_cache_too_small_for_the_blobs_evicts_and_no_read_fails(
    origin: ObjectStore, private_redis: Callable[..., servers.Redis]
):
    server = private_redis("--maxmemory", "24mb", "--maxmemory-policy", "allkeys-lru")
    store = CachedStore(origin, RedisCache(server.url))
    refs = [put_blob(store, "c", DATA, b"%d" % number) for number in range(6)]
    for _ in range(2):
        for number, ref in enumerate(refs):
            assert read_blob(store, ref) == DATA + b"%d" % number
    with redis.Redis.from_url(server.url) as client:
        assert client.info("stats")["evicted_keys"] > 0
    with pytest.raises(InvalidArgument, match=r"evicts keys \(maxmemory-policy allkeys-lru\)"):
        RedisStore(server.url)
