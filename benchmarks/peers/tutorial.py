"""The worker of RabbitMQ's RPC tutorial, which searches the graph: prefetch 1, JSON, a reply and an ack a job."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika

from benchmarks.measuring import Figures
from benchmarks.peers import Drive, blocking_client, graph, server
from benchmarks.stage import Built, Stage

NAME = "RPC tutorial"


def serve(url: str, queue: str) -> None:
    """Search for every message of a queue."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()

    def on_request(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        ids, distances = graph.search(json.loads(body)["vector"])
        channel.basic_publish(
            exchange="",
            routing_key=properties.reply_to,
            properties=pika.BasicProperties(correlation_id=properties.correlation_id),
            body=json.dumps({"ids": ids, "distances": distances}),
        )
        channel.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue, on_request)
    channel.start_consuming()


@contextmanager
def serving(stage: Stage, built: Built) -> Iterator[Drive]:
    """See `Peer`."""
    url, queries = stage.broker_url, built.data.queries

    def body(number: int) -> bytes:
        return json.dumps({"vector": queries[number % len(queries)].tolist()}).encode()

    command = partial(server.module, __spec__.name)
    with server.queue(url) as queue, server.running(command(url, queue), graph.environment(built)):
        blocking_client.wait_until_served(url, queue, body(0))

        def drive(in_flight: int, seconds: float) -> Figures:
            return blocking_client.drive(url, queue, in_flight, seconds, body_of=body, read=json.loads)

        yield drive


if __name__ == "__main__":
    serve(*sys.argv[1:])
