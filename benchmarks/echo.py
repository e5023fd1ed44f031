"""A bare echo through the broker with pika, as the tutorials write it: what a round trip costs when nothing is done.

Jobs are transient, go through a classic queue, are not confirmed, and acknowledged on delivery: no promise is kept.
"""

import statistics
import sys
import time
import uuid

import pika


def serve(url: str, queue: str) -> None:
    """Answer every message of a queue with its own body."""
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare(queue, auto_delete=True)

    def on_message(channel, method, properties, body):  # noqa: ANN001, ANN202, ARG001
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, body, reply)

    channel.basic_consume(queue, on_message, auto_ack=True)
    channel.start_consuming()


def measure(url: str, queue: str, body: bytes, *, jobs: int, in_flight: int) -> tuple[float, float]:
    """Send jobs, so many in flight; return jobs a second and the median round trip in milliseconds."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    replies = f"echo.{uuid.uuid4().hex}"
    channel.queue_declare(replies, exclusive=True)
    sent_at: dict[str, float] = {}
    took: list[float] = []

    def send() -> None:
        job_id = str(len(sent_at))
        sent_at[job_id] = time.perf_counter()
        channel.basic_publish("", queue, body, pika.BasicProperties(correlation_id=job_id, reply_to=replies))

    def on_reply(_channel, _method, properties, _body):  # noqa: ANN001, ANN202
        took.append(time.perf_counter() - sent_at[properties.correlation_id])
        if len(sent_at) < jobs:
            send()

    channel.basic_consume(replies, on_reply, auto_ack=True)
    began = time.perf_counter()
    for _ in range(min(in_flight, jobs)):
        send()
    while len(took) < jobs:
        connection.process_data_events(time_limit=1)
    elapsed = time.perf_counter() - began
    connection.close()
    return jobs / elapsed, statistics.median(took) * 1_000


if __name__ == "__main__":
    serve(*sys.argv[1:])
