"""A Redis under load that dies, is slow, and, where it is only the cache, loses what it holds."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import StrictRedis

from tests.chaos.conftest import SceneOf
from tests.chaos.proxy import FaultProxy
from tests.servers import Redis

pytestmark = [pytest.mark.broker, pytest.mark.redis]

JOBS = 400
RARER_LOSSES = ("evicting", "a block lost")
LASTING = ("--appendonly", "yes", "--appendfsync", "always")


def command(url: str, *words: object) -> Any:
    with StrictRedis.from_url(url) as client:
        return client.execute_command(*words)


@pytest.mark.long
def test_the_redis_that_is_the_store_is_killed_and_restarted(
    scene: SceneOf, broker_url: str, private_redis: Callable[..., Redis]
):
    redis = private_redis(*LASTING)
    with scene(broker_url, jobs=JOBS, store_url=redis.url, tries=True) as stage:
        for _ in range(2):
            stage.load.await_burst()
            stage.hesitate()
            with stage.fault("SIGKILL"):
                redis.kill()
                time.sleep(0.5)
                redis.start()
            stage.await_answers(100)


@pytest.mark.long
def test_the_redis_that_is_the_store_is_200_ms_away(
    scene: SceneOf, broker_url: str, private_redis: Callable[..., Redis]
):
    redis = private_redis(*LASTING)
    with closing(FaultProxy(urlsplit(redis.url).port or 0)) as proxy:
        store_url = f"redis://127.0.0.1:{proxy.port}/0"
        with scene(broker_url, jobs=JOBS, store_url=store_url, duplicates=0, recovery_s=10) as stage:
            with stage.fault("latency"):
                proxy.latency_s = 0.1  # each way
                stage.await_answers(60)
                proxy.latency_s = 0.0
            stage.await_answers(100)


@pytest.mark.parametrize("loss", ["flushed", *(pytest.param(loss, marks=pytest.mark.long) for loss in RARER_LOSSES)])
def test_the_redis_that_is_the_cache_loses_what_it_holds(
    scene: SceneOf, broker_url: str, private_redis: Callable[..., Redis], tmp_path: Path, loss: str
):
    small = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") if loss == "evicting" else ()
    redis = private_redis(*small)
    cached: dict[str, object] = {"worker_options": ("--cache", redis.url)}
    with scene(broker_url, jobs=JOBS, store_url=f"file:{tmp_path}/store", duplicates=0, ways=cached) as stage:
        for _ in range(5):
            stage.load.await_burst()
            with stage.fault(loss):
                if loss == "flushed":
                    command(redis.url, "FLUSHALL")
                elif loss == "a block lost":
                    keys = sorted(command(redis.url, "KEYS", "*"))
                    command(redis.url, "DEL", stage.rng.choice(keys))
            stage.await_answers(40)
