"""A broker that drops its connections, stops, dies, and blocks under an alarm."""

import time
from collections.abc import Iterator

import pytest

from tests import servers
from tests.chaos.conftest import SceneOf
from tests.servers.virtual_hosts import VirtualHosts

pytestmark = [pytest.mark.broker, pytest.mark.redis]

#: After a restart of the broker everything is in use again so soon.
RESTART_S = 20.0


@pytest.fixture(scope="session")
def virtual_hosts(breakable_broker: servers.Broker) -> VirtualHosts:
    return VirtualHosts(breakable_broker.url, breakable_broker)


@pytest.fixture
def url(virtual_hosts: VirtualHosts) -> Iterator[str]:
    url = virtual_hosts.take()
    yield url
    virtual_hosts.give_back(url)


def test_all_connections_are_closed_three_times(scene: SceneOf, breakable_broker: servers.Broker, url: str):
    with scene(url, jobs=500) as stage:
        for _ in range(3):
            stage.load.await_burst()
            stage.hesitate()
            seen = len(stage.history.entries())
            with stage.fault("close_all_connections"):
                breakable_broker.rabbitmqctl("close_all_connections", "--global", "test")
            # The client's, and two of each worker's.
            stage.await_entries("every connection back", lambda entry: entry.phase == "connected", 5, since=seen)
            stage.await_answers(20)


@pytest.mark.long
def test_the_broker_is_stopped_and_started(scene: SceneOf, breakable_broker: servers.Broker, url: str):
    with scene(url, jobs=500, recovery_s=RESTART_S) as stage:
        stage.load.await_burst(100)
        stage.hesitate()
        with stage.fault("stop_app"):
            breakable_broker.rabbitmqctl("stop_app")
            breakable_broker.rabbitmqctl("start_app")
        stage.await_answers(100)


def test_the_broker_is_killed_and_restarted(scene: SceneOf, breakable_broker: servers.Broker, url: str):
    with scene(url, jobs=500, recovery_s=RESTART_S) as stage:
        stage.load.await_burst(100)
        stage.hesitate()
        with stage.fault("SIGKILL"):
            breakable_broker.kill()
            breakable_broker.start()
        stage.await_answers(100)


@pytest.mark.long
@pytest.mark.parametrize(
    ("alarm", "none"),
    [
        (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.6")),
        (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "50MB")),
    ],
    ids=["memory", "disk"],
)
def test_an_alarm_blocks_publishers_for_five_seconds(
    scene: SceneOf, breakable_broker: servers.Broker, url: str, alarm: tuple[str, str], none: tuple[str, str]
):
    with scene(url, jobs=200, duplicates=0) as stage:
        stage.load.await_burst()
        with stage.fault(alarm[0]):
            breakable_broker.rabbitmqctl(*alarm)
            time.sleep(5)
            breakable_broker.rabbitmqctl(*none)
        stage.await_answers(100)
