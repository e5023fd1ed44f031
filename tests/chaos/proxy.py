"""A bad network between two programs: a proxy whose connections can be slowed, cut, reset and silenced."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from typing import Literal, TypeVar

Way = Literal["up", "down"]
T = TypeVar("T")

_LOOK_S = 0.02
#: SO_LINGER with no time: close sends RST.
_RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """Forwards connections to a port of 127.0.0.1, in a thread of its own; every method is for any thread.

    Attributes:
        latency_s: how much later everything arrives, each way.
        held: the ways on which nothing is forwarded, not even an end: both are a black hole. What was sent meanwhile
            arrives when the way is free again, as it does over TCP.
        passed: bytes forwarded so far, each way.
    """

    def __init__(self, port: int) -> None:
        self.latency_s = 0.0
        self.held: set[Way] = set()
        self.passed: dict[Way, int] = {"up": 0, "down": 0}
        self._target = port
        self._cut_at: dict[Way, int] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self._open) // 2

    def reset(self) -> None:
        """Reset all connections, at both ends."""
        self._call(lambda: [_reset(writer) for writer in list(self._open)])

    def cut_after(self, count: int, way: Way) -> None:
        """Close the connection on which, this way, the byte after so many more would have been forwarded."""
        self._call(lambda: self._cut_at.update({way: self.passed[way] + count}))

    def half_close(self) -> None:
        """Say to both ends of all connections that nothing more comes, and take what they still send."""
        self._call(lambda: [writer.write_eof() for writer in self._open if writer.can_write_eof()])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        self._server.close()
        pumps = asyncio.all_tasks() - {asyncio.current_task()}
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._open |= ends
        pumps = {
            asyncio.ensure_future(self._pump(reader, far_writer, "up")),
            asyncio.ensure_future(self._pump(far_reader, writer, "down")),
        }
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= ends
            for each in (*pumps, *ends):
                each.cancel() if isinstance(each, asyncio.Future) else each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Forward until the one end closes, or the connection is to be cut."""
        data = b"?"
        while data:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            while way in self.held:  # noqa: ASYNC110  set by other threads, at any time
                await asyncio.sleep(_LOOK_S)
            cut_at = self._cut_at.get(way)
            is_cut = cut_at is not None and self.passed[way] + len(data) > cut_at
            if cut_at is not None and is_cut:
                data = data[: cut_at - self.passed[way]]
                del self._cut_at[way]
            self.passed[way] += len(data)
            try:
                writer.write(data)
                await writer.drain()
            except OSError:
                return
            if is_cut:
                return

    def _call(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
