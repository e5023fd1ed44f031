"""Celery: prefork, a process a core, results by rpc; everything else as it comes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import celery

from benchmarks.load import with_results
from benchmarks.measuring import Figures
from benchmarks.peers import Drive, graph, server
from benchmarks.stage import Built, Stage

NAME = f"Celery {celery.__version__}"
_URL = "NEARMQ_BENCH_URL"
_TIMEOUT_S = 60

# The program that Celery's own command runs is this module, so the broker comes by the environment.
app = celery.Celery("bench", broker=os.environ.get(_URL), backend="rpc://")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="search")  # type: ignore[untyped-decorator]
def search(vector: list[float]) -> tuple[list[int], list[float]]:
    """Search for one query."""
    return graph.search(vector)


@contextmanager
def serving(stage: Stage, built: Built) -> Iterator[Drive]:
    """See `Peer`."""
    app.conf.broker_url = stage.broker_url
    queries = [query.tolist() for query in built.data.queries]

    def drive(in_flight: int, seconds: float) -> Figures:
        return with_results(
            lambda number: search.delay(queries[number % len(queries)]),
            lambda result: result.get(timeout=_TIMEOUT_S),
            in_flight,
            seconds,
        )

    options = ("--pool", "prefork", "--concurrency", "2", "--loglevel", "error")
    command = [server.program("celery"), "-A", __spec__.name, "worker", *options]
    with server.running(command, {**graph.environment(built), _URL: stage.broker_url}):
        drive(16, 0)  # every process opens the graph
        yield drive
        app.close()
