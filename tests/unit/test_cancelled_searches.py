"""What a cancel does to a search that runs: alone it stops, and in a batch nobody else notices."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearmq.amqp import Delivery
from nearmq.jobs import Reply, SearchJob
from nearmq.transport import Message
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_worker import segment_search
from nearmq_worker.awaited import CancelledJobs
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.execute import Executor
from nearmq_worker.spool import Spool
from tests.world import fill

VECTORS = np.random.default_rng(1).standard_normal((40, 4), dtype=np.float32)
SEGMENTS = 4


def task(job_id: str, *, queries: int = 1, expires_in_s: float | None = None) -> Task:
    message = Message(routing_key="search.books", type="search", message_id=job_id, body=b"")
    delivery = Delivery(message=message, generation=1, tag=1, queue="q")
    vectors = np.repeat(VECTORS[:1], queries, axis=0)
    deadline_ms = None if expires_in_s is None else int((time.time() + expires_in_s) * 1_000)
    job = SearchJob(collection="books", limit=3, vectors=vectors)
    return Task(delivery=delivery, job=job, deadline_ms=deadline_ms, taken_at=time.monotonic())


class Searches:
    """Runs batches on one thread; calls `on_part` with the number of each segment and slice that is searched."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store, config = open_store("memory:"), WorkerConfig(threads=1, spool=folder)
        field = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="FLAT"))
        Catalog(store).create("books", Schema(vector_fields=(field,)), job_id="make")
        fill(store, "books", range(40), VECTORS, segments=SEGMENTS)
        self.cancelled = CancelledJobs()
        cache = SegmentCache(Spool(store, folder, config.memory_bytes), config.memory_bytes)
        self._executor = Executor(Catalog(store), cache, config, self.cancelled)
        self.close = self._executor.close
        self.parts = 0
        self.on_part: Callable[[int], None] = lambda _: None
        search_part = segment_search.search_part

        def counted(*arguments: Any, **options: Any) -> Any:
            self.parts += 1
            self.on_part(self.parts)
            return search_part(*arguments, **options)

        monkeypatch.setattr(segment_search, "search_part", counted)

    def run(self, *tasks: Task) -> list[Reply]:
        return self._executor.run(tasks)


@pytest.fixture
def searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    searches = Searches(tmp_path, monkeypatch)
    yield searches
    searches.close()


def codes(replies: list[Reply]) -> list[str | None]:
    return [None if reply.error is None else reply.error.code for reply in replies]


def test_one_cancelled_member_of_a_batch_fails_alone_and_costs_the_others_nothing(searches: Searches):
    undisturbed = searches.run(task("a"), task("b"), task("c"))
    parts, searches.parts = searches.parts, 0
    searches.on_part = lambda _: searches.cancelled.add("b")
    replies = searches.run(task("a"), task("b"), task("c"))
    assert codes(replies) == [None, "CANCELLED", None]
    assert searches.parts == parts == SEGMENTS
    for reply, expected in zip(replies[::2], undisturbed[::2], strict=True):
        np.testing.assert_array_equal(reply.hits[0].ids, expected.hits[0].ids)


def test_a_batch_that_nobody_waits_for_stops_and_tells_each_job_its_own_reason(searches: Searches):
    def cancel(_: int) -> None:
        searches.cancelled.add("cancelled")
        time.sleep(0.06)

    searches.on_part = cancel
    assert codes(searches.run(task("cancelled"), task("expired", expires_in_s=0.05))) == ["CANCELLED", "DEADLINE"]
    assert searches.parts == 1


def test_many_queries_are_searched_in_slices_so_that_a_cancel_is_noticed_within_a_segment(searches: Searches):
    searches.on_part = lambda _: searches.cancelled.add("long")
    assert codes(searches.run(task("long", queries=2_000))) == ["CANCELLED"]
    assert searches.parts == 1
    assert codes(searches.run(task("other", queries=2_000))) == [None]


def test_jobs_cancelled_before_they_begin_load_nothing(searches: Searches):
    searches.cancelled.add("b")
    assert codes(searches.run(task("b"))) == ["CANCELLED"]
    assert searches.parts == 0
