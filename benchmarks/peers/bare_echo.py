"""A bare pika echo: what a round trip costs when nothing is done and nothing promised.

Jobs are transient, go through a classic queue, are not confirmed, and acknowledged on delivery.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika

from benchmarks.measuring import Figures
from benchmarks.peers import Drive, blocking_client, server
from benchmarks.stage import Built, Stage

NAME = "bare pika echo"
#: As many bytes as a one-query job of 128 dimensions has, packed.
BODY = b"x" * 776


def serve(url: str, queue: str) -> None:
    """Answer every message of a queue with its own body."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()

    def on_message(channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body, reply)

    channel.basic_consume(queue, on_message, auto_ack=True)
    channel.start_consuming()


@contextmanager
def serving(stage: Stage, graph: Built) -> Iterator[Drive]:
    """See `Peer`."""
    del graph
    url = stage.broker_url
    with server.queue(url) as queue, server.running(server.module(__spec__.name, url, queue)):
        blocking_client.wait_until_served(url, queue, BODY)
        yield partial(_drive, url, queue)


def _drive(url: str, queue: str, in_flight: int, seconds: float) -> Figures:
    return blocking_client.drive(url, queue, in_flight, seconds, body_of=lambda _: BODY)


if __name__ == "__main__":
    serve(*sys.argv[1:])
