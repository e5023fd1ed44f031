"""The topology, the errors of connecting, and the client's transport, on a real broker."""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from nearmq.amqp import AmqpTransport, Connection, Publisher, Returned, apply_topology, check_topology
from nearmq.errors import BrokerUnavailable, InvalidArgument, NearmqError, PermissionDenied, QueueFull
from nearmq.topology import CONTROL_TYPES, QUEUE_TYPES, Names, QueueLimits, declarations, routing_key
from nearmq.transport import ConnectionLost, Message
from tests.confirms import published, sent
from tests.integration.peer import PATIENCE_S, eventually, peer
from tests.servers import Broker

pytestmark = pytest.mark.broker

NAMES = Names()


def job(job_type: str, key: str, *, job_id: str = "job-1", reply_to: str | None = None) -> Message:
    return Message(routing_key=key, type=job_type, message_id=job_id, reply_to=reply_to, body=b"{}")


@contextmanager
def started(url: str, *, connected: Callable[[], None] = lambda: None) -> Iterator[tuple[AmqpTransport, queue.Queue]]:
    replies: queue.Queue[Message] = queue.Queue()
    transport = AmqpTransport(url)
    transport.start(on_reply=replies.put, on_connected=connected)
    try:
        yield transport, replies
    finally:
        transport.stop()


@contextmanager
def publishing(url: str) -> Iterator[Publisher]:
    connection = Connection(
        url,
        name="test",
        on_open=lambda channel, ready: publisher.open(channel, ready),  # noqa: PLW0108  it is made below
        on_lost=lambda fault: publisher.lose(fault),  # noqa: PLW0108
    )
    publisher = Publisher(connection)
    connection.start()
    try:
        yield publisher
    finally:
        connection.stop()


# The topology


def test_applying_twice_is_applying_once(broker_url: str):
    topology = declarations()
    missing = check_topology(broker_url, topology)
    assert len(missing) == len(topology.exchanges) + len(topology.queues)
    assert "queue 'nearmq.search' is missing" in missing
    assert apply_topology(broker_url, topology) == missing
    assert apply_topology(broker_url, topology) == []
    assert check_topology(broker_url, topology) == []


def test_another_argument_is_named_with_both_values(broker_url: str):
    apply_topology(broker_url, declarations(limits=QueueLimits(deliveries=7)))
    named = "queue 'nearmq.search' exists with another 'x-delivery-limit': wanted 20, found 7"
    with pytest.raises(InvalidArgument, match=named) as caught:
        apply_topology(broker_url, declarations())
    assert caught.value.field == "x-delivery-limit"
    findings = check_topology(broker_url, declarations())
    assert any(finding.startswith(named) for finding in findings)
    assert not any("nearmq.dead" in finding for finding in findings)


def test_every_job_lands_in_exactly_one_queue(broker_url: str):
    apply_topology(broker_url, declarations())
    with peer(broker_url) as other, started(broker_url) as (transport, _):
        # A special pool: a binding on the jobs exchange takes its jobs away from the shared queue.
        other.channel.queue_declare("pool", durable=True)
        other.channel.queue_bind("pool", NAMES.jobs, "search.special")
        keys = [routing_key(kind, "books") for kinds in QUEUE_TYPES.values() for kind in kinds if kind != "list"]
        keys += ["list", "search.books.s017", "search.special", "bogus.books", "searching.books"]
        for key in keys:
            published(transport, job(key.partition(".")[0], key)).result(PATIENCE_S)
        queues = [NAMES.queue("search"), NAMES.queue("write"), NAMES.queue("maintain"), NAMES.dead, "pool"]
        landed = {name: other.count(name) for name in queues}
    assert landed == {
        "nearmq.search": len(QUEUE_TYPES["search"]) + 1,
        "nearmq.write": len(QUEUE_TYPES["write"]),
        "nearmq.maintain": len(QUEUE_TYPES["maintain"]),
        "nearmq.dead": 2,
        "pool": 1,
    }


@pytest.mark.parametrize("kind", CONTROL_TYPES)
def test_a_control_job_without_a_live_worker_fails_at_once(broker_url: str, kind: str):
    apply_topology(broker_url, declarations())
    with started(broker_url) as (transport, _):
        with pytest.raises(BrokerUnavailable, match=rf"nobody takes '{kind}.books' .* no worker is live"):
            published(transport, job(kind, f"{kind}.books")).result(PATIENCE_S)
        published(transport, job("search", "search.books")).result(PATIENCE_S)


