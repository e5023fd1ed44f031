"""How deliveries end, on a real broker: `nearmq_worker.receive` and `nearmq_worker.settle`."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pika
import pytest

from nearmq import bundles
from nearmq.amqp import Outgoing, apply_topology
from nearmq.dead_letters import QUEUE_HEADER, REASON_HEADER
from nearmq.errors import BrokerUnavailable
from nearmq.parts import Parts
from nearmq.topology import DIRECT_REPLY_TO, Names, declarations
from nearmq.transport import ConnectionLost, Message
from nearmq_worker.receive import Delivery, Receiver
from nearmq_worker.settle import AmqpSettler
from tests.integration.peer import PATIENCE_S, Peer, eventually, peer
from tests.servers import Broker

pytestmark = pytest.mark.broker

NAMES = Names()
SEARCH = NAMES.queue("search")
WORKER = "w1"
TAKES_BUNDLES = {bundles.HEADER: bundles.BUNDLE_TYPE}


@dataclass
class Worker:
    receiver: Receiver
    settler: AmqpSettler
    deliveries: "queue.Queue[Delivery]"

    def take(self) -> Delivery:
        return self.deliveries.get(timeout=PATIENCE_S)

    def wait_until_settled(self) -> None:
        assert self.settler.flush(timeout_s=PATIENCE_S)
        eventually(lambda: self.receiver.outstanding == 0, "every delivery settled")


@contextmanager
def working(
    url: str,
    *,
    name: str = WORKER,
    on_delivery: Callable[[Delivery], None] | None = None,
    prefetch_bytes: int = 1 << 28,
) -> Iterator[Worker]:
    deliveries: queue.Queue[Delivery] = queue.Queue()
    take = on_delivery or deliveries.put

    def take_all(several: Sequence[Delivery]) -> None:
        for delivery in several:
            take(delivery)

    receiver = Receiver(url, names=NAMES, worker=name, on_deliveries=take_all, prefetch_bytes=prefetch_bytes)
    settler = AmqpSettler(url, receiver, names=NAMES, worker=name, part_bytes=1_000)
    settler.start()
    try:
        receiver.start()
        yield Worker(receiver, settler, deliveries)
    finally:
        receiver.stop()
        settler.stop()


@pytest.fixture
def url(broker_url: str) -> str:
    apply_topology(broker_url, declarations())
    return broker_url


@pytest.fixture
def other(url: str) -> Iterator[Peer]:
    with peer(url) as other:
        other.channel.queue_declare("replies", durable=True)
        yield other


def test_a_queue_that_is_missing_says_how_to_make_it(url: str, other: Peer):
    other.channel.queue_delete(SEARCH)
    receiver = Receiver(url, names=NAMES, worker=WORKER, on_deliveries=lambda _: None)
    with pytest.raises(BrokerUnavailable, match=r"no queue 'nearmq.search' .* run `nearmq topology apply`"):
        receiver.start()
    assert not receiver.healthy()
    receiver.stop()


def test_a_delivery_holds_what_was_published(url: str, other: Peer):
    other.publish(
        "search.books",
        b"[1]",
        exchange=NAMES.jobs,
        type="search",
        message_id="job-1",
        correlation_id="c-1",
        reply_to="replies",
        content_type="application/json",
        timestamp=1_700_000_000,
        headers={"nearmq-deadline": 2**41, "traceparent": "00-1", "nested": {"a": 1}},
    )
    with working(url) as worker:
        delivery = worker.take()
        assert worker.receiver.healthy()
        worker.settler.answer(delivery, b"{}")
        worker.wait_until_settled()
    assert delivery.message == Message(
        routing_key="search.books",
        type="search",
        message_id="job-1",
        body=b"[1]",
        correlation_id="c-1",
        reply_to="replies",
        headers={"nearmq-deadline": 2**41, "traceparent": "00-1"},
        timestamp_s=1_700_000_000,
    )
    assert (delivery.queue, delivery.delivery_count, delivery.redelivered) == (SEARCH, 0, False)
    properties, body = other.get("replies")
    assert (properties.type, properties.correlation_id, properties.delivery_mode) == ("reply", "c-1", 2)
    assert properties.headers == {"traceparent": "00-1"}
    assert body == b"{}"


def test_a_job_is_acknowledged_only_when_its_reply_is_confirmed(own_broker: Broker, own_broker_url: str):
    apply_topology(own_broker_url, declarations())
    with peer(own_broker_url) as other, working(own_broker_url) as worker:
        other.channel.queue_declare("replies", durable=True)
        other.publish(SEARCH, message_id="job-1", reply_to="replies", delivery_mode=2)
        delivery = worker.take()
        # An alarm: the broker takes nothing from connections that publish, so the reply is not confirmed.
        own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
        try:
            worker.settler.answer(delivery, b"{}")
            assert not worker.settler.flush(timeout_s=1)
            assert worker.receiver.outstanding == 1
            close_connection(own_broker, f"nearmq worker {WORKER} publishing")
        finally:
            own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        # The reply was lost with its connection; it is published again, and then the job is acknowledged.
        worker.wait_until_settled()
        assert worker.receiver.is_current(delivery)
        assert other.get("replies")[0].correlation_id == "job-1"


def test_a_reply_whose_loss_is_told_after_the_connection_is_back_is_published_again(
    url: str, other: Peer, monkeypatch: pytest.MonkeyPatch
):
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", reply_to="replies", delivery_mode=2)
        lose_at_once(worker, monkeypatch)
        worker.settler.answer(worker.take(), b"{}")
        worker.wait_until_settled()
    assert other.get("replies")[0].correlation_id == "job-1"


def test_replies_that_are_lost_together_are_all_published_again(url: str, other: Peer, monkeypatch: pytest.MonkeyPatch):
    with working(url) as worker:
        for name in ("job-1", "job-2"):
            other.publish(SEARCH, message_id=name, reply_to="replies", delivery_mode=2, headers=TAKES_BUNDLES)
        lose_at_once(worker, monkeypatch)
        worker.settler.answer_all([(worker.take(), body) for body in (b"1", b"2")])
        worker.wait_until_settled()
    bodies = [other.get("replies")[1] for _ in range(other.count("replies"))]
    assert bodies in ([b"[1,2]"], [b"1", b"2"])  # the first may be on its way when the second is told


def lose_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is published next be lost, on a connection that is back by the time that this is told."""

    def lost_at_once(*messages: Outgoing) -> None:
        monkeypatch.undo()
        for outgoing in messages:
            outgoing.on_end(ConnectionLost("lost, and back by now"))

    monkeypatch.setattr(worker.settler._publisher, "publish", lost_at_once)


