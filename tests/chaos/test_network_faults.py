"""A network between worker and broker, or client and broker, that is slow, cuts, resets and goes silent."""

import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.chaos.conftest import SceneOf
from tests.chaos.proxy import FaultProxy
from tests.chaos.scene import Scene

pytestmark = [pytest.mark.broker, pytest.mark.redis]

JOBS = 400
#: Fewer bytes than one reply has, and more than heartbeats.
REPLY_BYTES = 300


@pytest.fixture
def proxy(broker_url: str) -> Iterator[FaultProxy]:
    with closing(FaultProxy(urlsplit(broker_url).port or 5672)) as proxy:
        yield proxy


def through(proxy: FaultProxy, url: str, **options: int) -> str:
    """The URL of a broker with the proxy before it."""
    parts = urlsplit(url)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return parts._replace(netloc=f"guest:guest@127.0.0.1:{proxy.port}", query=query).geturl()


def hold_confirms(stage: Scene, proxy: FaultProxy) -> None:
    """Hold what the broker sends from a moment on at which workers are about to send replies, and let them be sent."""
    sent = proxy.passed["up"]
    while proxy.passed["up"] < sent + REPLY_BYTES:
        proxy.held = set()
        stage.load.await_burst()
        stage.hesitate(0.02)
        sent = proxy.passed["up"]
        proxy.held = {"down"}
        time.sleep(0.3)


def test_connections_are_reset_between_reply_and_confirm(scene: SceneOf, broker_url: str, proxy: FaultProxy):
    ways = {"worker_url": through(proxy, broker_url)}
    with scene(broker_url, jobs=JOBS, ways=ways) as stage:
        for _ in range(3):
            hold_confirms(stage, proxy)
            seen = len(stage.history.entries())
            with stage.fault("reset"):
                proxy.reset()
                proxy.held = set()
            stage.await_entries("the workers back", lambda entry: entry.phase == "connected", 4, since=seen)
            stage.await_answers(40)


@pytest.mark.long
@pytest.mark.parametrize("way", ["up", "down"])
def test_connections_are_cut_in_the_middle_of_a_frame(scene: SceneOf, broker_url: str, proxy: FaultProxy, way: str):
    ways = {"worker_url": through(proxy, broker_url)}
    with scene(broker_url, jobs=JOBS, ways=ways) as stage:
        for _ in range(5):
            seen = len(stage.history.entries())
            with stage.fault("cut"):
                proxy.cut_after(stage.rng.randint(1, 2_000), way)
                stage.await_entries("a connection cut", lambda entry: entry.phase == "lost", since=seen)
            stage.await_answers(40)


def test_the_clients_connection_is_reset_while_it_writes(scene: SceneOf, broker_url: str, proxy: FaultProxy):
    ways = {"client_url": through(proxy, broker_url)}
    with scene(broker_url, jobs=JOBS, writes=0.6, pause_s=0.02, burst=3, ways=ways) as stage:
        for _ in range(5):
            stage.load.await_burst()
            with stage.fault("reset"):
                proxy.reset()
            stage.await_answers(40)


@pytest.mark.long
def test_the_network_is_a_black_hole_until_heartbeats_notice(scene: SceneOf, broker_url: str, proxy: FaultProxy):
    ways = {
        "worker_url": through(proxy, broker_url, heartbeat=2),
        "client_url": through(proxy, broker_url, heartbeat=2),
    }
    with scene(broker_url, jobs=JOBS, ways=ways) as stage:
        stage.load.await_burst(100)
        seen = len(stage.history.entries())
        with stage.fault("black hole"):
            proxy.held = {"up", "down"}
            stage.await_entries("the loss noticed", lambda entry: entry.phase == "lost", 5, since=seen)
            proxy.held = set()
        stage.await_answers(40)


@pytest.mark.long
def test_the_network_is_slow_and_ends_halfway(scene: SceneOf, broker_url: str, proxy: FaultProxy):
    ways = {"worker_url": through(proxy, broker_url), "client_url": through(proxy, broker_url)}
    with scene(broker_url, jobs=JOBS, ways=ways) as stage:
        with stage.fault("latency"):
            proxy.latency_s = 0.2
            time.sleep(3)
            proxy.latency_s = 0.0
        stage.load.await_burst()
        with stage.fault("half-close"):
            proxy.half_close()
        stage.await_answers(40)
