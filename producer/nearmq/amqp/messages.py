"""Between our `Message` and AMQP's properties, as docs/wire.md lists them."""

import time
from typing import Any

import pika

from nearmq.amqp.address import APP_ID
from nearmq.transport import Message

_PERSISTENT = 2


def to_properties(message: Message) -> pika.BasicProperties:
    """Return the properties that a message is published with."""
    return pika.BasicProperties(
        type=message.type,
        message_id=message.message_id,
        correlation_id=message.correlation_id,
        reply_to=message.reply_to,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        delivery_mode=_PERSISTENT,
        timestamp=message.timestamp_s or int(time.time()),
        app_id=APP_ID,
        headers=dict(message.headers),
    )


def from_delivery(method: Any, properties: Any, body: bytes) -> Message:
    """Return a delivered message; what its publisher left out is empty, headers of other types are dropped."""
    return Message(
        routing_key=method.routing_key,
        type=properties.type or "",
        message_id=properties.message_id or "",
        body=body,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        headers=_plain(all_headers(properties)),
        timestamp_s=properties.timestamp or 0,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
    )


def delivery_count(properties: Any) -> int:
    """Return how often a quorum queue has delivered this message before; other queues do not count."""
    count = all_headers(properties).get("x-delivery-count", 0)
    return count if isinstance(count, int) else 0


def all_headers(properties: Any) -> dict[str, Any]:
    """Return the headers of every type, the broker's own among them."""
    return properties.headers or {}


def _plain(headers: dict[str, Any]) -> dict[str, str | int]:
    """Keep strings and whole numbers; pika gives 64-bit ones as a type of its own."""
    strings = {name: value for name, value in headers.items() if isinstance(value, str)}
    numbers = {
        name: int(value) for name, value in headers.items() if isinstance(value, int) and not isinstance(value, bool)
    }
    return strings | numbers