def close_connection(broker: Broker, name: str) -> None:
    for line in broker.rabbitmqctl("list_connections", "pid", "client_properties").splitlines():
        pid, _, properties = line.partition("\t")
        if f'"{name}"' in properties:
            broker.rabbitmqctl("close_connection", pid, "test")
            return
    raise AssertionError(f"no connection {name!r}")


def test_the_acknowledgement_of_a_lost_connection_is_not_sent(own_broker: Broker, own_broker_url: str):
    apply_topology(own_broker_url, declarations())
    with working(own_broker_url) as worker:
        with peer(own_broker_url) as other:
            other.publish(SEARCH, message_id="job-1", delivery_mode=2)
            other.publish(SEARCH, message_id="job-2", delivery_mode=2)
        stale = [worker.take(), worker.take()]
        close_connection(own_broker, f"nearmq worker {WORKER} consuming")
        fresh = [worker.take(), worker.take()]
        assert {delivery.tag for delivery in fresh} == {delivery.tag for delivery in stale}
        assert [delivery.generation for delivery in (*stale, *fresh)] == [1, 1, 2, 2]
        assert {delivery.delivery_count for delivery in fresh} == {1}
        # The same tags, now of other deliveries: acknowledging them would lose the jobs.
        for delivery in stale:
            assert not worker.receiver.is_current(delivery)
            worker.settler.answer(delivery, b"{}")
        worker.receiver.settle([fresh[0]], "reject")
        again = worker.take()
        assert (again.message.message_id, again.delivery_count) == (fresh[0].message.message_id, 2)
        assert worker.receiver.outstanding == 2
        for delivery in (fresh[1], again):
            worker.settler.answer(delivery, b"{}")
        worker.wait_until_settled()
        with peer(own_broker_url) as other:
            assert other.count(NAMES.dead) == 0


