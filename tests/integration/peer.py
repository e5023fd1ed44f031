"""A plain pika client, as the other end of what a test looks at."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pika

PATIENCE_S = 60.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that the broker tells no one."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {PATIENCE_S:g} s: {what}")
        time.sleep(0.02)


class Peer:
    """Publishes, gets and counts, one call at a time."""

    def __init__(self, connection: pika.BlockingConnection) -> None:
        self._connection = connection
        self.channel = connection.channel()

    def publish(self, queue: str, body: bytes = b"{}", *, exchange: str = "", **properties: Any) -> None:
        self.channel.basic_publish(exchange, queue, body, pika.BasicProperties(**properties))

    def get(self, queue: str) -> tuple[pika.BasicProperties, bytes]:
        """Take the next message, waiting for it."""
        taken: list[tuple[pika.BasicProperties, bytes]] = []

        def take() -> bool:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is not None:
                taken.append((properties, body))
            return bool(taken)

        eventually(take, f"a message in {queue}")
        return taken[0]

    def count(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)


@contextmanager
def peer(url: str) -> Iterator[Peer]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    with connection:
        yield Peer(connection)
