"""The seam between the client and what carries its jobs: RabbitMQ (`amqp.py`) or, embedded, the caller's own process.

The protocol is ours and may change with its two adapters; `tests/contract/test_transport.py` holds both to it.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from nearmq.errors import BrokerUnavailable, NearmqError

#: Told once what became of a published message: None when it was confirmed.
OnConfirm = Callable[[NearmqError | None], None]


class ConnectionLost(BrokerUnavailable):
    """The connection was lost before the broker confirmed a job: whether the broker took it is unknown."""


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One AMQP message, job or reply, with the properties that the wire contract uses.

    Attributes:
        routing_key: `<type>.<collection>` of a job (`list` alone has no collection); the reply queue's name of a reply.
        type: the job's type, or `reply`, or `replies` of several in one message (`bundles.py`).
        message_id: the job's id, a UUIDv7 in its usual text form; a reply has one of its own.
        correlation_id: of a reply, the correlation id of its job, else the job's id.
        headers: own headers `nearmq-deadline` (int, ms since 1970), `nearmq-accept` and `nearmq-part`, and
            `traceparent`, `tracestate`.
        timestamp_s: seconds since 1970 at which it was published; 0 when the publisher gave none.
        content_type, content_encoding: as published; a job's are checked when it is decoded.
    """

    routing_key: str
    type: str
    message_id: str
    body: bytes
    correlation_id: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, str | int] = {}
    timestamp_s: int = 0
    content_type: str | None = "application/json"
    content_encoding: str | None = None


class Transport(Protocol):
    """Carries jobs to the workers and their replies back.

    `publish` and `stop` may be called from any thread; the callbacks run in a transport's thread and must be short.
    """

    @property
    def reply_to(self) -> str:
        """The address that replies to this client are sent to; the same for the transport's whole life."""
        ...

    def start(self, *, on_reply: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Connect, and keep connected until `stop`.

        Args:
            on_reply: called with each message of replies; the same reply may come twice.
            on_connected: called whenever replies can be received (again): what was published before and is not
                answered may have been lost, and is to be published again.

        Raises:
            BrokerUnavailable: the first connection could not be made; the message says why.
            PermissionDenied: the login or the virtual host was refused.
        """
        ...

    def publish(self, message: Message, on_confirm: OnConfirm) -> None:
        """Publish a job; `on_confirm` is called once, with None when the broker has taken responsibility for it.

        Else with QueueFull when the broker refused the job, with PermissionDenied when it forbids it, with
        BrokerUnavailable when no queue took it (a control job while no worker lives), and with ConnectionLost when the
        connection is down or was lost first: it may have been taken, so publish it again under the same id.
        """
        ...

    def stop(self) -> None:
        """Close; may come twice, or before `start`. What is not confirmed by then ends with BrokerUnavailable."""
        ...
