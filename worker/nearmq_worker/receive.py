"""Taking jobs from RabbitMQ: the consuming connection, on which the deliveries are settled too."""

from collections.abc import Callable, Sequence
from typing import Any

from nearmq.amqp import Connection, Consumer, Delivery, Source
from nearmq.amqp.consumer import Outcome
from nearmq.errors import NearmqError
from nearmq.topology import QUEUE_TYPES, Names

__all__ = ["Delivery", "Receiver"]

#: Writes that wait here for the running commit. They cannot be given back while the worker runs, so that no other one
#: overtakes them, and each may have 8 MiB.
_WRITES_HELD = 128


class Receiver:
    """Consumes the job queues, and a control queue of this connection's own; reconnects by itself.

    It never publishes: an alarm that blocks publishing connections must not hold up acknowledgements.

    Args:
        worker: the worker's name; control jobs come with `Delivery.queue` = `names.control_queue(worker)`.
        queues: the busiest first; None for the shared ones. They have to exist: a worker makes none, but `nearmq
            topology apply`.
        prefetch: unsettled deliveries of each queue; large, since jobs that wait here are searched as one batch.
        prefetch_bytes: bodies of unsettled deliveries; `nearmq.amqp.Consumer` says how it is kept.
        on_deliveries: called in the connection's thread with those that came together; short, or heartbeats starve.
    """

    def __init__(
        self,
        url: str,
        *,
        names: Names,
        worker: str,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        queues: Sequence[str] | None = None,
        prefetch: int = 512,
        prefetch_bytes: int = 256 << 20,
    ) -> None:
        taken = [names.queue(pool) for pool in QUEUE_TYPES] if queues is None else list(queues)
        control = Source(queue=names.control_queue(worker), exchange=names.control)
        self._connection = Connection(
            url, name=f"nearmq worker {worker} consuming", on_open=self._open, on_lost=self._lose
        )
        self._consumer = Consumer(
            self._connection,
            [control, *(_source(queue, names) for queue in reversed(taken))],
            prefetch=prefetch,
            hold_bytes=prefetch_bytes,
            on_deliveries=on_deliveries,
        )

    def start(self) -> None:
        """Connect, and return when every consumer is confirmed.

        Raises:
            BrokerUnavailable, PermissionDenied: the first attempt failed; a queue that is missing among the reasons.
        """
        self._connection.start()

    def healthy(self) -> bool:
        """Whether every consumer is confirmed and the connection's thread is alive."""
        return self._connection.healthy()

    @property
    def silent_s(self) -> float:
        """Seconds since the connection's thread was last seen; the measure of a watchdog, whatever the broker does."""
        return self._connection.silent_s

    @property
    def outstanding(self) -> int:
        """Deliveries that are not settled yet."""
        return self._consumer.outstanding

    def is_current(self, delivery: Delivery) -> bool:
        """Whether a delivery can still be settled; if not, the broker delivers its job again."""
        return self._consumer.is_current(delivery)

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether another connection has taken the place of a delivery's: the broker delivers its job again."""
        return self._consumer.is_lost(delivery)

    def settle(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        """End deliveries, from any thread: `ack`, `reject` (failed, try again) or `nack` (not begun, give back).

        Once a delivery's connection is lost, this does nothing.
        """
        self._consumer.settle(deliveries, outcome)

    def look(self) -> None:
        """Have the broker asked whether it still knows the consumers; if not, connect anew."""
        self._consumer.look()

    def stop_taking(self, timeout_s: float) -> bool:
        """Cancel the consumers; say whether the broker confirmed within the time that nothing more comes."""
        return self._consumer.stop(timeout_s)

    def stop(self) -> None:
        """Send what was settled before, and close; what is unsettled is delivered to another worker. May come twice."""
        self._connection.stop()

    def _open(self, channel: Any, ready: Callable[[], None]) -> None:
        self._consumer.open(channel, ready)

    def _lose(self, fault: NearmqError) -> None:
        self._consumer.lose(fault)


def _source(queue: str, names: Names) -> Source:
    if queue == names.queue("write"):
        return Source(queue=queue, most=_WRITES_HELD, is_ordered=True)
    # Maintenance takes minutes: who has a job of it leaves the next to another worker.
    return Source(queue=queue, most=1) if queue == names.queue("maintain") else Source(queue=queue)
