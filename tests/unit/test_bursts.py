"""Frames as pika's own: deliveries cut anywhere arrive whole and in order, messages are sent byte for byte the same."""

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pika
import pytest
from pika import frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport
from pika.channel import Channel

from nearmq.amqp.address import APP_ID
from nearmq.amqp.bursts import BurstConnection, BurstLoop
from nearmq.amqp.messages import decode_properties, encode_properties
from nearmq.transport import Message

MOST = 4_096  # bytes of a body's frame
PROPERTIES = {
    "type": "search",
    "message_id": "job-1",
    "correlation_id": "job-1",
    "reply_to": "reply.me",
    "content_type": "application/json",
    "delivery_mode": 2,
    "headers": {"nearmq-deadline": 1 << 40, "traceparent": "é"},
    "timestamp": 1_700_000_000,
}
TEXTS = [
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
]


class Unconnected(BurstConnection):
    """Takes what it is given for what came, and keeps what it would send."""

    def __init__(self) -> None:
        super().__init__(pika.ConnectionParameters(), internal_connection_workflow=False)
        self._body_max_length = MOST
        self.sent: list[bytes] = []
        self.delivered: list[tuple[int, str | None, dict[str, Any] | None, bytes]] = []
        self.channel = Channel(self, 1, lambda _: None)
        self.channel._set_state(Channel.OPEN)
        self.channel._consumers["tag"] = lambda _, method, properties, body: self.delivered.append(
            (method.delivery_tag, properties.message_id, properties.headers, body)
        )
        self._channels[1] = self.channel

    def _adapter_emit_data(self, data: bytes) -> None:
        self.sent.append(data)


@pytest.fixture
def connections() -> Iterator[Callable[[], Unconnected]]:
    """Make connections, and free what their loops hold."""
    with ExitStack() as stack:

        def make() -> Unconnected:
            connection = Unconnected()
            stack.callback(connection.ioloop.close)
            return connection

        yield make


def ack(tag: int) -> bytes:
    encoded: bytes = frame.Method(1, spec.Basic.Ack(delivery_tag=tag, multiple=tag % 2 == 0)).marshal()
    return encoded


def delivery(tag: int, body: bytes, **properties: Any) -> list[bytes]:
    method = spec.Basic.Deliver(
        consumer_tag="tag", delivery_tag=tag, exchange="nearmq.jobs", routing_key="search.books"
    )
    return [
        frame.Method(1, method).marshal(),
        frame.Header(1, len(body), pika.BasicProperties(**properties)).marshal(),
        *(frame.Body(1, body[start : start + MOST]).marshal() for start in range(0, len(body), MOST)),
    ]


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_deliveries_that_are_cut_anywhere_arrive_whole_and_in_order(
    seed: int, is_told: bool, connections: Callable[[], Unconnected]
):
    chance = random.Random(seed)
    connection = connections()
    confirmed: list[tuple[int, bool]] = []
    if is_told:
        connection.on_ack(1, lambda tag, is_multiple: confirmed.append((tag, is_multiple)))
    else:
        connection.callbacks.add(
            1,
            spec.Basic.Ack,
            lambda given: confirmed.append((given.method.delivery_tag, given.method.multiple)),
            one_shot=False,
        )
    frames, expected = [], []
    for tag in range(1, 60):
        body = chance.randbytes(chance.choice([0, 1, 700, MOST, MOST + 1, 3 * MOST]))
        own = delivery(tag, body, message_id=f"job-{tag}", headers={"number": tag})
        if chance.random() < 0.2:  # a heartbeat may come between the frames of a message
            own.insert(chance.randrange(len(own)), frame.Heartbeat().marshal())
        if chance.random() < 0.3:
            own.insert(0, ack(tag))
        frames += own
        expected.append((tag, f"job-{tag}", {"number": tag}, body))
    stream = b"".join(frames)
    at = 0
    while at < len(stream):
        size = chance.choice([1, 7, 100, 5_000, 40_000])
        connection._on_data_available(stream[at : at + size])
        at += size
    assert connection.delivered == expected
    assert confirmed == [(tag, tag % 2 == 0) for tag in range(1, 60) if ack(tag) in frames]
    assert (connection.bytes_received, connection.frames_received) == (len(stream), len(frames))


