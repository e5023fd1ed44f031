"""What every `Transport` promises its client."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager

import pytest

from nearmq.amqp import AmqpTransport
from nearmq.codec import encode_job
from nearmq.errors import BrokerUnavailable
from nearmq.job_ids import new_job_id
from nearmq.jobs import ListJob
from nearmq.transport import Message, Transport
from nearmq_worker.config import WorkerConfig
from nearmq_worker.embedded import EmbeddedTransport
from tests.confirms import published
from tests.contract.echo import echo_worker

PATIENCE_S = 60


@contextmanager
def _amqp(request: pytest.FixtureRequest) -> Iterator[Transport]:
    url = request.getfixturevalue("broker_url")
    with echo_worker(url):
        yield AmqpTransport(url)


@contextmanager
def _embedded(_: pytest.FixtureRequest) -> Iterator[Transport]:
    yield EmbeddedTransport(WorkerConfig(store="memory:"))


#: Each adapter: a transport that is not started, with somebody behind it who answers a `list` job.
ADAPTERS: Mapping[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Transport]]] = {
    "amqp": _amqp,
    "embedded": _embedded,
}


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.broker] if name == "amqp" else []) for name in ADAPTERS])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    with ADAPTERS[request.param](request) as transport:
        yield transport
        transport.stop()


@pytest.fixture
def replies(transport: Transport) -> "queue.Queue[Message]":
    """The replies of the transport, started."""
    replies: queue.Queue[Message] = queue.Queue()
    transport.start(on_reply=replies.put, on_connected=lambda: None)
    return replies


def list_job(reply_to: str | None, *, correlation_id: str | None = None) -> Message:
    return Message(
        routing_key="list",
        type="list",
        message_id=new_job_id(),
        correlation_id=correlation_id,
        reply_to=reply_to,
        body=encode_job(ListJob()),
    )


def test_a_job_is_confirmed_and_answered_under_its_id(transport: Transport, replies: "queue.Queue[Message]"):
    job = list_job(transport.reply_to)
    assert published(transport, job).result(PATIENCE_S) is None
    reply = replies.get(timeout=PATIENCE_S)
    assert (reply.type, reply.correlation_id) == ("reply", job.message_id)
    assert reply.message_id != job.message_id


def test_a_reply_carries_the_correlation_id_of_its_job(transport: Transport, replies: "queue.Queue[Message]"):
    published(transport, list_job(transport.reply_to, correlation_id="mine")).result(PATIENCE_S)
    assert replies.get(timeout=PATIENCE_S).correlation_id == "mine"


def test_every_job_of_many_threads_is_answered(transport: Transport, replies: "queue.Queue[Message]"):
    jobs = [list_job(transport.reply_to) for _ in range(800)]
    confirms: list[Future[None]] = []
    threads = [
        threading.Thread(target=lambda part=jobs[n::4]: confirms.extend(published(transport, job) for job in part))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for confirm in confirms:
        confirm.result(PATIENCE_S)
    answered = {replies.get(timeout=PATIENCE_S).correlation_id for _ in jobs}
    assert answered == {job.message_id for job in jobs}


def test_a_job_without_reply_address_is_taken_all_the_same(transport: Transport, replies: "queue.Queue[Message]"):
    published(transport, list_job(None)).result(PATIENCE_S)
    asked = list_job(transport.reply_to)
    published(transport, asked).result(PATIENCE_S)
    assert replies.get(timeout=PATIENCE_S).correlation_id == asked.message_id


def test_the_client_is_told_when_it_is_connected(transport: Transport):
    connected = threading.Event()
    transport.start(on_reply=lambda _: None, on_connected=connected.set)
    assert connected.wait(PATIENCE_S)


def test_the_reply_address_is_there_before_the_start_and_stays(transport: Transport):
    before = transport.reply_to
    transport.start(on_reply=lambda _: None, on_connected=lambda: None)
    assert before == transport.reply_to


@pytest.mark.usefixtures("replies")
def test_stop_may_come_twice_and_then_nothing_is_published(transport: Transport):
    transport.stop()
    transport.stop()
    with pytest.raises(BrokerUnavailable):
        published(transport, list_job(transport.reply_to)).result(PATIENCE_S)


def test_stop_may_come_before_start(transport: Transport):
    transport.stop()
    with pytest.raises(BrokerUnavailable):
        published(transport, list_job(transport.reply_to)).result(PATIENCE_S)