def test_connecting_without_a_topology_says_how_to_apply_it(broker_url: str):
    transport = AmqpTransport(broker_url)
    with pytest.raises(BrokerUnavailable, match=r"no exchange 'nearmq.replies' .* run `nearmq topology apply`"):
        transport.start(on_reply=lambda _: None, on_connected=lambda: None)


# The connection's errors

FAULTS = [
    ("amqp://no-such-host.invalid", BrokerUnavailable, "host name 'no-such-host.invalid' cannot be resolved"),
    ("amqp://127.0.0.1:1", BrokerUnavailable, "connection to 127.0.0.1:1 was refused"),
    ("amqp://guest:hunter2@{broker}", PermissionDenied, "login of user 'guest' was refused"),
    ("amqp://nobody:hunter2@{broker}", PermissionDenied, "login of user 'nobody' was refused"),
    ("amqp://{broker}/no%2Fsuch", PermissionDenied, "virtual host 'no/such' does not exist"),
    ("amqps://{broker}", BrokerUnavailable, r"TLS: the handshake with .* failed"),
]


@pytest.mark.parametrize(("url", "kind", "message"), FAULTS)
def test_connection_errors_are_told_apart(broker_url: str, url: str, kind: type[NearmqError], message: str):
    url = url.format(broker=broker_url.partition("@")[2].partition("/")[0])
    with pytest.raises(kind, match=message) as caught:
        AmqpTransport(url).start(on_reply=lambda _: None, on_connected=lambda: None)
    assert "hunter2" not in repr(caught.value)
    with pytest.raises(kind, match=message) as caught:
        check_topology(url, declarations())
    assert "hunter2" not in repr(caught.value)


def test_permissions_that_lack_are_told_with_their_user(own_broker: Broker, own_broker_url: str):
    apply_topology(own_broker_url, declarations())
    own_broker.rabbitmqctl("add_user", "eve", "secret")
    url = own_broker_url.replace("guest:guest", "eve:secret")
    with pytest.raises(PermissionDenied, match="user 'eve' may not enter virtual host"):
        AmqpTransport(url).start(on_reply=lambda _: None, on_connected=lambda: None)
    virtual_host = url.rpartition("/")[2]
    own_broker.rabbitmqctl("set_permissions", "-p", virtual_host, "eve", *["^reply\\.eve\\.|^nearmq\\.replies$"] * 3)
    with (
        started(url) as (transport, _),
        pytest.raises(PermissionDenied, match=r"user 'eve' may not do this .* exchange 'nearmq.jobs'"),
    ):
        published(transport, job("search", "search.books")).result(PATIENCE_S)
    with pytest.raises(PermissionDenied, match="user 'eve' may not do this"):
        apply_topology(url, declarations(prefix="other"))


def test_jobs_that_are_not_confirmed_when_the_reply_queue_goes_may_be_published_again(broker_url: str):
    apply_topology(broker_url, declarations())
    errors: list[BaseException] = []

    def is_seen() -> bool:
        with started(broker_url) as (transport, _):
            confirms = [published(transport, job("search", "search.books")) for _ in range(200)]
            transport._connection.call(lambda: transport._channel.queue_delete(transport.reply_to))
            errors.extend(filter(None, (confirm.exception(PATIENCE_S) for confirm in confirms)))
        return any("cancelled consumer" in str(error) for error in errors)

    eventually(is_seen, "the queue goes before a confirm")
    assert {type(error) for error in errors} == {ConnectionLost}


