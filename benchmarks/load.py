"""Jobs kept in flight for a while: how many are answered in a second, and how long one takes."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from benchmarks.measuring import Figures

#: Sends a job, by its number, and returns what its result is asked of.
Send = Callable[[int], Any]


def with_futures(submit: Callable[[int], Future[Any]], in_flight: int, seconds: float) -> Figures:
    """Keep so many futures pending; a new job is sent when any of them is done."""
    done: SimpleQueue[tuple[float, Future[Any]]] = SimpleQueue()
    took: list[float] = []

    def send(number: int) -> None:
        sent = time.perf_counter()
        submit(number).add_done_callback(lambda future: done.put((time.perf_counter() - sent, future)))

    def answered() -> None:
        latency, future = done.get()
        future.result()
        took.append(latency)

    return _run(send, answered, took, in_flight, seconds)


def with_results(send: Send, wait: Callable[[Any], object], in_flight: int, seconds: float) -> Figures:
    """Keep so many jobs pending where only the result of a given one can be waited for: the oldest is."""
    pending: deque[tuple[float, Any]] = deque()
    took: list[float] = []

    def answered() -> None:
        sent, job = pending.popleft()
        wait(job)
        took.append(time.perf_counter() - sent)

    return _run(lambda number: pending.append((time.perf_counter(), send(number))), answered, took, in_flight, seconds)


def _run(
    send: Callable[[int], None], answered: Callable[[], None], took: list[float], in_flight: int, seconds: float
) -> Figures:
    began = time.perf_counter()
    for number in range(in_flight):
        send(number)
    sent = in_flight
    while time.perf_counter() - began < seconds:
        answered()
        send(sent)
        sent += 1
    while len(took) < sent:
        answered()
    return figures(took, time.perf_counter() - began)


def figures(took: list[float], elapsed: float) -> Figures:
    """Return jobs a second and the median latency."""
    return {"jobs/s": len(took) / elapsed, "p50 ms": statistics.median(took) * 1_000}
