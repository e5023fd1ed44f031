"""How a delivery ends. Every reply is confirmed by the broker before its job is acknowledged.

    what happened                                what becomes of the delivery
    answered, with a result or an error          reply published and confirmed, then acknowledged
    answered, and nobody asked for a reply       acknowledged
    answered, and no queue takes the reply       reply recorded in the dead letters, then acknowledged
    cannot be answered, or is poison             job recorded in the dead letters with the reason, then acknowledged
    the dead letters take nothing                rejected: the broker delivers it again, up to its queue's limit
    not begun                                    given back
    the consuming connection was lost            nothing: the broker delivers it again
    the publishing connection was lost           published again once it is back, then as above

So a reply may come twice, and is never lost. Those of a batch that go to one address leave in one message if their jobs
allow it; what becomes of it becomes of each.
"""

import contextlib
import itertools
import logging
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from nearmq import bundles
from nearmq.amqp import Connection, Outgoing, Publisher, Returned
from nearmq.dead_letters import QUEUE_HEADER, REASON_HEADER, REPLY_TYPE
from nearmq.errors import InvalidArgument, NearmqError, QueueFull
from nearmq.parts import split
from nearmq.topology import Names, check_reply_to, is_direct_reply_to
from nearmq.transport import Message
from nearmq_worker.answered import AnsweredJobs
from nearmq_worker.receive import Delivery, Receiver
from nearmq_worker.telemetry import JOB_DEAD, REPLY_DEAD

logger = logging.getLogger(__name__)

#: All that a reply takes over from its job's headers.
_TRACE_HEADERS = ("traceparent", "tracestate")


class Settler(Protocol):
    """Ends deliveries, each once, after any number of `progress`. Safe for many threads; no method waits."""

    def is_lost(self, delivery: Delivery) -> bool:
        """Say whether a delivery cannot be ended any more, since its job is delivered again."""
        ...

    def answer(self, delivery: Delivery, body: bytes) -> None:
        """Send the job's last reply; the job is done."""
        ...

    def answer_all(self, answers: Iterable[tuple[Delivery, bytes]]) -> None:
        """Send the last replies of a batch of jobs, together."""
        ...

    def progress(self, delivery: Delivery, body: bytes) -> None:
        """Send a reply that is not the last; nobody notices when it is lost."""
        ...

    def give_back(self, delivery: Delivery) -> None:
        """Leave a job that was not begun to another worker."""
        ...

    def dead(self, delivery: Delivery, reason: str, body: bytes | None = None) -> None:
        """Set a job aside with the reason, and send a reply too if there is one."""
        ...

    def submit(self, message: Message) -> None:
        """Publish a job of the worker's own; nobody notices when it is lost."""
        ...


class _Outbound(NamedTuple):
    """A message to publish, and how."""

    exchange: str
    message: Message
    mandatory: bool


class _Settlement:
    """Deliveries, and the messages that have to be confirmed before they are acknowledged.

    Attributes:
        answers: each delivery with its reply, which is None where the messages are dead letters. Several where one
            message has all replies.
    """

    def __init__(
        self,
        answers: Sequence[tuple[Delivery, bytes | None]],
        messages: Sequence[_Outbound],
        on_end: Callable[["_Settlement", NearmqError | None], None],
    ) -> None:
        """Nothing is published yet.

        Args:
            on_end: called once, with the first fault if there is one.
        """
        self.answers = answers
        self._messages = messages
        self._on_end = on_end
        # Its messages are published by one call, so they end in one thread.
        self._left = len(messages)
        self._fault: NearmqError | None = None

    def outgoing(self) -> list[Outgoing]:
        """Return the messages to publish."""
        return [Outgoing(*message, on_end=self._on_confirm) for message in self._messages]

    def again(self) -> "_Settlement":
        """Return a copy to be published from the start."""
        return _Settlement(self.answers, self._messages, self._on_end)

    def _on_confirm(self, fault: NearmqError | None) -> None:
        self._left -= 1
        self._fault = self._fault or fault
        if self._left == 0:
            self._on_end(self, self._fault)


