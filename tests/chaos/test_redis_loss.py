"""A Redis that is flushed, killed or evicts: never a wrong answer, and no failed job where it is only the cache."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import StrictRedis

from nearmq.errors import NearmqError, StoreUnavailable
from tests.servers import Redis
from tests.world import World, embedded_world

pytestmark = pytest.mark.redis

VECTORS = np.random.default_rng(1).normal(size=(2_000, 32)).astype(np.float32)


def command(redis: Redis, *words: object) -> Any:
    with StrictRedis.from_url(redis.url) as client:
        return client.execute_command(*words)


def assert_answers(world: World) -> None:
    """Search after dropping everything from memory, so that the store is read again."""
    collection = world.client.collection("c")
    world.engine._cache.release(collection.describe()["id"])
    found = collection.search(VECTORS[:20], limit=3, timeout_s=60)
    assert [int(hits.ids[0]) for hits in found] == list(range(20))


@pytest.fixture
def cached(tmp_path: Path, private_redis: Callable[..., Redis]) -> Iterator[tuple[World, Redis]]:
    redis = private_redis("--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    with embedded_world(f"file:{tmp_path}", cache=redis.url) as world:
        world.client.create_collection("c", dim=32, index="HNSW")
        world.add("c", range(len(VECTORS)), VECTORS, segments=4)
        yield world, redis


def test_a_worker_keeps_answering_while_its_cache_is_flushed_between_jobs(cached: tuple[World, Redis]):
    world, redis = cached
    for _ in range(5):
        assert_answers(world)
        command(redis, "FLUSHALL")
    assert_answers(world)


def test_a_worker_keeps_answering_while_its_cache_loses_half_of_its_keys(cached: tuple[World, Redis]):
    world, redis = cached
    assert_answers(world)
    keys = sorted(command(redis, "KEYS", "*"))
    assert len(keys) > 4
    for key in keys[::2]:
        command(redis, "DEL", key)
    assert_answers(world)


def test_a_worker_keeps_answering_without_its_cache_and_uses_it_again(cached: tuple[World, Redis]):
    world, redis = cached
    assert_answers(world)
    redis.kill()
    assert_answers(world)
    redis.start()
    assert_answers(world)


def test_a_worker_over_redis_alone_says_that_its_store_is_gone_and_recovers(private_redis: Callable[..., Redis]):
    redis = private_redis("--appendonly", "yes", "--appendfsync", "always")
    with embedded_world(redis.url) as world:
        world.client.create_collection("c", dim=32, index="HNSW")
        world.add("c", range(len(VECTORS)), VECTORS, segments=4)
        assert_answers(world)
        redis.kill()
        with pytest.raises(StoreUnavailable) as caught:
            world.client.collection("c").search(VECTORS[:1], timeout_s=60)
        assert caught.value.retryable
        redis.start()
        assert_answers(world)


def test_a_flush_of_redis_alone_is_an_error_never_a_wrong_answer_and_new_collections_work(
    private_redis: Callable[..., Redis],
):
    redis = private_redis()
    with embedded_world(redis.url) as world:
        world.client.create_collection("c", dim=32, index="FLAT")
        world.add("c", range(len(VECTORS)), VECTORS)
        command(redis, "FLUSHALL")
        with pytest.raises(NearmqError):
            world.client.collection("c").search(VECTORS[:1], timeout_s=60)
        world.client.create_collection("d", dim=32, index="FLAT")
        world.add("d", range(10), VECTORS[:10])
        assert len(world.client.collection("d").search(VECTORS[:1], limit=3)[0]) == 3