def test_a_reply_that_no_queue_takes_is_recorded_and_its_job_is_done(url: str, other: Peer):
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", reply_to="gone", delivery_mode=2)
        worker.settler.answer(worker.take(), b'{"the": "reply"}')
        worker.wait_until_settled()
    properties, body = other.get(NAMES.dead)
    assert (properties.type, properties.correlation_id, body) == ("reply", "job-1", b'{"the": "reply"}')
    assert own_headers(properties) == {REASON_HEADER: "there is no queue 'gone'", QUEUE_HEADER: SEARCH}
    assert other.count(SEARCH) == 0


def test_a_reply_that_its_queue_refuses_is_recorded_too(url: str, other: Peer):
    other.channel.queue_declare("full", durable=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", reply_to="full", delivery_mode=2)
        worker.settler.answer(worker.take(), b"{}")
        worker.wait_until_settled()
    assert other.get(NAMES.dead)[0].headers[REASON_HEADER].startswith("the queue for 'full' is full")


@pytest.mark.parametrize("reply_to", ["nearmq.search", "nearmq.dead", "amq.gen-x"])
def test_a_reply_address_of_nearmqs_or_the_brokers_own_is_never_published_to(url: str, other: Peer, reply_to: str):
    with working(url) as worker:
        other.publish(SEARCH, b"the job", message_id="job-1", reply_to=reply_to, delivery_mode=2)
        delivery = worker.take()
        worker.settler.progress(delivery, b"half")
        worker.settler.answer(delivery, b"the reply")
        worker.wait_until_settled()
    properties, body = other.get(NAMES.dead)
    assert (properties.message_id, body) == ("job-1", b"the job")
    assert properties.headers[REASON_HEADER].startswith(f"reply_to '{reply_to}'")
    assert other.count(SEARCH) == other.count(NAMES.dead) == 0


def test_of_a_jobs_headers_only_its_trace_reaches_the_reply(url: str, other: Peer):
    headers = {
        "CC": ["nearmq.write"],
        "BCC": ["nearmq.maintain"],
        "x-own": 1,
        "nearmq-part": "9/9",
        "traceparent": "00-1-2-3",
    }
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", reply_to="replies", headers=headers, delivery_mode=2)
        for _ in range(3):  # the broker gave a copy of the job to each queue that it named
            worker.settler.answer(worker.take(), b"{}")
        worker.wait_until_settled()
    for _ in range(3):
        assert own_headers(other.get("replies")[0]) == {"traceparent": "00-1-2-3"}
    assert other.count("nearmq.write") == other.count("nearmq.maintain") == 0


def own_headers(properties: pika.BasicProperties) -> dict[str, object]:
    """All but those of the queue that it was got from."""
    return {name: value for name, value in properties.headers.items() if not name.startswith("x-")}


def test_a_dead_job_keeps_its_properties_and_gets_its_reason(url: str, other: Peer):
    with working(url) as worker:
        headers = {"traceparent": "00-1", "nearmq-deadline": 5}
        other.publish(
            "search.books", b"poison", exchange=NAMES.jobs, type="search", message_id="job-1", headers=headers
        )
        worker.receiver.settle([worker.take()], "reject")
        worker.settler.dead(worker.take(), "it ended its process")
        worker.wait_until_settled()
    properties, body = other.get(NAMES.dead)
    assert (properties.type, properties.message_id, body) == ("search", "job-1", b"poison")
    assert own_headers(properties) == headers | {REASON_HEADER: "it ended its process", QUEUE_HEADER: SEARCH}


def test_a_failed_job_comes_again_and_ends_in_the_dead_letters(url: str, other: Peer):
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", delivery_mode=2)
        counts = []
        for _ in range(21):
            delivery = worker.take()
            counts.append(delivery.delivery_count)
            worker.receiver.settle([delivery], "reject")
        assert counts == list(range(21))
        properties, _ = other.get(NAMES.dead)
        assert properties.headers["x-death"][0]["reason"] == "delivery_limit"


def test_a_long_reply_comes_in_parts(url: str, other: Peer):
    body = bytes(range(256)) * 10
    with working(url) as worker:
        other.publish(SEARCH, message_id="job-1", reply_to="replies", delivery_mode=2)
        worker.settler.answer(worker.take(), body)
        worker.wait_until_settled()
    messages = [other.get("replies") for _ in range(3)]
    assert [properties.headers["nearmq-part"] for properties, _ in messages] == ["1/3", "2/3", "3/3"]
    parts = Parts()
    for properties, part in messages:
        whole = parts.add(
            Message(
                routing_key="replies",
                type="reply",
                message_id=properties.message_id,
                headers=properties.headers,
                body=part,
            )
        )
    assert whole == body


def test_replies_of_a_batch_go_together_to_who_takes_them_so(url: str, other: Peer):
    other.channel.queue_declare("elsewhere", durable=True)
    with working(url) as worker:

        def ask(name: str, reply_to: str = "replies", **properties: Any) -> None:
            other.publish(SEARCH, message_id=name, reply_to=reply_to, delivery_mode=2, **properties)

        ask("plain")
        ask("a", headers=TAKES_BUNDLES)
        ask("b", headers=TAKES_BUNDLES, correlation_id="b")
        ask("known otherwise", headers=TAKES_BUNDLES, correlation_id="mine")
        ask("alone", "elsewhere", headers=TAKES_BUNDLES)
        ask("long", headers=TAKES_BUNDLES)
        ask("c", headers=TAKES_BUNDLES | {"traceparent": "00-1"})
        bodies = [b"1", b"2", b"3", b"4", b"5", b"6" * 998, b"7"]
        worker.settler.answer_all(zip([worker.take() for _ in bodies], bodies, strict=True))
        worker.wait_until_settled()
    got = [other.get("replies") for _ in range(other.count("replies"))]
    assert [(properties.type, properties.correlation_id, body) for properties, body in got] == [
        ("reply", "plain", b"1"),
        ("reply", "mine", b"4"),
        ("replies", None, b"[2,3]"),
        ("reply", "long", b"6" * 998),
        ("reply", "c", b"7"),
    ]
    assert {properties.delivery_mode for properties, _ in got} == {2}
    assert len({properties.message_id for properties, _ in got}) == len(got)
    properties, body = other.get("elsewhere")
    assert (properties.type, properties.correlation_id, body) == ("reply", "alone", b"5")


def test_replies_that_no_queue_takes_are_recorded_each_for_itself(url: str, other: Peer):
    with working(url) as worker:
        for name in ("a", "b"):
            other.publish(SEARCH, message_id=name, reply_to="gone", delivery_mode=2, headers=TAKES_BUNDLES)
        worker.settler.answer_all([(worker.take(), body) for body in (b"1", b"2")])
        worker.wait_until_settled()
    got = [other.get(NAMES.dead) for _ in range(2)]
    assert [(properties.type, properties.correlation_id, body) for properties, body in got] == [
        ("reply", "a", b"1"),
        ("reply", "b", b"2"),
    ]
    assert {properties.headers[REASON_HEADER] for properties, _ in got} == {"there is no queue 'gone'"}
    assert other.count(SEARCH) == other.count(NAMES.dead) == 0


def test_direct_reply_to_is_served(url: str):
    with working(url) as worker, peer(url) as other:
        replies: list[bytes] = []

        other.channel.basic_consume(DIRECT_REPLY_TO, lambda *args: replies.append(args[-1]), auto_ack=True)
        other.publish(SEARCH, message_id="job-1", reply_to=DIRECT_REPLY_TO)
        delivery = worker.take()
        worker.settler.progress(delivery, b"half")
        worker.settler.answer(delivery, b"all")
        worker.wait_until_settled()
        eventually(lambda: other.channel.connection.process_data_events(0.05) or len(replies) == 2, "both replies")
        assert replies == [b"half", b"all"]
        assert other.count(NAMES.dead) == 0


def test_every_live_worker_gets_a_control_job(url: str, other: Peer):
    with working(url, name="w1") as one, working(url, name="w2") as two:
        other.publish("load.books", exchange=NAMES.jobs, message_id="job-1", reply_to="replies")
        for name, worker in {"w1": one, "w2": two}.items():
            delivery = worker.take()
            assert delivery.queue == NAMES.control_queue(name)
            worker.settler.answer(delivery, name.encode())
            worker.wait_until_settled()
    assert {other.get("replies")[1] for _ in range(2)} == {b"w1", b"w2"}


def test_a_queue_that_is_deleted_under_a_worker_makes_it_unhealthy_until_it_is_back(url: str, other: Peer):
    with working(url) as worker:
        other.channel.queue_delete(SEARCH)
        eventually(lambda: not worker.receiver.healthy(), "the loss noticed")
        apply_topology(url, declarations())
        eventually(worker.receiver.healthy, "consuming again")
        other.publish(SEARCH, message_id="job-1", delivery_mode=2)
        worker.settler.answer(worker.take(), b"{}")
        worker.wait_until_settled()


def test_a_consumer_that_the_broker_forgot_without_a_word_is_made_again(url: str, other: Peer):
    with working(url) as worker:
        consumer = worker.receiver._consumer

        def forget() -> None:
            for tag in list(consumer._channel._consumers):
                consumer._channel._send_method(pika.spec.Basic.Cancel(tag, nowait=True))

        worker.receiver._connection.call(forget)
        eventually(
            lambda: other.channel.queue_declare(SEARCH, passive=True).method.consumer_count == 0, "it is forgotten"
        )
        assert worker.receiver.healthy()
        worker.receiver.look()
        other.publish(SEARCH, message_id="job-1", delivery_mode=2)
        delivery = worker.take()
        assert delivery.generation == 2
        worker.settler.answer(delivery, b"{}")
        worker.wait_until_settled()


def test_bodies_are_held_up_to_the_bound_and_all_are_served(url: str, other: Peer):
    body_bytes, jobs, bound = 50_000, 60, 400_000
    for n in range(jobs):
        other.publish(SEARCH, bytes(body_bytes), message_id=str(n), delivery_mode=2)
    most_held, seen, served = 0, [], threading.Event()

    def on_delivery(delivery: Delivery) -> None:
        nonlocal most_held
        seen.append(delivery)
        waiting.append(delivery)
        most_held = max(most_held, len(waiting))
        if len({delivery.message.message_id for delivery in seen}) == jobs:
            served.set()

    waiting: list[Delivery] = []
    with working(url, on_delivery=on_delivery, prefetch_bytes=bound) as worker:
        while not served.wait(0.05) or waiting:
            while waiting:
                worker.settler.answer(waiting.pop(), b"{}")
        worker.wait_until_settled()
    assert most_held <= bound // body_bytes + 1
    assert len(seen) == jobs
    assert {delivery.delivery_count for delivery in seen} <= {0, 1}
    assert other.count(SEARCH) == 0


def test_a_stopping_worker_gives_back_what_it_has_not_begun(url: str, other: Peer):
    with working(url) as worker:
        for n in range(50):
            other.publish(SEARCH, message_id=str(n), reply_to="replies", delivery_mode=2)
        taken = [worker.take() for _ in range(50)]
        assert worker.receiver.stop_taking(timeout_s=PATIENCE_S)
        for delivery in taken[::2]:
            worker.settler.answer(delivery, b"{}")
        for delivery in taken[1::2]:
            worker.settler.give_back(delivery)
        assert worker.settler.flush(timeout_s=PATIENCE_S)
        worker.receiver.stop()
        worker.settler.stop()
        assert worker.deliveries.empty()
    assert (other.count(SEARCH), other.count("replies")) == (25, 25)


def test_stop_may_come_twice_or_before_start(broker_url: str):
    receiver = Receiver(broker_url, names=NAMES, worker=WORKER, on_deliveries=lambda _: None)
    settler = AmqpSettler(broker_url, receiver, names=NAMES, worker=WORKER, part_bytes=1_000)
    for _ in range(2):
        assert receiver.stop_taking(timeout_s=1)
        receiver.stop()
        settler.stop()
