"""The servers that the other tests rest on."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pika
import pika.exceptions
import pytest
import redis

from tests.servers import Broker, Redis

pytestmark = [pytest.mark.broker, pytest.mark.redis]


def declare(url: str, queue: str, *, passive: bool = False, durable: bool = True) -> int:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        return connection.channel().queue_declare(queue, passive=passive, durable=durable).method.message_count
    finally:
        if connection.is_open:
            connection.close()


@pytest.mark.parametrize("_", range(2))
def test_each_test_has_an_empty_virtual_host(broker_url: str, _: int):
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
        declare(broker_url, "left-behind", passive=True)
    declare(broker_url, "left-behind")


@pytest.mark.parametrize("_", range(2))
def test_each_test_has_an_empty_database(redis_url: str, _: int):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left-behind", 1)


def test_a_killed_private_broker_comes_back_with_its_durable_queues_and_ends_without_a_trace(
    private_broker: Callable[..., Broker],
):
    broker = private_broker(config=("consumer_timeout = 10000",))
    with closing(broker):
        declare(broker.url, "kept")
        assert "10000" in broker.rabbitmqctl("eval", "application:get_env(rabbit, consumer_timeout).")
        broker.kill()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            declare(broker.url, "kept", passive=True)
        broker.start()
        assert declare(broker.url, "kept", passive=True) == 0
    assert not processes_with(f"nearmq{pika.URLParameters(broker.url).port}@")


def test_a_killed_private_redis_keeps_what_its_append_only_file_holds(private_redis: Callable[..., Redis]):
    server = private_redis("--appendonly", "yes", "--appendfsync", "always")
    with redis.Redis.from_url(server.url) as client:
        client.set("kept", 1)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("kept")
        server.start()
        assert client.get("kept") == b"1"


def processes_with(text: str) -> list[str]:
    """Command lines of running processes that hold the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            found += [line] if text in line else []
    return found
