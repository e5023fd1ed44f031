"""A client as the tutorials write it: BlockingConnection, transient jobs, no confirms, replies taken without acks."""

import time
from collections.abc import Callable
from typing import Any

import pika

from benchmarks.load import figures
from benchmarks.measuring import Figures


def drive(
    url: str,
    queue: str,
    in_flight: int,
    seconds: float,
    *,
    body_of: Callable[[int], bytes],
    read: Callable[[bytes], Any] = bytes,
) -> Figures:
    """Send jobs, so many in flight, for some seconds.

    Args:
        body_of: makes the body of a job, by its number.
        read: makes of a reply's body what a caller would use.
    """
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        replies = channel.queue_declare("", exclusive=True).method.queue
        sent_at: list[float] = []
        took: list[float] = []

        def send() -> None:
            number = len(sent_at)
            sent_at.append(time.perf_counter())
            properties = pika.BasicProperties(correlation_id=str(number), reply_to=replies)
            channel.basic_publish("", queue, body_of(number), properties)

        def on_reply(_channel: Any, _method: Any, properties: Any, body: bytes) -> None:
            read(body)
            took.append(time.perf_counter() - sent_at[int(properties.correlation_id)])
            if time.perf_counter() < end:
                send()

        channel.basic_consume(replies, on_reply, auto_ack=True)
        began = time.perf_counter()
        end = began + seconds
        for _ in range(in_flight):
            send()
        while len(took) < len(sent_at):
            connection.process_data_events(time_limit=1)
        return figures(took, time.perf_counter() - began)


def wait_until_served(url: str, queue: str, body: bytes) -> None:
    """Wait until a first job is answered."""
    drive(url, queue, 1, 0, body_of=lambda _: body)
