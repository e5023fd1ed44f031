"""Consuming queues and settling what was delivered, with tags that are checked against the channel they came by."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from nearmq.amqp.connection import Connection
from nearmq.amqp.messages import delivery_count, from_delivery
from nearmq.errors import NearmqError
from nearmq.transport import ConnectionLost, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A queue to consume. Without arguments or exchange it has to exist.

    Attributes:
        arguments: declare it with these, durable and not exclusive.
        exchange: bind it to this exchange under its own name. Without arguments it is an exclusive queue for each
            connection, named `<queue>.<uuid>` (the one of a connection that was lost may live on for a while).
        most: deliveries that may be unsettled here, where that is fewer than the consumer's prefetch.
        is_ordered: its deliveries must not be overtaken. While one is unsettled, no other connection may get those
            after it, so its consumer is never cancelled: all of them go back, in order, when the channel closes.
    """

    queue: str
    arguments: Mapping[str, str | int | bool] | None = None
    exchange: str | None = None
    most: int | None = None
    is_ordered: bool = False

    def prefetch(self, prefetch: int) -> int:
        """How many deliveries may be unsettled, given what the consumer allows; 0 is no bound."""
        return min(self.most, prefetch or self.most) if self.most else prefetch


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A message as it was delivered, and what is needed to settle it.

    Attributes:
        generation: of the connection that it came by; the tag means nothing on another.
        queue: the name of its Source.
        delivery_count: how often a quorum queue has delivered it before, failed or not; 0 from other queues.
    """

    message: Message
    generation: int
    tag: int
    queue: str
    delivery_count: int = 0
    redelivered: bool = False


Outcome = Literal["ack", "reject", "nack"]


class Consumer:
    """Consumes queues on a connection's channel. The connection's owner calls `open` and `lose`.

    Args:
        sources: the one that fills first should be last: only then the bound on bytes is kept from the start.
        prefetch: deliveries that each queue may have unsettled here; 0 is no bound.
        hold_bytes: bodies that may be unsettled here, on all queues together. AMQP has no such bound, so when it is
            passed, the consumers (but of ordered sources) are cancelled until half of it is settled, and come back with
            a prefetch at which bodies as large as the largest fit. What the broker has sent meanwhile goes back to its
            queue as it comes, which counts as one delivery of it.
        on_deliveries: called in the connection's thread with those that came together.
    """

    def __init__(
        self,
        connection: Connection,
        sources: Sequence[Source],
        *,
        prefetch: int = 0,
        hold_bytes: int | None = None,
        on_deliveries: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._connection = connection
        self._sources = tuple(sources)
        self._prefetch = prefetch
        self._hold_bytes = hold_bytes
        self._on_deliveries = on_deliveries
        self._lock = threading.Lock()
        self._settled: list[tuple[Delivery, Outcome]] = []
        # In the connection's thread only:
        self._channel: Any = None
        self._arrived: list[Delivery] = []
        self._queues: dict[str, str] = {}  # of each source, by its name
        self._held: dict[int, int] = {}  # body bytes by delivery tag, ascending
        self._held_bytes = 0
        self._consumer_tags: list[str] = []
        self._unconfirmed = 0  # of these, those that the broker has not confirmed
        self._when_silent: list[Callable[[], None]] = []  # not empty while consumers are being cancelled
        self._resume_prefetch: int | None = None  # set while paused
        self._is_stopped = False

    @property
    def outstanding(self) -> int:
        """Deliveries of this connection that are not settled yet."""
        return len(self._held)

    def is_current(self, delivery: Delivery) -> bool:
        """Whether the connection that a delivery came by still stands; if not, the broker delivers it again."""
        return self._channel is not None and delivery.generation == self._connection.generation

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether the connection that a delivery came by has given way to another; the broker delivers it again."""
        return delivery.generation != self._connection.generation

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        """Acknowledge deliveries, or give them back as failed (`reject`) or as not begun (`nack`); from any thread.

        A delivery of an earlier connection is skipped: its tag would name another message, or none.
        """
        with self._lock:
            is_first = not self._settled
            self._settled += [(delivery, outcome) for delivery in deliveries]
        if is_first and deliveries:
            try:
                self._connection.call(self._send_settled)
            except ConnectionLost:
                self._take_settled()

    def look(self) -> None:
        """Have the broker asked whether it still knows the consumers; from any thread.

        One that it forgot without a word would wait for ever. A queue that has none left costs the connection.
        """
        with contextlib.suppress(ConnectionLost):
            self._connection.call(self._look)

    def stop(self, timeout_s: float) -> bool:
        """Cancel the consumers for good; say whether the broker has confirmed that nothing more comes.

        What is on its way meanwhile goes back to its queue. Ordered sources deliver on, up to their prefetch. Not to be
        called in the connection's thread.
        """
        confirmed = threading.Event()
        try:
            self._connection.call(lambda: self._stop(confirmed.set))
        except ConnectionLost:
            return True
        return confirmed.wait(timeout_s)

    def open(self, channel: Any, done: Callable[[], None]) -> None:
        """Declare the queues on a new channel and consume them; `done` when all consumers are confirmed."""
        self._channel = channel
        channel.add_on_cancel_callback(self._on_cancelled)
        channel.connection.after_read(self._pass_on)
        self._queues = {source.queue: _declare(channel, source) for source in self._sources}
        self._consume(self._sources, self._prefetch, done)

    def lose(self, _: NearmqError) -> None:
        """Forget the channel's deliveries: the broker delivers them again."""
        self._channel = None
        self._arrived.clear()
        self._held.clear()
        self._held_bytes = 0
        self._resume_prefetch = None
        self._consumer_tags.clear()
        self._tell_silent()

    def _consume(self, sources: Sequence[Source], prefetch: int, done: Callable[[], None]) -> None:
        if self._is_stopped or not sources:
            done()
            return
        self._unconfirmed = len(sources)

        def on_consuming(_: Any) -> None:
            self._unconfirmed -= 1
            if self._unconfirmed == 0:
                done()
                self._pause_if_full()

        for source in sources:
            # Of each consumer that comes after it: quorum queues know no prefetch of a whole channel.
            self._channel.basic_qos(prefetch_count=source.prefetch(prefetch))
            receiver = self._receiver(source.queue)
            tag = self._channel.basic_consume(self._queues[source.queue], receiver, callback=on_consuming)
            if not source.is_ordered:
                self._consumer_tags.append(tag)

    def _receiver(self, name: str) -> Callable[[Any, Any, Any, bytes], None]:
        generation = self._connection.generation

        def on_message(_: Any, method: Any, properties: Any, body: bytes) -> None:
            self._held[method.delivery_tag] = len(body)
            self._held_bytes += len(body)
            self._pause_if_full()
            self._arrived.append(
                Delivery(
                    message=from_delivery(method, properties, body),
                    generation=generation,
                    tag=method.delivery_tag,
                    queue=name,
                    delivery_count=delivery_count(properties),
                    redelivered=method.redelivered,
                )
            )

        return on_message

    def _pass_on(self) -> None:
        if self._arrived:
            arrived, self._arrived = self._arrived, []
            self._on_deliveries(arrived)

    @property
    def _is_consuming(self) -> bool:
        """Whether every source has a consumer, as far as the broker has told."""
        is_open = self._channel is not None and self._channel.is_open
        return is_open and not self._unconfirmed and self._resume_prefetch is None and not self._is_stopped

    def _look(self) -> None:
        if self._is_consuming:
            for queue in self._queues.values():
                self._channel.queue_declare(queue, passive=True, callback=self._on_looked)

    def _on_looked(self, frame: Any) -> None:
        if self._is_consuming and frame.method.consumer_count == 0:
            self._connection.drop(ConnectionLost(f"the broker forgot the consumer of queue {frame.method.queue!r}"))

    def _on_cancelled(self, frame: Any) -> None:
        self._connection.drop(
            ConnectionLost(f"the broker cancelled consumer {frame.method.consumer_tag}: its queue is gone or moves")
        )

    def _send_settled(self) -> None:
        settled = self._take_settled()
        if self._channel is None or not self._channel.is_open:
            return
        acked = set()
        for delivery, outcome in settled:
            if delivery.generation != self._connection.generation or delivery.tag not in self._held:
                continue
            if outcome == "ack":
                acked.add(delivery.tag)
                continue
            self._release(delivery.tag)
            if outcome == "reject":
                self._channel.basic_reject(delivery.tag, requeue=True)
            else:
                self._channel.basic_nack(delivery.tag, requeue=True)
        self._ack(acked)
        self._resume_if_room()

    def _ack(self, tags: set[int]) -> None:
        """Acknowledge with one frame what is settled from the oldest on, and the rest one by one."""
        oldest = []
        for tag in self._held:
            if tag not in tags:
                break
            oldest.append(tag)
        if oldest:
            self._channel.basic_ack(oldest[-1], multiple=True)
        for tag in sorted(tags.difference(oldest)):
            self._channel.basic_ack(tag)
        for tag in tags:
            self._release(tag)

    def _release(self, tag: int) -> None:
        self._held_bytes -= self._held.pop(tag)

    def _pause_if_full(self) -> None:
        if self._hold_bytes is None or self._held_bytes <= self._hold_bytes:
            return
        if self._unconfirmed or self._resume_prefetch is not None:
            return
        fitting = self._hold_bytes // max(self._held.values()) // len(self._sources)
        self._resume_prefetch = max(1, min(fitting, self._prefetch or fitting))
        self._cancel(self._resume_if_room)

    def _resume_if_room(self) -> None:
        if self._resume_prefetch is None or self._when_silent:
            return
        if self._hold_bytes is not None and self._held_bytes <= self._hold_bytes // 2:
            prefetch, self._resume_prefetch = self._resume_prefetch, None
            self._consume([source for source in self._sources if not source.is_ordered], prefetch, _nothing)

    def _stop(self, done: Callable[[], None]) -> None:
        self._is_stopped = True
        if self._channel is None or not self._channel.is_open:
            done()
            return
        self._cancel(done)

    def _cancel(self, done: Callable[[], None]) -> None:
        """Cancel all consumers but those of ordered sources; `done` when nothing more comes."""
        self._when_silent.append(done)
        if len(self._when_silent) == 1:
            self._cancel_next()

    def _cancel_next(self, _: Any = None) -> None:
        # Only when no other answer is awaited, so one after the other: pika returns what comes for a consumer from this
        # call on, but sends one request at a time. While the cancel waited, the broker would send what was returned
        # again and again, and count each time as a delivery.
        if self._consumer_tags:
            self._channel.basic_cancel(self._consumer_tags.pop(), callback=self._cancel_next)
        else:
            self._tell_silent()

    def _tell_silent(self) -> None:
        waiting, self._when_silent = self._when_silent, []
        for done in waiting:
            done()

    def _take_settled(self) -> list[tuple[Delivery, Outcome]]:
        with self._lock:
            settled, self._settled = self._settled, []
        return settled


def _declare(channel: Any, source: Source) -> str:
    """Declare a source's queue and return its name; the broker answers in order, so nothing waits for it here."""
    queue = source.queue
    if source.arguments is not None:
        channel.queue_declare(queue, durable=True, arguments=dict(source.arguments))
    elif source.exchange is not None:
        queue = f"{queue}.{uuid.uuid4().hex}"
        channel.queue_declare(queue, exclusive=True)
    else:
        channel.queue_declare(queue, passive=True)
    if source.exchange is not None:
        channel.queue_bind(queue, source.exchange, routing_key=queue)
    return queue


def _nothing(*_: object) -> None:
    """Await a confirmation without doing anything on it."""
