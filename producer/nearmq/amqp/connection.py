"""One thread that owns one AMQP connection with one channel, and opens both again whenever they are lost."""

import functools
import logging
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nearmq.amqp.address import Address, parse_urls
from nearmq.amqp.bursts import BurstConnection, BurstLoop
from nearmq.amqp.faults import connect_fault, lost_fault
from nearmq.errors import NearmqError
from nearmq.transport import ConnectionLost

logger = logging.getLogger(__name__)

#: Reconnects wait a random time from the least to a bound that doubles with each failure in a row ("full jitter"):
#: random, so that a fleet does not return at one moment; short, so that after a cut everything is in use again within
#: 5 s, and within 20 s once a broker that was long away is back.
_LEAST_BACKOFF_S = 0.5
_FIRST_BACKOFF_S = 2.0
_MOST_BACKOFF_S = 15.0

_TICK_S = 1.0
_MAX_SILENT_S = 15.0
#: A set-up may take so many times the time to connect; a broker that is starved answers heartbeats only.
_SETUP_TIMEOUTS = 3
#: An orderly close that takes longer is given up: the broker is gone or, under an alarm, does not read.
_CLOSE_TIMEOUT_S = 5.0


class Connection:
    """Runs pika's loop in a thread of its own; other threads hand it work through `call`.

    Args:
        url: `amqp://…` or `amqps://…`. Of several hosts it takes any, and the next one when that is lost; it waits when
            none could be reached.
        name: shown in RabbitMQ's list of connections, and the thread's name.
        on_open: called with each newly opened channel and a function to call once its set-up is confirmed: only then
            is the connection ready. A channel that the broker closes takes the connection with it.
        on_lost: called once for each channel that was opened and is lost, and at last when the connection has stopped.

    Both callbacks run in the connection's thread, as all work on a channel must.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        on_open: Callable[[Any, Callable[[], None]], None],
        on_lost: Callable[[NearmqError], None],
    ) -> None:
        self.name = name
        self._addresses = list(parse_urls(url))
        random.shuffle(self._addresses)  # so that a fleet spreads over them
        self._on_open = on_open
        self._on_lost = on_lost
        self._generation = 0
        self._is_ready = False
        self._ticked_at = time.monotonic()
        self._attempted_at = time.monotonic()
        self._failures = 0
        self._first: Future[None] = Future()
        self._lock = threading.Lock()
        self._loop: BurstLoop | None = None  # None before start, and when stopped
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        # Of the attempt at hand, used in the loop's thread only.
        self._connection: Any = None
        self._channel: Any = None
        self._fault: NearmqError | None = None

    @property
    def address(self) -> Address:
        """Where it is connected, or tries to be."""
        return self._addresses[0]

    @property
    def generation(self) -> int:
        """The number of the last channel opened, from 1; a delivery tag is valid within one generation."""
        return self._generation

    @property
    def is_ready(self) -> bool:
        """Whether the channel is open and its set-up confirmed."""
        return self._is_ready

    @property
    def silent_s(self) -> float:
        """Seconds since the loop last turned, which it does every second: a watchdog's measure."""
        return time.monotonic() - self._ticked_at

    def healthy(self) -> bool:
        """Whether it is ready, and its thread not stuck or dead."""
        return self._is_ready and self.silent_s < _MAX_SILENT_S

    def start(self) -> None:
        """Connect, and return when the connection is ready.

        Raises:
            BrokerUnavailable, PermissionDenied, InvalidArgument: of the last host, since none lets us in; each is tried
                once.
        """
        self._loop = BurstLoop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name=self.name, daemon=True)
        self._thread.start()
        try:
            self._first.result(self._setup_s * len(self._addresses))
        except TimeoutError:
            self.stop()
            raise self._unready() from None
        except NearmqError:
            self._thread.join()
            raise

    def call(self, work: Callable[[], None]) -> None:
        """Run `work` soon in the connection's thread; from any thread, in the order of the calls.

        Raises:
            ConnectionLost: the connection is not started, or stopped.
        """
        with self._lock:
            if self._loop is None:
                raise self._closed()
            self._loop.add_callback_threadsafe(functools.partial(self._guard, work))

    def drop(self, fault: NearmqError) -> None:
        """Give up the open connection and make a new one; in the connection's thread only.

        Args:
            fault: what messages end with that are not confirmed: ConnectionLost unless the broker refused one for good.
        """
        self._keep_consumers()
        self._lose(fault)
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def stop(self) -> None:
        """Close in order, after all work handed over before; returns when closed. May come twice, or before `start`."""
        try:
            self.call(self._close)
        except ConnectionLost:
            return
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, loop: BurstLoop) -> None:
        try:
            self._connect(loop)
            self._tick(loop)
            loop.start()
        except Exception:
            logger.exception("connection thread failed", extra={"connection": self.name})
        with self._lock:
            self._loop = None
        self._is_ready = False
        self._on_lost(self._closed())
        if not self._first.done():
            self._first.set_exception(self._closed())
        loop.close()

    def _connect(self, loop: BurstLoop) -> None:
        self._fault = None
        self._attempted_at = time.monotonic()
        self._connection = BurstConnection(
            self.address.parameters(self.name),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
            on_open_error_callback=lambda _, error: self._retry(loop, connect_fault(error, self.address)),
            on_close_callback=functools.partial(self._on_closed, loop),
            custom_ioloop=loop,
        )

    def _on_channel(self, channel: Any) -> None:
        channel.add_on_close_callback(self._on_channel_closed)
        self._channel = channel
        self._generation += 1
        self._on_open(channel, functools.partial(self._ready, self._generation))

    def _ready(self, generation: int) -> None:
        if generation != self._generation or self._channel is None:
            return
        self._failures = 0
        self._is_ready = True
        logger.info("connected", extra={"connection": self.name, "broker": str(self.address)})
        if not self._first.done():
            self._first.set_result(None)

    def _on_channel_closed(self, _: Any, error: Exception) -> None:
        self.drop(lost_fault(error, self.address))

    def _on_closed(self, loop: BurstLoop, _: Any, error: Exception) -> None:
        fault = lost_fault(error, self.address)
        self._lose(fault)
        self._retry(loop, fault)

    def _lose(self, fault: NearmqError) -> None:
        """Tell once that the channel is gone; the first reason is the true one."""
        self._fault = self._fault or fault
        self._is_ready = False
        if self._channel is not None:
            self._channel = None
            self._on_lost(self._fault)

    def _retry(self, loop: BurstLoop, fault: NearmqError) -> None:
        fault = self._fault or fault
        self._connection = None
        is_first = not self._first.done()
        if self._is_stopping or (is_first and self._failures + 1 == len(self._addresses)):
            if is_first:
                self._first.set_exception(fault)
            loop.stop()
            return
        rounds, tried = divmod(self._failures, len(self._addresses))
        backoff_s = 0.0 if is_first or tried else _backoff_s(rounds)
        self._failures += 1
        self._addresses.append(self._addresses.pop(0))
        loop.call_later(backoff_s, functools.partial(self._connect, loop))
        logger.warning(
            "connection lost",
            extra={"connection": self.name, "error": fault.message, "retry_in_s": round(backoff_s, 1)},
        )

    def _close(self) -> None:
        loop = self._loop
        if self._is_stopping or loop is None:
            return
        self._is_stopping = True
        self._fault = self._closed()
        loop.call_later(_CLOSE_TIMEOUT_S, loop.stop)
        if self._connection is None:  # between two attempts
            loop.stop()
        elif not self._connection.is_closing:
            self._keep_consumers()
            self._connection.close()

    def _keep_consumers(self) -> None:
        """Let pika's close, which follows at once, cancel no consumer.

        A cancelled one's unsettled deliveries are still held while the broker gives those after them to the next; with
        the channel they go back all at once and in their order. pika has no public way to ask for that;
        tests/chaos/test_worker_faults.py sees when this one stops working.
        """
        if self._channel is not None:
            self._channel._cancelled.update(self._channel._consumers)  # noqa: SLF001

    def _closed(self) -> ConnectionLost:
        return ConnectionLost(f"connection to {self.address} is closed")

    @property
    def _setup_s(self) -> float:
        """How long an attempt may take until its set-up is confirmed."""
        return _SETUP_TIMEOUTS * self.address.connection_timeout_s

    def _unready(self) -> ConnectionLost:
        return ConnectionLost(f"{self.address} let us in, but set nothing up within {self._setup_s:g} s")

    def _tick(self, loop: BurstLoop) -> None:
        self._ticked_at = time.monotonic()
        is_late = self._ticked_at - self._attempted_at > self._setup_s
        if is_late and not self._is_ready and self._channel is not None and self._first.done():
            self.drop(self._unready())
        loop.call_later(_TICK_S, functools.partial(self._tick, loop))

    def _guard(self, work: Callable[[], None]) -> None:
        """Run handed-over work; a fault in it costs this connection, not the thread, as with a fault in a callback."""
        try:
            if self._connection is None:
                work()
            else:
                self._connection.collect(work)
        except Exception as error:
            logger.exception("work in the connection's thread failed", extra={"connection": self.name})
            self.drop(ConnectionLost(f"connection to {self.address} was dropped after a fault: {error!r}"))


def _backoff_s(failures: int) -> float:
    most_s = min(_MOST_BACKOFF_S, _FIRST_BACKOFF_S * 2.0**failures)
    return random.uniform(_LEAST_BACKOFF_S, most_s)  # noqa: S311  not for secrets
