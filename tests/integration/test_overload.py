"""More jobs than workers: what is refused, who waits for whom, and what a worker's memory holds (docs/overload.md)."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.amqp import apply_topology, check_topology
from nearmq.cli import run
from nearmq.client import Client
from nearmq.errors import DeadlineExceeded, QueueFull
from nearmq.job_ids import new_job_id
from nearmq.jobs import CountJob, Reply, SearchJob
from nearmq.pools import Pool, with_pools
from nearmq.topology import Names, QueueLimits, declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_worker.batching import Task
from nearmq_worker.config import WorkerConfig
from nearmq_worker.execute import Executor
from nearmq_worker.service import Worker
from tests.gate import Gate
from tests.integration.peer import PATIENCE_S, eventually, peer
from tests.worker_process import worker_process
from tests.world import amqp_world, fill

pytestmark = [pytest.mark.broker, pytest.mark.redis]

DIM = 64
VECTORS = np.random.default_rng(1).standard_normal((1_000, DIM), dtype=np.float32)


def fill_store(store_url: str, *collections: str) -> None:
    """Make collections without any worker."""
    store = open_store(store_url)
    field = VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="FLAT"))
    for name in collections:
        Catalog(store).create(name, Schema(vector_fields=(field,)), job_id=f"fill-{name}")
        fill(store, name, range(len(VECTORS)), VECTORS)


@contextmanager
def worker(broker_url: str, store_url: str, **settings: Any) -> Iterator[Worker]:
    worker = Worker(WorkerConfig(url=broker_url, store=store_url, threads=2, **settings))
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def search(collection: str, *, queries: int = 1) -> SearchJob:
    return SearchJob(collection=collection, limit=1, vectors=VECTORS[:queries])


def is_taken(client: Client, job: SearchJob, job_id: str) -> bool:
    """Publish a job that was refused again, as its publisher would after a pause."""
    try:
        return client.submit(job, job_id=job_id).result(PATIENCE_S).status == "ok"
    except QueueFull:
        return False


def test_a_full_queue_refuses_jobs_with_a_typed_error_and_those_it_took_are_all_answered(
    broker_url: str, redis_url: str
):
    apply_topology(broker_url, declarations(limits=QueueLimits(queue_bytes=1 << 20)))
    fill_store(redis_url, "books")
    with nearmq.connect(broker_url) as client:
        job = search("books", queries=1_000)  # some 340 kB
        futures: dict[str, Future[Reply]] = {}

        def is_full() -> bool:
            # One at a time: a quorum queue tells publishers that it is full a moment after, and takes what came before.
            job_id = new_job_id()
            futures[job_id] = client.submit(job, job_id=job_id, timeout_s=PATIENCE_S)
            return any(future.done() for future in futures.values())

        eventually(is_full, "the queue refuses a job")
        with worker_process(broker_url, redis_url):
            assert not wait(futures.values(), PATIENCE_S).not_done
            refused = {job_id: future.exception() for job_id, future in futures.items() if future.exception()}
            assert 0 < len(refused) < 20
            for job_id, error in refused.items():
                assert isinstance(error, QueueFull)
                assert (error.code, error.retryable, error.job_id) == ("QUEUE_FULL", True, job_id)
                assert error.message == "the queue for 'search.books' is full"
            for job_id in refused:
                eventually(partial(is_taken, client, job, job_id), "the queue has room again")


def test_a_client_that_is_ahead_of_its_replies_waits_and_then_says_so(broker_url: str):
    apply_topology(broker_url, declarations())
    with nearmq.connect(broker_url, max_pending=3) as client:
        for _ in range(3):
            client.submit(search("books"))
        with pytest.raises(QueueFull, match="3 jobs of this client await a reply"):
            client.submit(search("books"), timeout_s=0.1)


def test_a_flood_of_one_collection_delays_a_job_of_another_by_no_more_than_a_turn(
    broker_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    run_tasks, begun = Executor.run, []

    def run_noted(executor: Executor, tasks: Sequence[Task]) -> list[Reply]:
        begun.append(tasks[0].delivery.message.message_id)
        return run_tasks(executor, tasks)

    monkeypatch.setattr(Executor, "run", run_noted)
    gate = Gate.at(monkeypatch, Executor, "run")
    with amqp_world(broker_url, redis_url, threads=2) as world:
        fill_store(redis_url, "books", "films")
        # Counts with an expression are batched with nothing, so each is a turn.
        jobs = {f"film {number}": CountJob(collection="films", expr="id > 1") for number in range(200)}
        jobs |= {"book": CountJob(collection="books", expr="id > 1")}
        futures = [world.client.submit(job, job_id=job_id) for job_id, job in jobs.items()]
        eventually(lambda: any(job["job_id"] == "book" for job in world.client.jobs()), "the worker has all of them")
        gate.open()
        assert {future.result(PATIENCE_S).status for future in futures} == {"ok"}
    # Two films were running, and the next turn of films was perhaps before that of books.
    assert begun.index("book") <= 4


def test_a_pool_answers_its_collections_while_the_shared_queue_is_flooded(
    broker_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["topology", "apply", "--url", broker_url, "--pool", "hot=books,maps"]) == 0
    assert "5 exchanges, 5 queues, 30 bindings" in capsys.readouterr().out
    assert check_topology(broker_url, with_pools(declarations(), Names(), [Pool.read("hot=books,maps")])) == []
    fill_store(redis_url, "books", "films")
    with nearmq.connect(broker_url, timeout_s=PATIENCE_S) as client, peer(broker_url) as other:
        flood = [client.submit(search("films")) for _ in range(300)]
        eventually(lambda: other.count("nearmq.search") == 300, "the shared queue is flooded")
        with worker(broker_url, redis_url, name="hot", queues=("nearmq.hot",)):
            found = client.collection("books").search(VECTORS[:1], limit=1)
            assert found[0].ids.tolist() == [0]
            assert client.collection("books").count() == 1_000
            assert not any(future.done() for future in flood)
            assert other.count("nearmq.search") == 300
        with worker(broker_url, redis_url, name="shared"):
            assert {future.result(PATIENCE_S).status for future in flood} == {"ok"}


def test_jobs_that_expired_in_the_queue_load_nothing_and_the_budget_holds(broker_url: str, redis_url: str):
    budget = 16 << 20
    with amqp_world(broker_url, redis_url, memory_bytes=budget, threads=2) as world:
        collection = world.client.create_collection("books", dim=DIM, index="FLAT")
        rows = np.random.default_rng(2).standard_normal((150_000, DIM), dtype=np.float32)  # 38 MB, in six segments
        world.add("books", range(len(rows)), rows, segments=6)
        for _ in range(3):
            with pytest.raises(DeadlineExceeded, match="after its deadline"):
                world.reply_to(search("books"), headers={"nearmq-deadline": 1})
        assert world.cache().misses == 0
        futures = [collection.submit(rows[number], limit=1) for number in range(40)]
        most = 0
        while not all(future.done() for future in futures):
            most = max(most, world.cache().bytes)
        assert [future.result()[0].ids.tolist() for future in futures] == [[number] for number in range(40)]
        assert 0 < most <= budget
        assert world.cache().evictions > 0
