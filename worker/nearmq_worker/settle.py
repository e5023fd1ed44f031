"""How a delivery ends. Every reply is confirmed by the broker before its job is acknowledged.

    what happened                                what becomes of the delivery
    answered, with a result or an error          reply published and confirmed, then acknowledged
    answered, and nobody asked for a reply       acknowledged
    answered, and no queue takes the reply       reply recorded in the dead letters, then acknowledged
    cannot be parsed or answered, or is poison   job recorded in the dead letters with the reason, then acknowledged
    the dead letters take nothing                rejected: the broker delivers it again, up to its queue's limit
    not begun                                    given back
    the consuming connection was lost            nothing: the broker delivers it again
    the publishing connection was lost           published again once it is back, then as above

So a reply may come twice, and is never lost.
"""

import itertools
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Protocol

from nearmq.amqp import Connection, Publisher, Returned
from nearmq.errors import InvalidArgument, NearmqError, QueueFull
from nearmq.parts import split
from nearmq.topology import Names, check_reply_to, is_direct_reply_to
from nearmq.transport import Message
from nearmq_worker.receive import Delivery, Receiver
from nearmq_worker.telemetry import JOB_DEAD, REPLY_DEAD

logger = logging.getLogger(__name__)

#: In the dead letters: why a message is there, and the queue that its job came from.
REASON_HEADER = "nearmq-reason"
QUEUE_HEADER = "nearmq-queue"

#: All that a reply takes over from its job's headers.
_TRACE_HEADERS = ("traceparent", "tracestate")


class Settler(Protocol):
    """Ends deliveries, each once, after any number of `progress`. Safe for many threads; no method waits."""

    def answer(self, delivery: Delivery, body: bytes) -> None:
        """Send the job's last reply; the job is done."""
        ...

    def progress(self, delivery: Delivery, body: bytes) -> None:
        """Send a reply that is not the last; nobody notices when it is lost."""
        ...

    def give_back(self, delivery: Delivery) -> None:
        """Leave a job that was not begun to another worker."""
        ...

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Set a job aside that cannot be answered, with the reason."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outgoing:
    exchange: str
    message: Message
    mandatory: bool


class _Settlement:
    """A delivery, and the messages that have to be confirmed before it is acknowledged."""

    def __init__(self, delivery: Delivery, messages: Sequence[_Outgoing]) -> None:
        self.delivery = delivery
        self.messages = tuple(messages)
        self._lock = threading.Lock()
        self._left = len(self.messages)
        self._fault: BaseException | None = None

    def publish(self, publisher: Publisher, on_end: Callable[["_Settlement", BaseException | None], None]) -> None:
        """Publish the messages; `on_end` is called once, with the first fault if there is one."""

        def on_confirm(confirmed: Future[None]) -> None:
            with self._lock:
                self._left -= 1
                self._fault = self._fault or confirmed.exception()
                is_last = self._left == 0
            if is_last:
                on_end(self, self._fault)

        for outgoing in self.messages:
            confirmed = publisher.publish(outgoing.exchange, outgoing.message, mandatory=outgoing.mandatory)
            confirmed.add_done_callback(on_confirm)

    def again(self) -> "_Settlement":
        """Return a copy to be published from the start."""
        return _Settlement(self.delivery, self.messages)


