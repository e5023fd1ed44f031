"""dramatiq: one process of 8 threads, RabbitMQ, results in Redis; everything else as it comes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import dramatiq
import redis
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.load import with_results
from benchmarks.measuring import Figures
from benchmarks.peers import Drive, graph, server
from benchmarks.stage import Built, Stage

NAME = f"dramatiq {version('dramatiq')}"
_URLS = "NEARMQ_BENCH_URLS"
_TIMEOUT_MS = 60_000


def connect(broker_url: str, redis_url: str) -> "dramatiq.Actor[[list[float]], tuple[list[int], list[float]]]":
    """Return the actor over a broker and a backend."""
    broker = RabbitmqBroker(url=broker_url)
    # By redis-py's own time-out a wait for a result ends after 5 s, before a server that has just been installed is up.
    client = redis.Redis.from_url(redis_url, socket_timeout=None)
    broker.add_middleware(Results(backend=RedisBackend(client=client)))
    dramatiq.set_broker(broker)
    return dramatiq.actor(graph.search, actor_name="search", queue_name="bench", store_results=True)


if _URLS in os.environ:  # in the server, whose own command imports this module
    connect(*os.environ[_URLS].split())


@contextmanager
def serving(stage: Stage, built: Built) -> Iterator[Drive]:
    """See `Peer`."""
    urls = (stage.broker_url, stage.store_url)
    search = connect(*urls)
    queries = [query.tolist() for query in built.data.queries]

    def drive(in_flight: int, seconds: float) -> Figures:
        return with_results(
            lambda number: search.send(queries[number % len(queries)]),
            lambda message: message.get_result(block=True, timeout=_TIMEOUT_MS),
            in_flight,
            seconds,
        )

    command = [server.program("dramatiq"), __spec__.name, "--processes", "1", "--threads", "8"]
    with server.running(command, {**graph.environment(built), _URLS: " ".join(urls)}):
        drive(16, 0)
        yield drive
        dramatiq.get_broker().close()
