"""The guaranteed echo, the yardstick: every promise that nearmq keeps on the way of a job, and no search.

A quorum queue, persistent jobs, confirms collected as they come on both sides, a job acknowledged once its reply is
confirmed, acknowledgements in bursts. Replies are persistent too, in a durable queue, as nearmq's are.

Written on the asynchronous side of BlockingConnection's channels (`_impl`), which no program but a benchmark should
reach for: callbacks come in bursts, and what they publish leaves when all of a burst is done. The same on
SelectConnection, which is public, reached 0.91 of it, so this one is the harder to keep up with.
"""

import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika

from benchmarks.load import figures
from benchmarks.measuring import Figures
from benchmarks.peers import Drive, server
from benchmarks.peers.bare_echo import BODY
from benchmarks.stage import Built, Stage

NAME = "guaranteed echo"
_PREFETCH = 512
_EXPIRE_MS = 60_000


class Confirmed:
    """Publishes persistent messages, and tells of each by its token once the broker has it."""

    def __init__(self, channel: Any, on_confirmed: Callable[[int], None]) -> None:
        self._channel = channel._impl  # noqa: SLF001 - see the module
        self._on_confirmed = on_confirmed
        self._last_tag = 0
        self._tokens: dict[int, int] = {}  # by delivery tag, ascending
        self._channel.confirm_delivery(self._on_confirm)

    def publish(self, queue: str, body: bytes, token: int, **properties: str) -> None:
        """Publish to a queue."""
        self._channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2, **properties))
        self._last_tag += 1
        self._tokens[self._last_tag] = token

    def _on_confirm(self, frame: Any) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack), "the broker refused a message"
        last = frame.method.delivery_tag
        tags = [last]
        if frame.method.multiple:
            tags = []
            for tag in self._tokens:
                if tag > last:
                    break
                tags.append(tag)
        for tag in tags:
            self._on_confirmed(self._tokens.pop(tag))


class BurstAcks:
    """Acknowledges all that is done from the oldest delivery on, with one frame for each turn of the loop."""

    def __init__(self, connection: Any, channel: Any) -> None:
        self._loop = connection._impl.ioloop  # noqa: SLF001 - see the module
        self._channel = channel._impl  # noqa: SLF001
        self._done: set[int] = set()
        self._next = 1
        self._is_due = False

    def add(self, tag: int) -> None:
        """Acknowledge a delivery soon."""
        self._done.add(tag)
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(0, self._send)

    def _send(self) -> None:
        self._is_due = False
        first = self._next
        while self._next in self._done:
            self._done.discard(self._next)
            self._next += 1
        if self._next > first:
            self._channel.basic_ack(self._next - 1, multiple=True)


def serve(url: str, queue: str) -> None:
    """Answer every message of a queue with its own body."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    taking = connection.channel()
    acks = BurstAcks(connection, taking)
    replies = Confirmed(connection.channel(), acks.add)

    def on_message(_: Any, method: Any, properties: Any, body: bytes) -> None:
        replies.publish(properties.reply_to, body, method.delivery_tag, correlation_id=properties.correlation_id)

    taking.basic_qos(prefetch_count=_PREFETCH)
    taking.basic_consume(queue, on_message)
    while True:
        connection.process_data_events(time_limit=None)


@contextmanager
def serving(stage: Stage, graph: Built) -> Iterator[Drive]:
    """See `Peer`."""
    del graph
    url = stage.broker_url
    with server.queue(url, kind="quorum") as queue, server.running(server.module(__spec__.name, url, queue)):
        drive(url, queue, 1, 0)
        yield partial(drive, url, queue)


def drive(url: str, queue: str, in_flight: int, seconds: float) -> Figures:
    """Send jobs, so many in flight, for some seconds."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        taking = connection.channel()
        replies = f"bench.{uuid.uuid4().hex}"
        taking.queue_declare(replies, durable=True, arguments={"x-expires": _EXPIRE_MS})
        acks = BurstAcks(connection, taking)
        jobs = Confirmed(connection.channel(), lambda _: None)
        sent_at: list[float] = []
        took: list[float] = []

        def send() -> None:
            number = len(sent_at)
            sent_at.append(time.perf_counter())
            jobs.publish(queue, BODY, number, correlation_id=str(number), reply_to=replies)

        def on_reply(_: Any, method: Any, properties: Any, _body: bytes) -> None:
            took.append(time.perf_counter() - sent_at[int(properties.correlation_id)])
            acks.add(method.delivery_tag)
            if time.perf_counter() < end:
                send()

        taking.basic_consume(replies, on_reply)
        began = time.perf_counter()
        end = began + seconds
        for _ in range(in_flight):
            send()
        while len(took) < len(sent_at):
            connection.process_data_events(time_limit=None)
        return figures(took, time.perf_counter() - began)


if __name__ == "__main__":
    serve(*sys.argv[1:])
