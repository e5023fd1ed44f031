"""What a lost consuming connection costs: jobs come again, and what was answered, or not begun, is not run twice."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest

import nearmq
from nearmq.amqp import apply_topology
from nearmq.client import Client
from nearmq.codec import decode_reply
from nearmq.jobs import CountJob, Reply, SearchJob, UpsertJob
from nearmq.topology import Names, declarations
from nearmq_index_store.catalog import Catalog
from nearmq_worker.batching import Task
from nearmq_worker.config import WorkerConfig
from nearmq_worker.execute import Executor
from nearmq_worker.service import Worker
from tests.gate import Gate
from tests.integration.peer import PATIENCE_S, Peer, eventually, peer
from tests.integration.test_settle import close_connection
from tests.servers import Broker

pytestmark = [pytest.mark.broker, pytest.mark.redis]

Working = Callable[[str], AbstractContextManager[Worker]]

VECTORS = np.eye(4, dtype=np.float32)


@pytest.fixture
def url(own_broker_url: str) -> str:
    apply_topology(own_broker_url, declarations())
    return own_broker_url


@pytest.fixture
def other(url: str) -> Iterator[Peer]:
    with peer(url) as other:
        other.channel.queue_declare("replies", durable=True)
        yield other


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with nearmq.connect(url, timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture
def working(url: str, redis_url: str) -> Working:
    """Runs a worker of a name, with one compute thread."""

    @contextmanager
    def running(name: str) -> Iterator[Worker]:
        worker = Worker(WorkerConfig(url=url, store=redis_url, name=name, threads=1))
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    return running


def lose(broker: Broker, worker: str) -> None:
    close_connection(broker, f"nearmq worker {worker} consuming")


def reply(other: Peer) -> Reply:
    return decode_reply(other.get("replies")[1])


def test_a_read_whose_reply_was_confirmed_is_answered_with_it_by_whoever_gets_it_again(
    working: Working, own_broker: Broker, other: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
):
    with working("one") as one:
        client.create_collection("books", dim=4, index="FLAT").upsert(range(4), VECTORS)
        gate = Gate.at(monkeypatch, Executor, "run")
        client.publish(SearchJob(collection="books", limit=2, vectors=VECTORS[:1]), reply_to="replies")
        gate.reached()
        assert one._receiver.stop_taking(PATIENCE_S)
        lose(own_broker, "one")
        eventually(lambda: other.count(Names().queue("search")) == 1, "the job is back in its queue")
        gate.open()
        first = reply(other)
        assert one._settler.flush(PATIENCE_S)
    with working("two"):
        again = reply(other)
        eventually(lambda: other.count(Names().queue("search")) == 0, "the job is done")
    assert gate.calls == 1
    assert (again.status, again.worker, again.job_id) == ("ok", "one", first.job_id)
    np.testing.assert_array_equal(again.hits[0].ids, first.hits[0].ids)
    assert other.count(Names().dead) == 0


def test_jobs_that_wait_when_their_connection_is_lost_are_run_once(
    working: Working, own_broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
):
    run_tasks, run_ids = Executor.run, []

    def run_noted(executor: Executor, tasks: Sequence[Task]) -> list[Reply]:
        run_ids.extend(task.delivery.message.message_id for task in tasks)
        return run_tasks(executor, tasks)

    with working("one") as one:
        client.create_collection("books", dim=4, index="FLAT").upsert(range(4), VECTORS)
        monkeypatch.setattr(Executor, "run", run_noted)
        gate = Gate.at(monkeypatch, Executor, "run")
        count = CountJob(collection="books", expr="id > 0")
        futures = [client.submit(count, job_id="running")]
        gate.reached()
        futures += [client.submit(count, job_id=f"{number}") for number in range(20)]
        eventually(lambda: len(one._engine._held.shown()) == 21, "the worker holds all")
        lose(own_broker, "one")
        eventually(lambda: len(one._engine._held.shown()) == 42, "all of them came again")
        gate.open()
        assert {future.result(PATIENCE_S).result["count"] for future in futures} == {3}
        eventually(lambda: one._engine._held.shown() == [], "no job is held")
    assert sorted(job_id for job_id in run_ids if job_id != "running") == sorted(f"{number}" for number in range(20))


def test_a_write_that_comes_again_takes_effect_once_and_returns_its_recorded_result(
    working: Working, own_broker: Broker, other: Peer, client: Client, monkeypatch: pytest.MonkeyPatch
):
    with working("one") as one:
        client.create_collection("books", dim=4, index="FLAT")
        gate = Gate.at(monkeypatch, Catalog, "write")
        client.publish(UpsertJob(collection="books", ids=[7], vectors=VECTORS[:1]), reply_to="replies")
        gate.reached()
        one._receiver.stop_taking(PATIENCE_S)
        lose(own_broker, "one")
        eventually(lambda: other.count(Names().queue("write")) == 1, "the job is back in its queue")
        gate.open()
        first = reply(other)
    with working("two"):
        again = reply(other)
        assert client.collection("books").describe()["version"] == first.version
    assert gate.calls == 2
    assert (first.worker, again.worker) == ("one", "two")
    assert (
        again.result == first.result == {"collection": "books", "version": first.version, "inserted": 1, "replaced": 0}
    )
