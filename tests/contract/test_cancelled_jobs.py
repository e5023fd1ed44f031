"""Jobs are listed while a worker holds them, and cancelled: answered CANCELLED, with no harm to any other."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from nearmq.errors import Cancelled
from nearmq.jobs import BuildJob, CountJob, CreateJob, LoadJob, SearchJob, UpsertJob
from nearmq_index_store.catalog import Catalog
from nearmq_worker import maintenance, segment_search
from nearmq_worker.cache import SegmentCache
from tests.gate import Gate
from tests.integration.peer import PATIENCE_S, eventually
from tests.world import World

VECTORS = np.random.default_rng(1).standard_normal((40, 4), dtype=np.float32)
#: Compute threads of the world's worker.
THREADS = 2


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds every search of a segment."""
    gate = Gate(segment_search.search_part)
    monkeypatch.setattr(segment_search, "search_part", gate)
    yield gate
    gate.open()


@pytest.fixture
def books(world: World) -> World:
    world.client.create_collection("books", dim=4, index="FLAT")
    world.add("books", range(40), VECTORS, segments=6)
    return world


def search(limit: int = 3, **fields: Any) -> SearchJob:
    return SearchJob(collection="books", limit=limit, vectors=VECTORS[:2], **fields)


def states(world: World) -> dict[str, str]:
    return {job["job_id"]: job["state"] for job in world.client.jobs()}


def test_jobs_are_listed_while_a_worker_holds_them_and_not_after(books: World, gate: Gate):
    assert books.client.jobs() == []
    running = books.client.submit(search(), job_id="one")
    gate.reached()
    (job,) = books.client.jobs()
    assert job.pop("age_s") >= 0
    worker = next(iter(books.client.workers()))
    assert job == {
        "worker": worker,
        "job_id": "one",
        "type": "search",
        "collection": "books",
        "state": "running",
        "queries": 2,
        "attempt": 1,
    }
    gate.open()
    running.result(PATIENCE_S)
    eventually(lambda: books.client.jobs() == [], "no job is held")


def test_a_running_search_stops_at_the_next_segment(books: World, gate: Gate):
    future = books.client.submit(search(), job_id="one")
    gate.reached(THREADS)
    assert books.client.cancel("one") == {"one": "running"}
    gate.open()
    with pytest.raises(Cancelled) as caught:
        future.result(PATIENCE_S)
    assert caught.value.job_id == "one"
    assert gate.calls == THREADS, "segments were searched for nobody"


def test_a_count_that_runs_stops_at_the_next_segment(books: World, monkeypatch: pytest.MonkeyPatch):
    gate = Gate.at(monkeypatch, SegmentCache, "use_rows")
    future = books.client.submit(CountJob(collection="books", expr="id > 3"), job_id="one")
    gate.reached()
    assert books.client.cancel("one") == {"one": "running"}
    gate.open()
    with pytest.raises(Cancelled):
        future.result(PATIENCE_S)
    assert gate.calls == 1


def test_cancelling_its_future_stops_a_search_but_no_write(books: World, gate: Gate, monkeypatch: pytest.MonkeyPatch):
    future = books.client.submit(search(), job_id="one")
    gate.reached(THREADS)
    assert future.cancel()
    eventually(lambda: "one" in books.engine._cancelled, "the worker knows of it")
    gate.open()
    eventually(lambda: books.client.jobs() == [], "no job is held")
    assert gate.calls == THREADS

    writing = Gate.at(monkeypatch, Catalog, "write")
    write = books.client.submit(UpsertJob(collection="books", ids=[99], vectors=VECTORS[:1]))
    writing.reached()
    assert write.cancel()
    writing.open()
    eventually(lambda: books.client.collection("books").count() == 41, "the row is there")


def test_a_job_that_comes_after_its_cancel_is_not_run(books: World):
    assert books.client.cancel("late", "later") == {"late": "absent", "later": "absent"}
    for job in (search(), UpsertJob(collection="books", ids=[99], vectors=VECTORS[:1])):
        with pytest.raises(Cancelled):
            books.client.submit(job, job_id="late").result(PATIENCE_S)
    assert books.client.collection("books").count() == 40
    # A create takes but a moment, and what depends on it was published after it.
    partition = CreateJob(collection="books", partition_name="new")
    assert books.client.submit(partition, job_id="later").result(PATIENCE_S).status == "ok"


def test_a_waiting_write_is_not_done_and_a_committing_one_goes_on(books: World, monkeypatch: pytest.MonkeyPatch):
    gate = Gate.at(monkeypatch, Catalog, "write")
    writes = []
    for number in range(3):
        job = UpsertJob(collection="books", ids=[90 + number], vectors=VECTORS[:1])
        writes.append(books.client.submit(job, job_id=f"w{number}"))
        if number == 0:
            gate.reached()
    eventually(lambda: states(books) == {"w0": "running", "w1": "waiting", "w2": "waiting"}, "all are there")
    assert books.client.cancel("w0", "w1") == {"w0": "writing", "w1": "waiting"}
    gate.open()
    committed = writes[0].result(PATIENCE_S)
    with pytest.raises(Cancelled):
        writes[1].result(PATIENCE_S)
    writes[2].result(PATIENCE_S)
    assert books.client.collection("books").get([90, 91, 92]).ids.tolist() == [90, 92]
    # Delivered again, it tells what it did, cancelled or not.
    again = UpsertJob(collection="books", ids=[90], vectors=VECTORS[:1])
    assert books.client.submit(again, job_id="w0").result(PATIENCE_S).version == committed.version


def test_a_waiting_search_is_answered_at_once_though_every_thread_is_busy(books: World, gate: Gate):
    # The second thread is held by a search of another collection.
    books.client.create_collection("films", dim=4, index="FLAT")
    books.add("films", range(4), VECTORS[:4])
    held = [books.client.submit(search()), books.client.submit(SearchJob(collection="films", limit=1, ids=[1]))]
    gate.reached(THREADS + 1)
    waiting = [books.client.submit(search(), job_id=job_id) for job_id in ("one", "two")]
    eventually(lambda: states(books).get("two") == "waiting", "it waits")
    assert books.client.cancel("one") == {"one": "waiting"}
    with pytest.raises(Cancelled):
        waiting[0].result(PATIENCE_S)
    assert not any(future.done() for future in (*held, waiting[1]))
    gate.open()
    for future in (*held, waiting[1]):
        assert len(future.result(PATIENCE_S).hits[0].ids) > 0


def test_a_build_stops_between_its_steps_and_a_load_between_segments(books: World, monkeypatch: pytest.MonkeyPatch):
    compact_all = maintenance.compact_all
    step, pin = Gate(lambda: None), Gate.at(monkeypatch, SegmentCache, "pin")

    def stepping(*arguments: Any, on_progress: Callable[[Any], None], **options: Any) -> Any:
        def report(progress: Any) -> None:
            step()
            on_progress(progress)

        return compact_all(*arguments, on_progress=report, **options)

    monkeypatch.setattr(maintenance, "compact_all", stepping)
    jobs = {"build": BuildJob(collection="books"), "load": LoadJob(collection="books")}
    futures = {job_id: books.client.submit(job, job_id=job_id) for job_id, job in jobs.items()}
    step.reached()
    pin.reached()
    assert books.client.cancel("build", "load") == {"build": "running", "load": "running"}
    step.open()
    pin.open()
    for future in futures.values():
        with pytest.raises(Cancelled):
            future.result(PATIENCE_S)
    assert pin.calls < 6, "all segments were loaded, though some were yet to begin"
    assert len(books.catalog.snapshot("books").segments) == 6
