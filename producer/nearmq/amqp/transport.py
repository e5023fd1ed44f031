"""The transport over RabbitMQ: jobs out with confirms, replies in on a queue of this client's own."""

import contextlib
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from nearmq.amqp.connection import Connection
from nearmq.amqp.consumer import Consumer, Delivery, Source
from nearmq.amqp.publisher import Outgoing, Publisher
from nearmq.errors import NearmqError
from nearmq.topology import DEFAULT_PREFIX, Names
from nearmq.transport import ConnectionLost, Message, OnConfirm

#: How long the reply queue outlives its client's connection, and replies wait in it for the client to be back.
_REPLIES_EXPIRE_MS = 10 * 60 * 1000


class AmqpTransport:
    """A `Transport` over one connection and one channel.

    The reply queue is named `reply.<user>.<uuid>`, so that a permission pattern can tell the users' queues apart. It is
    durable and expires some minutes after its client was last connected: a reply that comes while the client reconnects
    is there afterwards, which direct reply-to cannot promise.

    Args:
        url: `amqp[s]://user:password@host:port/vhost`.
        prefix: the first word of the exchanges' names.
    """

    def __init__(self, url: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        identity = uuid.uuid4().hex
        names = Names(prefix)
        self._jobs = names.jobs
        self._connection = Connection(url, name=f"nearmq client {identity}", on_open=self._open, on_lost=self._lose)
        self._reply_to = f"reply.{self._connection.address.user}.{identity}"
        self._publisher = Publisher(self._connection)
        replies = Source(
            queue=self._reply_to,
            # Classic even where the virtual host's default is another: it has one short-lived reader.
            arguments={"x-queue-type": "classic", "x-expires": _REPLIES_EXPIRE_MS},
            exchange=names.replies,  # where workers in hardened mode send them; the others know the queue's name
        )
        self._replies = Consumer(self._connection, [replies], on_deliveries=self._receive)
        self._channel: Any = None
        self._on_reply: Callable[[Message], None] = lambda _: None
        self._on_connected: Callable[[], None] = lambda: None

    @property
    def reply_to(self) -> str:
        """The name of this client's reply queue."""
        return self._reply_to

    def start(self, *, on_reply: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Connect, and keep connected until `stop`.

        Raises:
            BrokerUnavailable, PermissionDenied: the first attempt failed; the message says why and what to do.
        """
        self._on_reply = on_reply
        self._on_connected = on_connected
        self._connection.start()

    def publish(self, message: Message, on_confirm: OnConfirm) -> None:
        """Publish a job; `on_confirm` is told what the broker said to it."""
        self._publisher.publish(Outgoing(self._jobs, message, mandatory=True, on_end=on_confirm))

    def stop(self) -> None:
        """Delete the reply queue, whose name nobody else knows, and close; may come twice, or before `start`."""
        with contextlib.suppress(ConnectionLost):
            self._connection.call(self._delete_replies)
        self._connection.stop()

    def _open(self, channel: Any, ready: Callable[[], None]) -> None:
        self._channel = channel

        def connected() -> None:
            ready()
            self._on_connected()

        self._publisher.open(channel, lambda: self._replies.open(channel, connected))

    def _lose(self, fault: NearmqError) -> None:
        self._channel = None
        self._replies.lose(fault)
        self._publisher.lose(fault)

    def _receive(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._on_reply(delivery.message)
        self._replies.settle(deliveries, "ack")

    def _delete_replies(self) -> None:
        if self._channel is not None and self._channel.is_open:
            self._channel.queue_delete(self._reply_to)
