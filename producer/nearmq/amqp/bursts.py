"""A pika connection that reads and writes many messages at once.

Each system call gives up the interpreter, and a busy thread of the process keeps it for its switch interval, 5 ms by
default: one call for each frame would make that the time of every few messages. And of what pika itself does for a
message, most is passing its three frames on from hand to hand; here a delivery that has come whole is one step, and so
is a message that is published.
"""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import pika
from pika import frame, spec
from pika.adapters.select_connection import IOLoop
from pika.data import decode_short_string

from nearmq.amqp.messages import decode_properties

#: A frame of this size gains nothing by being joined with others, which would copy it.
_LARGE_BYTES = 16 << 10
_READ_BYTES = 64 << 10

#: Type, channel and payload's size; the payload and the end mark follow.
_FRAME = struct.Struct(">BHL")
_DELIVER = struct.pack(">L", spec.Basic.Deliver.INDEX)
_ACK = struct.pack(">L", spec.Basic.Ack.INDEX)
#: Tag, and of a confirm whether it stands for all up to it, of a delivery whether it is a repeated one.
_TAG = struct.Struct(">Q?")
#: Class, a weight of 0, and the body's size; the properties follow.
_HEADER = struct.Struct(">HxxQ")
_BASIC = spec.BasicProperties.INDEX
_END = bytes([spec.FRAME_END])
_THREE_MARKS = (spec.FRAME_END,) * 3


class BurstLoop(IOLoop):  # type: ignore[misc]  # pika has no types that mypy reads
    """Pika's loop, which its own thread need not wake: what that thread asks for is done in the turn that it is in."""

    _thread_id: int | None = None

    def start(self) -> None:
        """Run until `stop`."""
        self._thread_id = threading.get_ident()
        super().start()

    def add_callback_threadsafe(self, callback: Callable[[], None]) -> None:
        """Call a function in the loop's thread, soon and in the order of the calls; from any thread."""
        if threading.get_ident() == self._thread_id:
            self._callbacks.append(callback)
        else:
            super().add_callback_threadsafe(callback)

    add_callback = add_callback_threadsafe


#: Told the delivery tag of an acknowledgement, and whether it stands for all up to it.
OnAck = Callable[[int, bool], None]


class BurstConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types that mypy reads
    """Joins the frames that are written in one turn of the loop, reads more than 4 KiB at a time, and whole deliveries.

    Pika reads until the socket has nothing more, and before it sends, waits to be told that the socket takes something:
    five system calls more for a message that comes and one that leaves. Here one read and one write are tried.

    What is overridden are methods that pika's adapters are made of; nothing public has the socket, the reading sizes,
    the table of channels and what a channel does with a delivery.
    """

    _frame_buffer: bytes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._burst: list[bytes] = []
        self._is_collecting = False
        self._plain_socket: socket.socket | None = None
        self._on_acks: dict[int, OnAck] = {}
        self._after_reads: list[Callable[[], None]] = []
        super().__init__(*args, **kwargs)

    def collect(self, work: Callable[[], None]) -> None:
        """Do some work in the loop's thread, and send all that it writes at once."""
        self._is_collecting = True
        try:
            work()
        finally:
            self._is_collecting = False
            self._send_burst()

    def on_ack(self, channel: int, confirmed: OnAck) -> None:
        """Have a function told of the broker's acknowledgements on a channel, which pika's callbacks are not, then.

        Pika looks for callbacks under five keys for each frame, which takes four times as long as the rest.
        """
        self._on_acks[channel] = confirmed

    def after_read(self, told: Callable[[], None]) -> None:
        """Have a function called when all deliveries and acknowledgements are passed on that came at once."""
        self._after_reads.append(told)

    def publish(
        self,
        channel: int,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        *,
        mandatory: bool,
    ) -> None:
        """Publish as a channel's `basic_publish` does.

        Args:
            properties: encoded, as `encode_properties` returns them.

        Raises:
            AMQPError: the routing key is too long.
        """
        header = _HEADER.pack(_BASIC, len(body)) + properties
        most = self._body_max_length
        method = _publish_frame(channel, exchange, routing_key, mandatory)
        pieces = [method, *_framed(spec.FRAME_HEADER, channel, header)]
        for start in range(0, len(body), most):
            pieces += _framed(spec.FRAME_BODY, channel, body if len(body) <= most else body[start : start + most])
        self._output_marshaled_frames([b"".join(pieces)])

    def _send_burst(self) -> None:
        burst, self._burst = self._burst, []
        if burst and not self.is_closed:
            self._send(b"".join(burst))

    def _send(self, data: bytes) -> None:
        """Send what the socket takes now, and leave the rest to pika, which waits for the socket before it sends."""
        if self._plain_socket is not None and not self._transport.get_write_buffer_size():
            with contextlib.suppress(OSError):  # which pika meets, too, if it is more than a full socket
                data = data[self._plain_socket.send(data) :]
        if data:
            super()._adapter_emit_data(data)

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_BYTES  # noqa: SLF001
        if not isinstance(transport._sock, ssl.SSLSocket):  # noqa: SLF001
            # What TLS has read may be more than what it has given, and is not seen by who waits for the socket.
            transport._MAX_CONSUME_BYTES = 1  # noqa: SLF001
            self._plain_socket = transport._sock  # noqa: SLF001
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        if len(data) >= _LARGE_BYTES:
            self._send_burst()
            self._send(data)
            return
        if not self._burst and not self._is_collecting:
            self.ioloop.add_callback_threadsafe(self._send_burst)
        self._burst.append(data)

    def _on_data_available(self, data_in: bytes) -> None:
        """Take frames as they come, cutting the buffer once; pika cuts it, which copies what is left, after each."""
        data, at = self._frame_buffer + data_in, 0
        while end := _frame_end(data, at):
            if self._take_ack(data, at, end):
                at = end
                continue
            delivery = _read_delivery(data, at, end)
            channel = delivery and self._channels.get(delivery.channel)
            if delivery and channel:
                at = delivery.end
                self.frames_received += len(_THREE_MARKS)
                channel._on_deliver(delivery, delivery, delivery.body)  # noqa: SLF001
            else:
                self._tell()  # before what may end a consumer
                _, one = frame.decode_frame(data[at:end])
                at = end
                self._process_frame(one)
        self._frame_buffer = data[at:]
        self.bytes_received += at
        self._tell()

    def _tell(self) -> None:
        for told in self._after_reads:
            told()

    def _take_ack(self, data: bytes, at: int, end: int) -> bool:
        """Tell of an acknowledgement; False where the frame is none, or nobody is to be told."""
        if data[at] != spec.FRAME_METHOD or data[at + _FRAME.size : at + _FRAME.size + 4] != _ACK:
            return False
        confirmed = self._on_acks.get(_FRAME.unpack_from(data, at)[1])
        if confirmed is None or data[end - 1] != spec.FRAME_END:
            return False
        self.frames_received += 1
        confirmed(*_TAG.unpack_from(data, at + _FRAME.size + 4))
        return True