def test_of_what_comes_at_once_the_end_is_told_and_before_a_frame_of_another_kind(
    connections: Callable[[], Unconnected],
):
    connection = connections()
    told: list[int] = []
    connection.on_ack(1, lambda *_: None)
    connection.after_read(lambda: told.append(len(connection.delivered)))
    frames = [*delivery(1, b"one"), *delivery(2, b"two"), ack(1), frame.Heartbeat().marshal(), *delivery(3, b"three")]
    connection._on_data_available(b"".join(frames))
    assert told == [2, 3]


def test_a_delivery_for_a_channel_that_is_gone_is_passed_over(connections: Callable[[], Unconnected]):
    connection = connections()
    del connection._channels[1]
    connection._on_data_available(b"".join(delivery(1, b"body")))
    assert not connection.delivered
    assert not connection._frame_buffer


def test_a_frame_without_its_end_mark_is_an_error(connections: Callable[[], Unconnected]):
    connection = connections()
    connection.on_ack(1, lambda *_: pytest.fail("told of a broken frame"))
    for frames in ([*delivery(1, b"body")], [ack(1)]):
        broken = bytearray(b"".join(frames))
        broken[-1] = 0
        with pytest.raises(pika.exceptions.InvalidFrameError):
            connection._on_data_available(bytes(broken))


@pytest.mark.parametrize("size", [0, 1, MOST, MOST + 1, 3 * MOST])
@pytest.mark.parametrize("mandatory", [False, True])
def test_a_message_is_sent_as_pika_sends_it(size: int, mandatory: bool, connections: Callable[[], Unconnected]):
    body, properties = random.Random(size).randbytes(size), pika.BasicProperties(**PROPERTIES)
    ours, theirs = connections(), connections()
    encoded = b"".join(properties.encode())
    ours.publish(1, "nearmq.jobs", "search.books", encoded, body, mandatory=mandatory)
    theirs.channel.basic_publish("nearmq.jobs", "search.books", body, properties, mandatory)
    assert b"".join(ours.sent) == b"".join(theirs.sent)
    assert ours.bytes_sent == theirs.bytes_sent > size


def test_a_message_that_cannot_be_encoded_is_not_sent_at_all(connections: Callable[[], Unconnected]):
    connection = connections()
    with pytest.raises(pika.exceptions.ShortStringTooLong):
        connection.publish(1, "", "q" * 256, b"".join(pika.BasicProperties().encode()), b"body", mandatory=False)
    assert not connection.sent


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"correlation_id": None, "reply_to": None, "content_type": None, "headers": {}},
        {"content_encoding": "utf-8", "type": "reply"},
        {"content_encoding": "utf-8", "content_type": None, "reply_to": None},
        {"message_id": "ü" * 127, "correlation_id": "", "reply_to": "a" * 255},
        {"headers": {"nearmq-deadline": 7, "a": -(1 << 40), "b": "ü" * 300}},
        {"headers": {"least": -(1 << 31), "most": (1 << 31) - 1, "less": -(1 << 31) - 1, "more": 1 << 31, "is": True}},
    ],
)
def test_properties_are_encoded_as_pika_encodes_them(changes: dict[str, Any]):
    given = {name: value for name, value in PROPERTIES.items() if name not in {"delivery_mode", "timestamp"}} | changes
    message = Message(routing_key="search.books", body=b"", timestamp_s=1_700_000_000, **given)
    theirs = pika.BasicProperties(**PROPERTIES | {"app_id": APP_ID} | changes)
    assert encode_properties(message) == b"".join(theirs.encode())