class AmqpSettler:
    """A `Settler` that publishes replies on a connection of its own and settles on the receiver's.

    Args:
        part_bytes: a longer reply is sent in parts of so many bytes.
    """

    def __init__(self, url: str, receiver: Receiver, *, names: Names, worker: str, part_bytes: int) -> None:
        self._receiver = receiver
        self._names = names
        self._control_queue = names.control_queue(worker)
        self._part_bytes = part_bytes
        # Replies are numbered: random bytes for each cost a system call, and the lock of the interpreter with it.
        self._identity = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._connection = Connection(
            url, name=f"nearmq worker {worker} publishing", on_open=self._open, on_lost=self._lose
        )
        self._publisher = Publisher(self._connection)
        self._changed = threading.Condition()
        self._open_settlements: set[_Settlement] = set()
        self._lost: list[_Settlement] = []  # of the open ones, those that wait for the connection

    def start(self) -> None:
        """Connect. Raises BrokerUnavailable or PermissionDenied when the first attempt fails."""
        self._connection.start()

    def healthy(self) -> bool:
        """Whether replies can be published."""
        return self._connection.healthy()

    def answer(self, delivery: Delivery, body: bytes) -> None:
        """Publish the reply, in parts if it is long, and acknowledge the job once all of it is confirmed."""
        reply_to = delivery.message.reply_to
        if reply_to is None:
            self._receiver.settle(delivery, "ack")
            return
        try:
            check_reply_to(reply_to, self._names)
        except InvalidArgument as error:
            self.dead(delivery, error.message)
            return
        self._begin(_Settlement(delivery, self._replies(delivery.message, reply_to, body, is_last=True)))

    def progress(self, delivery: Delivery, body: bytes) -> None:
        """Publish a reply that is not the last, at most once."""
        reply_to = delivery.message.reply_to
        if reply_to is None:
            return
        for outgoing in self._replies(delivery.message, reply_to, body, is_last=False):
            self._publisher.publish(outgoing.exchange, outgoing.message, mandatory=outgoing.mandatory)

    def give_back(self, delivery: Delivery) -> None:
        """Return a job that was not begun; RabbitMQ counts this as a failure before 4.3 only."""
        self._receiver.settle(delivery, "nack")

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Publish the job to the dead letters with the reason, and acknowledge it once that is confirmed.

        Rejecting it for good would bring it there too, but cannot carry a reason.
        """
        logger.warning(JOB_DEAD, extra={"job_id": delivery.message.message_id, "reason": reason})
        self._begin(_Settlement(delivery, [self._dead_letter(delivery, delivery.message, reason)]))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was answered is confirmed and acknowledged; say whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open_settlements, timeout_s)

    def stop(self) -> None:
        """Close; what is not confirmed by now is answered again by another worker. May come twice."""
        self._connection.stop()

    def _replies(self, job: Message, reply_to: str, body: bytes, *, is_last: bool) -> list[_Outgoing]:
        message_id = f"{self._identity}.{next(self._numbers)}"
        trace = {name: job.headers[name] for name in _TRACE_HEADERS if name in job.headers}
        return [
            _Outgoing(
                exchange="",
                message=Message(
                    routing_key=reply_to,
                    type="reply",
                    message_id=message_id,
                    correlation_id=job.correlation_id or job.message_id,
                    headers=trace | headers,
                    body=part,
                ),
                mandatory=is_last and not is_direct_reply_to(reply_to),
            )
            for headers, part in split(body, self._part_bytes)
        ]

    def _dead_letter(self, delivery: Delivery, message: Message, reason: str) -> _Outgoing:
        # x- is the broker's: what it counted belongs to the job's time in its queue.
        own = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
        headers = own | {REASON_HEADER: reason, QUEUE_HEADER: delivery.queue}
        return _Outgoing(exchange=self._names.dead, message=replace(message, headers=headers), mandatory=True)

    def _begin(self, settlement: _Settlement) -> None:
        with self._changed:
            self._open_settlements.add(settlement)
        settlement.publish(self._publisher, self._on_end)

    def _on_end(self, settlement: _Settlement, fault: BaseException | None) -> None:
        if fault is None:
            self._receiver.settle(settlement.delivery, "ack")
        elif not isinstance(fault, Returned | QueueFull | InvalidArgument):
            with self._changed:
                self._lost.append(settlement)
            return
        else:
            self._bury(settlement, fault)
        self._end(settlement)

    def _bury(self, settlement: _Settlement, fault: NearmqError) -> None:
        """Record a reply that nobody takes, or, when the dead letters take nothing either, return the job."""
        delivery = settlement.delivery
        if settlement.messages[0].exchange == self._names.dead:
            logger.error(REPLY_DEAD, extra={"job_id": delivery.message.message_id, "reason": fault.message})
            self._receiver.settle(delivery, "reject")
            return
        if delivery.queue == self._control_queue:  # best effort, and every worker would record its own
            self._receiver.settle(delivery, "ack")
            return
        logger.warning(REPLY_DEAD, extra={"job_id": delivery.message.message_id, "reason": fault.message})
        letters = [self._dead_letter(delivery, outgoing.message, fault.message) for outgoing in settlement.messages]
        self._begin(_Settlement(delivery, letters))

    def _end(self, settlement: _Settlement) -> None:
        with self._changed:
            self._open_settlements.discard(settlement)
            self._changed.notify_all()

    def _open(self, channel: Any, ready: Callable[[], None]) -> None:
        def opened() -> None:
            ready()
            self._publish_lost()

        self._publisher.open(channel, opened)

    def _lose(self, fault: NearmqError) -> None:
        self._publisher.lose(fault)

    def _publish_lost(self) -> None:
        with self._changed:
            lost, self._lost = self._lost, []
        for settlement in lost:
            if self._receiver.is_current(settlement.delivery):
                self._begin(settlement.again())
            self._end(settlement)
