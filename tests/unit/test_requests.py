"""The client's pending jobs, over a transport that a test drives by hand."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from nearmq.bundles import BUNDLE_TYPE, join
from nearmq.codec import decode_job, encode_reply
from nearmq.errors import BrokerUnavailable, CollectionNotFound, Internal, QueueFull, ReplyTimeout
from nearmq.jobs import CancelJob, ErrorReply, Reply
from nearmq.requests import Requests, final
from nearmq.transport import ConnectionLost, Message, OnConfirm


class HandTransport:
    """Keeps what is published, and lets the test confirm, reply and reconnect."""

    reply_to = "replies"

    def __init__(self) -> None:
        self.published: list[tuple[Message, Future[None]]] = []
        self.on_reply: Callable[[Message], None]
        self.on_connected: Callable[[], None]

    def start(self, *, on_reply: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        self.on_reply, self.on_connected = on_reply, on_connected

    def publish(self, message: Message, on_confirm: OnConfirm) -> None:
        confirm: Future[None] = Future()
        confirm.add_done_callback(lambda done: on_confirm(done.exception()))  # type: ignore[arg-type]
        self.published.append((message, confirm))

    def stop(self) -> None: ...

    def answer(self, reply: Reply) -> None:
        self.on_reply(
            Message(
                routing_key="replies",
                type="reply",
                message_id="r",
                correlation_id=reply.job_id,
                body=encode_reply(reply),
            )
        )

    def answer_together(self, *bodies: bytes) -> None:
        self.on_reply(Message(routing_key="replies", type=BUNDLE_TYPE, message_id="r", body=join(bodies)))


@pytest.fixture
def transport() -> HandTransport:
    return HandTransport()


@pytest.fixture
def requests(transport: HandTransport) -> Iterator[Requests]:
    requests = Requests(transport, max_pending=2)
    requests.start()
    yield requests
    requests.stop()


def job(job_id: str) -> Message:
    return Message(routing_key="list", type="list", message_id=job_id, body=b"{}")


def test_a_reply_resolves_the_future_of_its_job(requests: Requests, transport: HandTransport):
    futures = [requests.submit(job(name), timeout_s=30, gather=final) for name in ("a", "b")]
    transport.answer(Reply(job_id="b", status="ok", version=7))
    assert futures[1].result(1).version == 7
    assert not futures[0].done()


def test_an_error_reply_raises_the_exception_of_its_code(requests: Requests, transport: HandTransport):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    error = ErrorReply(code="COLLECTION_NOT_FOUND", message="no collection 'x'", field="collection")
    transport.answer(Reply(job_id="a", status="error", error=error))
    with pytest.raises(CollectionNotFound, match="no collection 'x'") as caught:
        future.result(1)
    assert (caught.value.field, caught.value.job_id) == ("collection", "a")


def test_a_second_reply_and_a_reply_to_nobody_are_dropped(requests: Requests, transport: HandTransport):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    transport.answer(Reply(job_id="a", status="ok", version=1))
    transport.answer(Reply(job_id="a", status="ok", version=2))
    transport.answer(Reply(job_id="stranger", status="ok"))
    assert future.result(1).version == 1


def test_replies_that_come_together_resolve_each_the_future_of_its_job(requests: Requests, transport: HandTransport):
    futures = [requests.submit(job(name), timeout_s=30, gather=final) for name in ("a", "b")]
    answers = [Reply(job_id=name, status="ok", version=version) for version, name in enumerate(("b", "stranger", "a"))]
    transport.answer_together(*map(encode_reply, answers))
    assert [future.result(1).version for future in futures] == [2, 0]


def test_of_replies_that_come_together_one_that_cannot_be_read_fails_alone(
    requests: Requests, transport: HandTransport
):
    futures = [requests.submit(job(name), timeout_s=30, gather=final) for name in ("a", "b")]
    unknown = b'{"job_id": "a", "format": 99, "status": "ok"}'
    transport.answer_together(unknown, encode_reply(Reply(job_id="b", status="ok")))
    with pytest.raises(Internal, match="format 99") as caught:
        futures[0].result(1)
    assert caught.value.job_id == "a"
    assert futures[1].result(1).status == "ok"


@pytest.mark.parametrize("body", [b"[{]", b"7", b"{}", b"[7]", b'[{"job_id": ["a"]}]'])
def test_replies_that_are_no_list_of_replies_are_dropped_and_said(
    requests: Requests, transport: HandTransport, caplog: pytest.LogCaptureFixture, body: bytes
):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    transport.on_reply(Message(routing_key="replies", type=BUNDLE_TYPE, message_id="r", body=body))
    assert not future.done()
    assert "cannot be read" in caplog.text
    transport.answer(Reply(job_id="a", status="ok"))
    assert future.result(1)


def test_a_job_that_is_submitted_again_while_it_is_pending_ends_as_the_first(
    requests: Requests, transport: HandTransport
):
    futures = [requests.submit(job("a"), timeout_s=30, gather=final) for _ in range(2)]
    assert len(transport.published) == 1
    transport.answer(Reply(job_id="a", status="ok", version=7))
    assert [future.result(1).version for future in futures] == [7, 7]

    again = [requests.submit(job("a"), timeout_s=30, gather=final) for _ in range(2)]
    again[1].cancel()
    assert again[0].cancelled()


def test_unanswered_jobs_are_published_again_under_their_ids_after_a_reconnect(
    requests: Requests, transport: HandTransport
):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    answered = requests.submit(job("b"), timeout_s=30, gather=final)
    transport.published[0][1].set_exception(ConnectionLost("gone"))
    transport.answer(Reply(job_id="b", status="ok"))
    assert answered.result(1)
    transport.on_connected()
    assert [message.message_id for message, _ in transport.published] == ["a", "b", "a"]
    transport.answer(Reply(job_id="a", status="ok"))
    assert future.result(1).status == "ok"


def test_a_job_that_is_submitted_during_a_loss_does_not_overtake_those_before_it(
    requests: Requests, transport: HandTransport
):
    requests.submit(job("a"), timeout_s=30, gather=final)
    transport.published[0][1].set_exception(ConnectionLost("gone"))
    # The channel may be open again already, and the transport not yet have said so.
    requests.submit(job("b"), timeout_s=30, gather=final)
    assert [message.message_id for message, _ in transport.published] == ["a"]
    transport.on_connected()
    assert [message.message_id for message, _ in transport.published] == ["a", "a", "b"]


def test_a_confirmed_job_without_a_reply_times_out(requests: Requests, transport: HandTransport):
    future = requests.submit(job("a"), timeout_s=0.05, gather=final)
    transport.published[0][1].set_result(None)
    with pytest.raises(ReplyTimeout, match=r"0\.05 s") as caught:
        future.result(5)
    assert caught.value.job_id == "a"


def test_an_unconfirmed_job_times_out_as_broker_unavailable(requests: Requests):
    with pytest.raises(BrokerUnavailable, match="did not confirm"):
        requests.submit(job("a"), timeout_s=0.05, gather=final).result(5)


def test_an_earlier_timeout_than_the_pending_ones_is_kept(requests: Requests):
    late = requests.submit(job("late"), timeout_s=60, gather=final)
    early = requests.submit(job("early"), timeout_s=0.05, gather=final)
    with pytest.raises(BrokerUnavailable):
        early.result(5)
    assert not late.done()


def test_a_refused_job_fails_at_once(requests: Requests, transport: HandTransport):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    transport.published[0][1].set_exception(QueueFull("the queue is full"))
    with pytest.raises(QueueFull):
        future.result(1)


def test_the_bound_on_pending_jobs_holds_and_frees_again(requests: Requests, transport: HandTransport):
    first = requests.submit(job("a"), timeout_s=30, gather=final)
    requests.submit(job("b"), timeout_s=30, gather=final)
    with pytest.raises(QueueFull, match="2 jobs"):
        requests.submit(job("c"), timeout_s=0.05, gather=final)
    first.cancel()
    assert requests.submit(job("c"), timeout_s=1, gather=final)
    assert [message.message_id for message, _ in transport.published if message.type == "list"] == ["a", "b", "c"]


def test_the_workers_are_told_of_a_cancelled_future_unless_its_job_writes(requests: Requests, transport: HandTransport):
    write = Message(routing_key="upsert.books", type="upsert", message_id="w", body=b"{}")
    assert requests.submit(write, timeout_s=30, gather=final).cancel()
    assert requests.submit(job("a"), timeout_s=30, gather=final).cancel()
    assert [message.type for message, _ in transport.published] == ["upsert", "list", "cancel"]
    cancel = transport.published[-1][0]
    assert decode_job(cancel.type, cancel.routing_key, cancel.body) == CancelJob(job_ids=["a"])
    assert cancel.reply_to is None


def test_stopping_fails_what_is_pending(requests: Requests):
    future = requests.submit(job("a"), timeout_s=30, gather=final)
    requests.stop()
    with pytest.raises(BrokerUnavailable, match="closed"):
        future.result(1)
    with pytest.raises(BrokerUnavailable, match="closed"):
        requests.submit(job("b"), timeout_s=1, gather=final)


def test_publishing_returns_when_confirmed_and_tries_again_after_a_lost_connection(transport: HandTransport):
    requests = Requests(transport, max_pending=2)
    attempts = iter([ConnectionLost("gone"), None])

    def publish(message: Message, on_confirm: OnConfirm) -> None:
        transport.published.append((message, Future()))
        on_confirm(next(attempts))

    transport.publish = publish  # type: ignore[method-assign]
    requests.publish(job("a"), timeout_s=10)
    assert [message.message_id for message, _ in transport.published] == ["a", "a"]