@contextmanager
def dying_port() -> Iterator[int]:
    """A port on which every connection is closed at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def close_all() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=close_all)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_of_several_hosts_the_first_that_is_a_broker_is_taken(broker_url: str):
    login, _, place = broker_url.rpartition("@")
    with dying_port() as port:
        url = f"{login}@127.0.0.1:1,127.0.0.1:{port},{place}"
        assert apply_topology(url, declarations())
        assert check_topology(url, declarations()) == []
        for _ in range(5):  # it begins with any of them
            with started(url) as (transport, _):
                published(transport, job("search", "search.books")).result(PATIENCE_S)
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1"):
            AmqpTransport(f"amqp://127.0.0.1:1,127.0.0.1:{port}").start(
                on_reply=lambda _: None, on_connected=lambda: None
            )


# Confirms


def test_a_full_queue_refuses_the_message(broker_url: str):
    with peer(broker_url) as other, publishing(broker_url) as publisher:
        arguments = {"x-queue-type": "quorum", "x-max-length": 5, "x-overflow": "reject-publish"}
        other.channel.queue_declare("small", durable=True, arguments=arguments)
        outcomes = [sent(publisher, "", job("search", "small", job_id=str(n))).exception(PATIENCE_S) for n in range(12)]
        assert other.count("small") == sum(outcome is None for outcome in outcomes)
    assert [type(outcome) for outcome in outcomes[:5]] == [type(None)] * 5
    assert [type(outcome) for outcome in outcomes[8:]] == [QueueFull] * 4


def test_of_a_burst_only_what_no_queue_took_is_returned(broker_url: str):
    with peer(broker_url) as other, publishing(broker_url) as publisher:
        other.channel.queue_declare("there", durable=True)
        confirms: list[Future[None]] = [
            sent(publisher, "", job("search", "gone" if n % 7 == 0 else "there", job_id=str(n))) for n in range(700)
        ]
        outcomes = [confirm.exception(PATIENCE_S) for confirm in confirms]
        assert other.count("there") == 600
    assert {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Returned)} == set(range(0, 700, 7))
    assert sum(outcome is None for outcome in outcomes) == 600


def test_a_property_that_amqp_cannot_carry_fails_alone(broker_url: str):
    apply_topology(broker_url, declarations())
    with started(broker_url) as (transport, _):
        refused = published(transport, job("search", "search.books", job_id="x" * 256))
        taken = published(transport, job("search", "search.books"))
        assert isinstance(refused.exception(PATIENCE_S), InvalidArgument)
        assert taken.result(PATIENCE_S) is None


# Losing the connection


def test_after_a_loss_the_client_has_the_replies_that_came_meanwhile(own_broker: Broker, own_broker_url: str):
    apply_topology(own_broker_url, declarations())
    connects: queue.Queue[None] = queue.Queue()
    with started(own_broker_url, connected=lambda: connects.put(None)) as (transport, replies):
        connects.get(timeout=PATIENCE_S)
        own_broker.rabbitmqctl("close_all_connections", "--global", "test")
        with peer(own_broker_url) as other:
            other.publish(transport.reply_to, b"meanwhile", type="reply", correlation_id="job-1", delivery_mode=2)
        connects.get(timeout=PATIENCE_S)
        reply = replies.get(timeout=PATIENCE_S)
        assert (reply.body, reply.correlation_id) == (b"meanwhile", "job-1")
        published(transport, job("search", "search.books")).result(PATIENCE_S)
        with peer(own_broker_url) as other:
            eventually(lambda: other.count(transport.reply_to) == 0, "the reply acknowledged")
            assert other.count(NAMES.queue("search")) == 1


def test_a_job_that_is_not_confirmed_when_the_broker_dies_fails_as_lost(own_broker: Broker, own_broker_url: str):
    apply_topology(own_broker_url, declarations())
    connects: queue.Queue[None] = queue.Queue()
    with started(own_broker_url, connected=lambda: connects.put(None)) as (transport, _):
        connects.get(timeout=PATIENCE_S)
        # An alarm: the broker takes nothing from publishing connections, so the job stays unconfirmed.
        own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
        confirm = published(transport, job("search", "search.books"))
        own_broker.kill()
        with pytest.raises(ConnectionLost):
            confirm.result(PATIENCE_S)
        with pytest.raises(ConnectionLost):
            published(transport, job("search", "search.books")).result(PATIENCE_S)
        own_broker.start()
        connects.get(timeout=PATIENCE_S)
        published(transport, job("search", "search.books")).result(PATIENCE_S)


def test_the_reply_queue_goes_with_its_client(broker_url: str):
    apply_topology(broker_url, declarations())
    with started(broker_url) as (transport, _), publishing(broker_url) as publisher:
        reply = job("reply", transport.reply_to)
        assert sent(publisher, "", reply).result(PATIENCE_S) is None
        transport.stop()
        with pytest.raises(Returned, match=r"there is no queue 'reply\.guest\."):
            sent(publisher, "", reply).result(PATIENCE_S)