class _Delivery(NamedTuple):
    """A whole delivery, with what pika's channels read of a method's frame and of a header's, and where it ends."""

    channel: int
    method: spec.Basic.Deliver
    properties: spec.BasicProperties
    body: bytes
    end: int


def _frame_end(data: bytes, at: int) -> int:
    """Return where the frame that starts there ends; 0 where it has not come whole."""
    if len(data) < at + _FRAME.size:
        return 0
    end = at + _FRAME.size + _FRAME.unpack_from(data, at)[2] + 1
    return end if end <= len(data) else 0


def _read_delivery(data: bytes, at: int, end: int) -> _Delivery | None:
    """Read a delivery that starts at a whole frame; None where it is none, has not come whole, or is of many frames."""
    if data[at] != spec.FRAME_METHOD or data[at + _FRAME.size : at + _FRAME.size + 4] != _DELIVER:
        return None
    header_end = _frame_end(data, end)
    body_end = header_end and _frame_end(data, header_end)
    if not body_end or data[end] != spec.FRAME_HEADER or data[header_end] != spec.FRAME_BODY:
        return None
    body = data[header_end + _FRAME.size : body_end - 1]
    class_id, body_size = _HEADER.unpack_from(data, end + _FRAME.size)
    marks = data[end - 1], data[header_end - 1], data[body_end - 1]
    if class_id != _BASIC or body_size != len(body) or marks != _THREE_MARKS:
        return None
    properties = decode_properties(data[end + _FRAME.size + _HEADER.size : header_end - 1])
    start = at + _FRAME.size + len(_DELIVER)
    tag_at = start + 1 + data[start]
    consumer, place = _texts(data[start:tag_at]), _texts(data[tag_at + _TAG.size : end - 1])
    method = spec.Basic.Deliver(*consumer, *_TAG.unpack_from(data, tag_at), *place)
    return _Delivery(_FRAME.unpack_from(data, at)[1], method, properties, body, body_end)


@lru_cache(256)
def _texts(encoded: bytes) -> tuple[str, ...]:
    """Return short strings that follow each other, which are those of the delivery before as a rule."""
    texts, at = [], 0
    while at < len(encoded):
        text, at = decode_short_string(encoded, at)
        texts.append(text)
    return tuple(texts)


@lru_cache(256)
def _publish_frame(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:  # noqa: FBT001 - a key of the cache
    method = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    encoded: bytes = frame.Method(channel, method).marshal()
    return encoded


def _framed(kind: int, channel: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
    return _FRAME.pack(kind, channel, len(payload)), payload, _END