HEADERS: dict[str, Any] = {
    "text": "é" * 300,
    "empty": "",
    "small": -7,
    "large": 1 << 40,
    "is": True,
    "when": datetime(2026, 1, 2, tzinfo=UTC),
    "nested": {"a": [1, "b", None, {"c": Decimal("1.5")}]},
    "bytes": b"\xff",
}


@pytest.mark.parametrize("seed", range(200))
def test_properties_are_decoded_as_pika_decodes_them(seed: int):
    chance = random.Random(seed)

    def text() -> str:
        return chance.choice(["", "a", "ü" * 127, "x" * 255, "application/json"])

    given: dict[str, Any] = {name: text() for name in TEXTS}
    given |= {
        "delivery_mode": chance.randrange(3),
        "priority": chance.randrange(256),
        "timestamp": chance.getrandbits(60),
    }
    given["headers"] = dict(chance.sample(sorted(HEADERS.items()), chance.randrange(len(HEADERS) + 1)))
    for name in chance.sample(sorted(given), chance.randrange(len(given) + 1)):
        del given[name]
    encoded = b"".join(pika.BasicProperties(**given).encode())
    theirs = pika.BasicProperties()
    theirs.decode(encoded)
    assert vars(decode_properties(encoded)) == vars(theirs)


@pytest.mark.parametrize("name", ["type", "headers"])
def test_text_that_is_no_utf_8_is_decoded_as_pika_decodes_it(name: str):
    encoded = b"".join(pika.BasicProperties(**{name: {"a": "??"} if name == "headers" else "??"}).encode())
    encoded = encoded.replace(b"??", b"\xff\xfe")
    theirs = pika.BasicProperties()
    theirs.decode(encoded)
    assert vars(decode_properties(encoded)) == vars(theirs)


@pytest.mark.parametrize(
    "changes",
    [{"message_id": 7}, {"message_id": "a" * 256}, {"type": None}, {"reply_to": "ü" * 128}, {"type": "\ud800"}],
)
def test_properties_that_amqp_cannot_carry_are_refused(changes: dict[str, Any]):
    message = Message(**{"routing_key": "search.books", "type": "search", "message_id": "job", "body": b""} | changes)
    with pytest.raises((pika.exceptions.AMQPError, TypeError, ValueError)):
        encode_properties(message)


def test_what_the_socket_takes_is_sent_at_once_and_the_rest_once_it_takes_more():
    ours, theirs = socket.socketpair()
    loop = BurstLoop()
    connection = BurstConnection(pika.ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False)
    ours.setblocking(False)
    transport = _AsyncPlaintextTransport(ours, connection, connection._nbio)
    loop.activate_poller()
    connection._proto_connection_made(transport)  # sends the protocol's header
    with ours, theirs:
        connection.collect(lambda: [connection._adapter_emit_data(piece) for piece in (b"one", b"two")])
        assert theirs.recv(100) == b"AMQP\0\0\x09\x01onetwo"
        sent = random.Random(0).randbytes(4 << 20)
        connection.collect(lambda: [connection._adapter_emit_data(piece) for piece in (sent, b"end")])
        assert 0 < transport.get_write_buffer_size() < len(sent)
        received = b""
        while len(received) < len(sent) + 3:
            received += theirs.recv(1 << 20)
            loop.poll()
        assert received == sent + b"end"
    loop.close()


def test_a_loop_does_in_its_turn_what_its_own_thread_asks_for_and_is_woken_by_others():
    loop = BurstLoop()
    woken: list[int] = []
    loop._poller.wake_threadsafe = lambda: woken.append(threading.get_ident())
    order: list[str] = []

    def first() -> None:
        loop.add_callback_threadsafe(lambda: order.append("asked for by its own thread"))
        loop.add_callback_threadsafe(loop.stop)
        order.append("first")

    loop.add_callback_threadsafe(first)
    assert woken == [threading.get_ident()]
    runner = threading.Thread(target=loop.start)
    runner.start()
    runner.join(10)
    assert order == ["first", "asked for by its own thread"]
    assert woken[1:] == [runner.ident]  # by `stop`
    loop.close()
