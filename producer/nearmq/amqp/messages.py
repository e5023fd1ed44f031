"""Between our `Message` and AMQP's properties, as docs/wire.md lists them."""

import struct
import time
from functools import lru_cache
from typing import Any

from pika import data, exceptions, spec

from nearmq.amqp.address import APP_ID
from nearmq.transport import Message

_PERSISTENT = bytes([2])
_SHORT_BYTES = 255
_FLAGS = struct.Struct(">H")
_TIMESTAMP = struct.Struct(">Q")
_NO_HEADERS = bytes(4)

_Properties = spec.BasicProperties
#: Of those that every message has.
_ALWAYS = (
    _Properties.FLAG_HEADERS
    | _Properties.FLAG_DELIVERY_MODE
    | _Properties.FLAG_MESSAGE_ID
    | _Properties.FLAG_TIMESTAMP
    | _Properties.FLAG_TYPE
    | _Properties.FLAG_APP_ID
)


def encode_properties(message: Message) -> bytes:
    """Return the properties that a message is published with as AMQP has them: flags, and values in their order.

    Byte for byte as pika encodes them, in half of the time, for most of the values are those of the message before.

    Raises:
        AMQPError, TypeError, ValueError: a property is too long for AMQP, or no text.
    """
    flags, optional = _ALWAYS, []
    for flag, text in (
        (_Properties.FLAG_CORRELATION_ID, message.correlation_id),
        (_Properties.FLAG_REPLY_TO, message.reply_to),
    ):
        if text is not None:
            flags |= flag
            optional.append(_short(text))
    content_flags, content = _content(message.content_type, message.content_encoding)
    return b"".join(
        (
            _FLAGS.pack(flags | content_flags),
            content,
            _headers(message),
            _PERSISTENT,
            *optional,
            _short(message.message_id),
            _TIMESTAMP.pack(message.timestamp_s or int(time.time())),
            _kind(message.type),
        )
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


def _short(text: str) -> bytes:
    encoded = str.encode(text)
    if len(encoded) > _SHORT_BYTES:
        raise exceptions.ShortStringTooLong(encoded)
    return bytes((len(encoded),)) + encoded


def _headers(message: Message) -> bytes:
    if not message.headers:
        return _NO_HEADERS
    pieces: list[bytes] = []
    data.encode_table(pieces, dict(message.headers))
    return b"".join(pieces)


@lru_cache(256)
def _content(content_type: str | None, content_encoding: str | None) -> tuple[int, bytes]:
    flags, encoded = 0, b""
    if content_type is not None:
        flags, encoded = _Properties.FLAG_CONTENT_TYPE, _short(content_type)
    if content_encoding is not None:
        flags, encoded = flags | _Properties.FLAG_CONTENT_ENCODING, encoded + _short(content_encoding)
    return flags, encoded


@lru_cache(256)
def _kind(message_type: str) -> bytes:
    return _short(message_type) + _short(APP_ID)
