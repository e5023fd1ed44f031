"""Publishing with confirms that are collected as they come, many messages in flight."""

import copy
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pika

from nearmq.amqp.connection import Connection
from nearmq.amqp.messages import encode_properties
from nearmq.bundles import BUNDLE_TYPE
from nearmq.dead_letters import REPLY_TYPE
from nearmq.errors import BrokerUnavailable, InvalidArgument, NearmqError, QueueFull
from nearmq.transport import ConnectionLost, Message, OnConfirm


class Returned(BrokerUnavailable):
    """A mandatory message that no queue took: the broker gave it back."""


class Outgoing(NamedTuple):
    """A persistent message on its way.

    Attributes:
        mandatory: the broker gives it back when no queue takes it.
        on_end: called once, in the connection's thread as a rule: with None when the broker has confirmed it, else with
            Returned (no queue took it), QueueFull (a queue refused it), InvalidArgument (a property that AMQP cannot
            carry), ConnectionLost (the connection is down, or was lost before the confirm) or what the broker closed
            the channel for, such as PermissionDenied.
    """

    exchange: str
    message: Message
    mandatory: bool
    on_end: OnConfirm


class Publisher:
    """Publishes on a connection's channel. `publish` is for any thread; the connection's owner calls `open` and `lose`.

    Messages handed over while the connection's thread is busy leave together, in one turn of its loop.

    Args:
        after_confirms: called in the connection's thread when all confirms are told of that came together.
    """

    def __init__(self, connection: Connection, *, after_confirms: Callable[[], None] | None = None) -> None:
        self._connection = connection
        self._after_confirms = after_confirms
        self._lock = threading.Lock()
        self._waiting: list[Outgoing] = []
        # In the connection's thread only:
        self._channel: Any = None
        self._last_tag = 0
        self._unconfirmed: dict[int, Outgoing] = {}  # by delivery tag, ascending
        self._returned: Counter[str] = Counter()  # message ids; a return comes before the confirm of its message
        self._fault: NearmqError | None = None

    def publish(self, *messages: Outgoing) -> None:
        """Publish messages in this order; all that fail before they are sent end in one thread."""
        with self._lock:
            is_first = not self._waiting
            self._waiting += messages
        if is_first and messages:
            try:
                self._connection.call(self._send_waiting)
            except ConnectionLost as error:
                self._fail(self._take_waiting(), error)

    def open(self, channel: Any, done: Callable[[], None]) -> None:
        """Take a new channel into use, in confirm mode."""
        self._last_tag = 0
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_frame, callback=lambda _: self._opened(channel, done))

    def lose(self, fault: NearmqError) -> None:
        """Fail everything that is not confirmed."""
        self._channel = None
        self._fault = fault
        unconfirmed = list(self._unconfirmed.values())
        self._unconfirmed.clear()
        self._returned.clear()
        self._fail([*unconfirmed, *self._take_waiting()], fault)

    def _opened(self, channel: Any, done: Callable[[], None]) -> None:
        self._channel = channel
        channel.connection.on_ack(channel.channel_number, self._on_confirm)
        if self._after_confirms is not None:
            channel.connection.after_read(self._after_confirms)
        done()

    def _send_waiting(self) -> None:
        waiting = self._take_waiting()
        if self._channel is None or not self._channel.is_open:
            down = ConnectionLost(self._fault.message if self._fault else "the connection is not open yet")
            self._fail(waiting, down)
            return
        for outgoing in waiting:
            try:
                self._channel.connection.publish(
                    self._channel.channel_number,
                    outgoing.exchange,
                    outgoing.message.routing_key,
                    encode_properties(outgoing.message),
                    outgoing.message.body,
                    mandatory=outgoing.mandatory,
                )
            except (pika.exceptions.AMQPError, ValueError, TypeError, AssertionError) as error:
                # All of a message is encoded before any of it is sent, so the channel is none the worse.
                self._fail([outgoing], InvalidArgument(f"a property of the message is refused: {error!s:.200}"))
                continue
            self._last_tag += 1
            self._unconfirmed[self._last_tag] = outgoing

    def _on_return(self, _: Any, __: Any, properties: Any, ___: bytes) -> None:
        self._returned[properties.message_id] += 1

    def _on_frame(self, frame: Any) -> None:
        method = frame.method
        self._on_confirm(method.delivery_tag, method.multiple, is_ack=isinstance(method, pika.spec.Basic.Ack))

    def _on_confirm(self, last_tag: int, is_multiple: bool, *, is_ack: bool = True) -> None:  # noqa: FBT001 - an OnAck
        for tag in self._confirmed_tags(last_tag) if is_multiple else [last_tag]:
            outgoing = self._unconfirmed.pop(tag, None)
            if outgoing is None:  # failed already, when the connection was dropped
                continue
            if not is_ack:
                self._fail([outgoing], QueueFull(f"the queue for {outgoing.message.routing_key!r} is full"))
            elif self._was_returned(outgoing.message):
                self._fail([outgoing], Returned(_nobody(outgoing)))
            else:
                outgoing.on_end(None)

    def _was_returned(self, message: Message) -> bool:
        if message.message_id not in self._returned:
            return False
        self._returned -= Counter([message.message_id])  # drops what falls to 0
        return True

    def _confirmed_tags(self, last_tag: int) -> list[int]:
        """The unconfirmed tags up to one, which a multiple confirm covers."""
        tags = []
        for tag in self._unconfirmed:
            if tag > last_tag:
                break
            tags.append(tag)
        return tags

    def _take_waiting(self) -> list[Outgoing]:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def _fail(self, messages: list[Outgoing], error: NearmqError) -> None:
        for outgoing in messages:
            # One each: raising a shared one would mix the tracebacks of all who wait.
            outgoing.on_end(copy.copy(error))


def _nobody(outgoing: Outgoing) -> str:
    routing_key = outgoing.message.routing_key
    if not outgoing.exchange:
        return f"there is no queue {routing_key!r}"
    if outgoing.message.type in {REPLY_TYPE, BUNDLE_TYPE}:
        return f"no queue is bound to {outgoing.exchange!r} as {routing_key!r}"
    return f"nobody takes {routing_key!r} from {outgoing.exchange!r}: no worker is live (nearmq worker run)"
