"""1,000-query jobs through one worker of one and of two compute threads, beside raw hnswlib with as many threads.

The worker's answers have exact distances, computed anew from the rows, and jobs and answers cross the broker; raw
hnswlib's do neither. The worker asks for huge pages; raw hnswlib is taken as it comes. Of two ways to search on two
threads, in one call and in a call a thread, the faster counts.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.data import LIMIT, Matrix
from benchmarks.findings import Findings, Measure, Table, figure
from benchmarks.load import with_futures
from benchmarks.measuring import Figures, Samples, in_turns, rate
from benchmarks.peers.graph import EF, open_graph
from benchmarks.stage import Built, Stage

_IN_FLIGHT = 4
#: At least so much of raw hnswlib's rate, and as a guard, by compute threads.
_BOUNDS = {1: (0.97, 0.15), 2: (0.85, 0.15)}


def run(stage: Stage) -> Findings:
    """Measure."""
    graph = stage.graph(stage.synth)
    seconds = 2 * stage.scale.seconds
    samples = {threads: compare(stage, graph, threads, seconds) for threads in _BOUNDS}
    return Findings(
        tables=[
            Table(
                name="batches",
                title=f"1,000-query jobs, {_IN_FLIGHT} in flight; {graph.data.name}, HNSW, ef {EF}",
                columns=["queries a second", "one compute thread", "two"],
                rows=[
                    [name, *(figure(samples[threads].median(name, "queries/s")) for threads in samples)]
                    for name in ("nearmq", "raw, in one call", "raw, a call a thread")
                ],
            )
        ],
        measures=[measure(samples[threads], threads) for threads in samples],
    )


def compare(stage: Stage, graph: Built, threads: int, seconds: float) -> Samples:
    """Take turns between nearmq and raw hnswlib."""
    collection = stage.served(graph, threads=threads)
    index, queries = open_graph(graph, EF), graph.data.queries

    def ours() -> Figures:
        jobs = with_futures(lambda _: collection.submit(queries, limit=LIMIT, params={"ef": EF}), _IN_FLIGHT, seconds)
        return {"queries/s": jobs["jobs/s"] * len(queries)}

    ours()
    return in_turns(
        stage.scale.rounds,
        {
            "nearmq": ours,
            "raw, in one call": partial(_raw, index, queries, threads, seconds),
            "raw, a call a thread": partial(_raw_calls, index, queries, threads, seconds),
        },
    )


def measure(samples: Samples, threads: int) -> Measure:
    """Compare with the faster of the raw ways."""
    fastest = max(("raw, in one call", "raw, a call a thread"), key=lambda name: samples.median(name, "queries/s"))
    bound, guard = _BOUNDS[threads]
    return Measure(
        name=f"1,000-query jobs, compute threads: {threads}: of raw hnswlib's queries a second",
        bound=bound,
        guard=guard,
        spread=samples.ratio("queries/s", "nearmq", fastest),
        note=f"ef {EF}, {_IN_FLIGHT} jobs in flight; {fastest}",
    )


def _raw(index: Any, queries: Matrix, threads: int, seconds: float) -> Figures:
    def search() -> None:
        index.knn_query(queries, k=LIMIT, num_threads=threads)

    return {"queries/s": rate(search, least_s=seconds, amount=len(queries))}


def _raw_calls(index: Any, queries: Matrix, threads: int, seconds: float) -> Figures:
    parts = np.array_split(queries, threads)
    search: Callable[[Matrix], Any] = partial(index.knn_query, k=LIMIT, num_threads=1)
    with ThreadPoolExecutor(threads) as pool:
        return {"queries/s": rate(lambda: list(pool.map(search, parts)), least_s=seconds, amount=len(queries))}