class AmqpSettler:
    """A `Settler` that publishes replies on a connection of its own and settles on the receiver's.

    Args:
        part_bytes: a longer reply is sent in parts of so many bytes.
        reply_pattern: turns hardened mode on: replies go through the exchange of replies alone, and only to names that
            match the whole pattern. Without, they go straight to the queue, for which the default exchange is needed.
        answered: is given the replies whose jobs come again.
    """

    def __init__(
        self,
        url: str,
        receiver: Receiver,
        *,
        names: Names,
        worker: str,
        part_bytes: int,
        reply_pattern: re.Pattern[str] | None = None,
        answered: AnsweredJobs | None = None,
    ) -> None:
        self._receiver = receiver
        self._answered = answered or AnsweredJobs()
        self._names = names
        self._reply_pattern = reply_pattern
        self._reply_exchange = "" if reply_pattern is None else names.replies
        self._control_queue = names.control_queue(worker)
        self._part_bytes = part_bytes
        self._bundle_bytes = min(bundles.MOST_BYTES, part_bytes)
        # Replies are numbered: random bytes for each cost a system call, and the lock of the interpreter with it.
        self._identity = uuid.uuid4().hex
        self._numbers = itertools.count(1)
        self._connection = Connection(
            url, name=f"nearmq worker {worker} publishing", on_open=self._open, on_lost=self._lose
        )
        self._publisher = Publisher(self._connection, after_confirms=self._settle_confirmed)
        self._confirmed: list[_Settlement] = []  # that came together; in the connection's thread only
        self._changed = threading.Condition()
        self._open_settlements: set[_Settlement] = set()
        self._lost: list[_Settlement] = []  # of the open ones, those that wait for the connection

    def start(self) -> None:
        """Connect. Raises BrokerUnavailable or PermissionDenied when the first attempt fails."""
        self._connection.start()

    def is_lost(self, delivery: Delivery) -> bool:
        """Whether the delivery's connection has given way to another."""
        return self._receiver.is_lost(delivery)

    def healthy(self) -> bool:
        """Whether replies can be published."""
        return self._connection.healthy()

    @property
    def silent_s(self) -> float:
        """As of a `Receiver`."""
        return self._connection.silent_s

    def answer(self, delivery: Delivery, body: bytes) -> None:
        """Publish the reply, in parts if it is long, and acknowledge the job once all of it is confirmed."""
        self.answer_all([(delivery, body)])

    def answer_all(self, answers: Iterable[tuple[Delivery, bytes]]) -> None:
        """Publish the replies in one burst, each as `answer` does."""
        settlements = []
        by_address: defaultdict[str, list[tuple[Delivery, bytes]]] = defaultdict(list)
        for delivery, body in answers:
            job = delivery.message
            if job.reply_to is None:
                self._receiver.settle([delivery], "ack")
                continue
            try:
                check_reply_to(job.reply_to, self._names, hardened=self._reply_pattern)
            except InvalidArgument as error:
                self.dead(delivery, error.message)
                continue
            if bundles.takes_bundles(job):
                by_address[job.reply_to].append((delivery, body))
            else:
                settlements.append(self._answered_alone(delivery, body))
        for reply_to, waiting in by_address.items():
            shares = bundles.shared_out([len(body) for _, body in waiting], self._bundle_bytes)
            settlements += [self._answered_together(reply_to, waiting[share]) for share in shares]
        self._begin(settlements)

    def progress(self, delivery: Delivery, body: bytes) -> None:
        """Publish a reply that is not the last, at most once; to an address that none is sent to, not at all."""
        reply_to = delivery.message.reply_to
        if reply_to is None:
            return
        with contextlib.suppress(InvalidArgument):
            check_reply_to(reply_to, self._names, hardened=self._reply_pattern)
            replies = self._replies(delivery.message, reply_to, body, is_last=False)
            self._publisher.publish(*(Outgoing(*reply, on_end=_nobody_notices) for reply in replies))

    def give_back(self, delivery: Delivery) -> None:
        """Return a job that was not begun; RabbitMQ counts this as a failure before 4.3 only."""
        self._receiver.settle([delivery], "nack")

    def dead(self, delivery: Delivery, reason: str, body: bytes | None = None) -> None:
        """Publish the job to the dead letters with the reason, and acknowledge it once that is confirmed.

        Rejecting it for good would bring it there too, but cannot carry a reason. The reply is as one of `progress`.
        """
        logger.warning(JOB_DEAD, extra={"job_id": delivery.message.message_id, "reason": reason})
        if body is not None:
            self.progress(delivery, body)
        self._begin([self._buried(delivery, [delivery.message], reason)])

    def submit(self, message: Message) -> None:
        """Publish a job of the worker's own."""
        self._publisher.publish(Outgoing(self._names.jobs, message, mandatory=False, on_end=_nobody_notices))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was answered is confirmed and acknowledged; say whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open_settlements, timeout_s)

    def stop(self) -> None:
        """Close; what is not confirmed by now is answered again by another worker. May come twice."""
        self._connection.stop()

    def _answered_alone(self, delivery: Delivery, body: bytes) -> _Settlement:
        assert delivery.message.reply_to is not None
        replies = self._replies(delivery.message, delivery.message.reply_to, body, is_last=True)
        return _Settlement([(delivery, body)], replies, self._on_end)

    def _answered_together(self, reply_to: str, answers: Sequence[tuple[Delivery, bytes]]) -> _Settlement:
        if len(answers) == 1:
            return self._answered_alone(*answers[0])
        message = Message(
            routing_key=reply_to,
            type=bundles.BUNDLE_TYPE,
            message_id=self._new_message_id(),
            body=bundles.join([body for _, body in answers]),
        )
        return _Settlement(answers, [self._reply(message, is_last=True)], self._on_end)

    def _replies(self, job: Message, reply_to: str, body: bytes, *, is_last: bool) -> list[_Outbound]:
        """Return a reply as the messages to publish, to an address that was checked."""
        message_id = self._new_message_id()
        trace = {name: job.headers[name] for name in _TRACE_HEADERS if name in job.headers}
        messages = [
            Message(
                routing_key=reply_to,
                type=REPLY_TYPE,
                message_id=message_id,
                correlation_id=job.correlation_id or job.message_id,
                headers=trace | headers,
                body=part,
            )
            for headers, part in split(body, self._part_bytes)
        ]
        return [self._reply(message, is_last=is_last) for message in messages]

    def _reply(self, message: Message, *, is_last: bool) -> _Outbound:
        is_mandatory = is_last and not is_direct_reply_to(message.routing_key)
        return _Outbound(self._reply_exchange, message, mandatory=is_mandatory)

    def _new_message_id(self) -> str:
        return f"{self._identity}.{next(self._numbers)}"

    def _buried(self, delivery: Delivery, messages: Sequence[Message], reason: str) -> _Settlement:
        letters = [self._dead_letter(delivery, message, reason) for message in messages]
        return _Settlement([(delivery, None)], letters, self._on_end)

    def _dead_letter(self, delivery: Delivery, message: Message, reason: str) -> _Outbound:
        # x- is the broker's: what it counted belongs to the job's time in its queue.
        own = {name: value for name, value in message.headers.items() if not name.startswith("x-")}
        headers = own | {REASON_HEADER: reason, QUEUE_HEADER: delivery.queue}
        return _Outbound(self._names.dead, msgspec.structs.replace(message, headers=headers), mandatory=True)

    def _begin(self, settlements: Sequence[_Settlement]) -> None:
        with self._changed:
            self._open_settlements.update(settlements)
        self._publisher.publish(*(outgoing for settlement in settlements for outgoing in settlement.outgoing()))

    def _on_end(self, settlement: _Settlement, fault: NearmqError | None) -> None:
        if fault is None:
            self._note(settlement)
            self._confirmed.append(settlement)
            return
        if not isinstance(fault, Returned | QueueFull | InvalidArgument):
            with self._changed:
                self._lost.append(settlement)
            if self._connection.is_ready:  # it was back before the loss was told here
                self._connection.call(self._publish_lost)
            return
        for delivery, body in settlement.answers:
            self._bury(delivery, body, fault)
        self._end([settlement])

    def _note(self, settlement: _Settlement) -> None:
        """Keep confirmed replies whose jobs cannot be acknowledged."""
        for delivery, body in settlement.answers:
            if body is not None and not self._receiver.is_current(delivery):
                self._answered.note(delivery.message, body)

    def _bury(self, delivery: Delivery, body: bytes | None, fault: NearmqError) -> None:
        """Record a reply that nobody takes, or, when the dead letters take nothing either, return the job."""
        if body is None:
            logger.error(REPLY_DEAD, extra={"job_id": delivery.message.message_id, "reason": fault.message})
            self._receiver.settle([delivery], "reject")
            return
        if delivery.queue == self._control_queue:  # best effort, and every worker would record its own
            self._receiver.settle([delivery], "ack")
            return
        logger.warning(REPLY_DEAD, extra={"job_id": delivery.message.message_id, "reason": fault.message})
        assert delivery.message.reply_to is not None
        replies = self._replies(delivery.message, delivery.message.reply_to, body, is_last=True)
        self._begin([self._buried(delivery, [reply.message for reply in replies], fault.message)])

    def _settle_confirmed(self) -> None:
        if self._confirmed:
            confirmed, self._confirmed = self._confirmed, []
            self._receiver.settle([delivery for settlement in confirmed for delivery, _ in settlement.answers], "ack")
            self._end(confirmed)

    def _end(self, settlements: Sequence[_Settlement]) -> None:
        with self._changed:
            self._open_settlements.difference_update(settlements)
            if not self._open_settlements:
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
        self._begin([settlement.again() for settlement in lost if self._is_current(settlement)])
        self._end(lost)

    def _is_current(self, settlement: _Settlement) -> bool:
        return any(self._receiver.is_current(delivery) for delivery, _ in settlement.answers)


def _nobody_notices(_: NearmqError | None) -> None:
    """Let a message that is sent at most once be lost."""
