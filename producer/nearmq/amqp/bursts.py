"""A pika connection that reads and writes many frames at once.

Each system call gives up the interpreter, and a busy thread of the process keeps it for its switch interval, 5 ms by
default: one call for each frame would make that the time of every few messages.
"""

from collections.abc import Callable
from typing import Any

import pika

#: A frame of this size gains nothing by being joined with others, which would copy it.
_LARGE_BYTES = 16 << 10
#: pika copies what is left of it after each frame, so more would not be faster.
_READ_BYTES = 32 << 10


class BurstConnection(pika.SelectConnection):  # type: ignore[misc]  # pika has no types that mypy reads
    """Joins the frames that are written in one turn of the loop, and reads more than 4 KiB at a time.

    pika alone writes frame by frame, three a message. What is overridden are methods that pika's adapters are made of,
    but for the reading size, for which there is none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._burst: list[bytes] = []
        self._is_collecting = False
        super().__init__(*args, **kwargs)

    def collect(self, work: Callable[[], None]) -> None:
        """Do some work in the loop's thread, and send all that it writes at once."""
        self._is_collecting = True
        try:
            work()
        finally:
            self._is_collecting = False
            self._send_burst()

    def _send_burst(self) -> None:
        burst, self._burst = self._burst, []
        if burst and not self.is_closed:
            super()._adapter_emit_data(b"".join(burst))

    def _proto_connection_made(self, transport: Any) -> None:
        transport._MAX_RECV_BYTES = _READ_BYTES  # noqa: SLF001
        super()._proto_connection_made(transport)

    def _adapter_emit_data(self, data: bytes) -> None:
        if len(data) >= _LARGE_BYTES:
            self._send_burst()
            super()._adapter_emit_data(data)
            return
        if not self._burst and not self._is_collecting:
            self.ioloop.add_callback_threadsafe(self._send_burst)
        self._burst.append(data)
