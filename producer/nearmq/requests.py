"""The jobs of one client that await an answer: published, published again after a reconnect, answered or timed out."""

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

import msgspec

from nearmq.bundles import BUNDLE_TYPE
from nearmq.codec import decode_bundle, decode_reply
from nearmq.errors import BrokerUnavailable, Internal, NearmqError, QueueFull, ReplyTimeout, from_code
from nearmq.futures import confirmed, following
from nearmq.job_message import job_message
from nearmq.jobs import CancelJob, Reply
from nearmq.parts import HEADER, Parts
from nearmq.topology import CONTROL_TYPES, QUEUE_TYPES
from nearmq.transport import ConnectionLost, Message, Transport

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Sees each reply to a job; returns the result when it is the last one needed, else None.
Gather = Callable[[Reply], T | None]


class _Request(Future[Any]):
    """A job that awaits an answer, and the future that its caller has: one object, for there are thousands of them.

    Args:
        on_cancelled: called when the caller has cancelled it.
    """

    def __init__(
        self, message: Message, gather: Gather[Any], timeout_s: float, on_cancelled: Callable[["_Request"], None]
    ) -> None:
        super().__init__()
        self.message = message
        self.gather = gather
        self.timeout_s = timeout_s
        self.is_confirmed = False
        self._on_cancelled = on_cancelled
        self._parts: Parts | None = None  # of a reply that comes in several messages

    def cancel(self) -> bool:
        """Cancel it, and have the job forgotten."""
        is_cancelled = super().cancel()
        if is_cancelled:
            self._on_cancelled(self)
        return is_cancelled

    def reply_of(self, message: Message) -> Reply | None:
        """Return the reply of a message; None while parts of it are missing."""
        if HEADER not in message.headers:
            return decode_reply(message.body)
        if self._parts is None:
            self._parts = Parts()
        body = self._parts.add(message)
        return None if body is None else decode_reply(body)


class Requests:
    """A bounded map from job id to the future that its reply resolves.

    A job stays in the map until it is answered or its timeout passes; whenever the transport has connected again, every
    job still in the map is published once more under its id, for its reply may be lost, in the order of their
    submission: writes take effect in it. Safe for many threads.
    """

    def __init__(self, transport: Transport, *, max_pending: int) -> None:
        self._transport = transport
        self._max_pending = max_pending
        self._pending: dict[str, _Request] = {}
        self._deadlines: list[tuple[float, str]] = []  # a heap; entries of answered jobs stay until their time
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._earlier = threading.Condition(self._lock)
        self._closed = False
        # Held while publishing, so that after a loss no new job overtakes those that are published again.
        self._order = threading.RLock()
        self._is_lost = False
        self._timer = threading.Thread(target=self._expire, name="nearmq-timeouts", daemon=True)

    def start(self) -> None:
        """Connect; raises what `Transport.start` raises."""
        self._transport.start(on_reply=self._on_reply, on_connected=self._on_connected)
        self._timer.start()

    def submit(self, message: Message, *, timeout_s: float, gather: Gather[T]) -> Future[T]:
        """Publish a job and return the future of what `gather` makes of its replies.

        The future fails with the exception of an error reply's code, with ReplyTimeout when `timeout_s` passes, or
        BrokerUnavailable when it passes before the broker confirmed the job. Cancelling the future forgets the job, and
        workers are told to when it is one that writes nothing. A job whose id awaits a reply already is not published
        again: its future ends as that of the first.

        Raises:
            QueueFull: `max_pending` jobs await a reply, and none was answered within `timeout_s`.
        """
        pending = _Request(message, gather, timeout_s, self._on_cancelled)
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while len(self._pending) >= self._max_pending and not self._closed:
                if not self._room.wait(deadline - time.monotonic()):
                    raise QueueFull(
                        f"{self._max_pending} jobs of this client await a reply, none came in {timeout_s} s"
                    )
            if self._closed:
                raise BrokerUnavailable("the client is closed")
            same = self._pending.get(message.message_id)
            if same is not None:
                return following(same)
            self._pending[message.message_id] = pending
            heapq.heappush(self._deadlines, (deadline, message.message_id))
            if self._deadlines[0][1] == message.message_id:
                self._earlier.notify()
        with self._order:
            if not self._is_lost:  # else _on_connected publishes it, in its turn
                self._publish(pending)
        return pending

    def publish(self, message: Message, *, timeout_s: float) -> None:
        """Publish a job whose reply goes elsewhere, and return when the broker has confirmed it.

        Raises:
            BrokerUnavailable: not confirmed within `timeout_s`; the job may have been taken all the same.
            QueueFull, PermissionDenied: as `Transport.publish`.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            confirm = confirmed(partial(self._transport.publish, message))
            try:
                confirm.result(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                raise BrokerUnavailable(f"job {message.message_id} was not confirmed in {timeout_s} s") from None
            except NearmqError as error:
                error.job_id = message.message_id
                if not isinstance(error, ConnectionLost) or time.monotonic() + _RETRY_S > deadline or self._closed:
                    raise
                time.sleep(_RETRY_S)
            else:
                return

    def stop(self) -> None:
        """Close the transport; what is still pending fails with BrokerUnavailable. May come twice."""
        with self._lock:
            self._closed = True
            abandoned = list(self._pending.values())
            self._room.notify_all()
            self._earlier.notify()
        self._transport.stop()
        for pending in abandoned:
            self._fail(pending, BrokerUnavailable("the client was closed before the reply came"))
        if self._timer.ident is not None:
            self._timer.join()

    def _publish(self, pending: _Request) -> None:
        self._transport.publish(pending.message, partial(self._on_confirm, pending))

    def _on_cancelled(self, pending: _Request) -> None:
        """Forget a job whose future the caller has cancelled; workers need not go on with it either.

        What becomes of a write is not to depend on how far it had come: it goes on, and is cancelled by its id alone.
        """
        if self._take(pending) and pending.message.type not in _GOES_ON:
            self._transport.publish(job_message(CancelJob(job_ids=[pending.message.message_id])), lambda _: None)

    def _on_confirm(self, pending: _Request, error: NearmqError | None) -> None:
        if error is None:
            pending.is_confirmed = True
        elif isinstance(error, ConnectionLost):  # _on_connected publishes it again
            with self._order:
                self._is_lost = True
        else:
            self._fail(pending, error)

    def _on_connected(self) -> None:
        with self._order:
            with self._lock:
                waiting = list(self._pending.values())
            self._is_lost = False
            for pending in waiting:
                self._publish(pending)

    def _on_reply(self, message: Message) -> None:
        if message.type == BUNDLE_TYPE:
            for job_id, body in _bodies(message):
                if pending := self._pending_of(job_id):
                    self._resolve(pending, partial(decode_reply, body))
        elif pending := self._pending_of(message.correlation_id):
            self._resolve(pending, partial(pending.reply_of, message))

    def _pending_of(self, job_id: str | None) -> _Request | None:
        """Return the job of a reply; None when it was answered before, or is forgotten."""
        with self._lock:
            return self._pending.get(job_id or "")

    def _resolve(self, pending: _Request, read: Callable[[], Reply | None]) -> None:
        try:
            reply = read()
            result = None if reply is None else pending.gather(reply)
        except Exception as error:  # such as a result of another form than this release knows
            self._fail(pending, error)
            return
        if result is not None and self._take(pending) and pending.set_running_or_notify_cancel():
            pending.set_result(result)

    def _fail(self, pending: _Request, error: BaseException) -> None:
        if isinstance(error, NearmqError):
            error.job_id = pending.message.message_id
        if self._take(pending) and pending.set_running_or_notify_cancel():
            pending.set_exception(error)

    def _take(self, pending: _Request) -> bool:
        """Remove the job from the map; of all that try, the one that is told True settles its future."""
        with self._lock:
            if self._pending.get(pending.message.message_id) is not pending:
                return False
            del self._pending[pending.message.message_id]
            self._room.notify()
            return True

    def _expire(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                now = time.monotonic()
                if not self._deadlines or self._deadlines[0][0] > now:
                    self._earlier.wait(self._deadlines[0][0] - now if self._deadlines else None)
                    continue
                _, job_id = heapq.heappop(self._deadlines)
                pending = self._pending.get(job_id)
            if pending is not None:
                self._fail(pending, _timeout_error(pending))


_RETRY_S = 0.25

#: The types of jobs that cancelling their future does not cancel.
_GOES_ON = {*QUEUE_TYPES["write"], *CONTROL_TYPES}


def raise_error(reply: Reply) -> Reply:
    """Return the reply, or raise the exception of its error."""
    if reply.error is None:
        return reply
    raise from_code(
        reply.error.code, reply.error.message, field=reply.error.field, retryable=reply.error.retryable
    ) from None


def final(reply: Reply, *, on_progress: Callable[[float], None] | None = None) -> Reply | None:
    """Return the reply, or raise the exception of its error; None when it only tells the progress of its job.

    A search that its deadline cut short is `partial` too, but has hits, and is answered.
    """
    if reply.status != "partial" or reply.hits is not None:
        return raise_error(reply)
    if on_progress is not None:
        on_progress((reply.result or {}).get("progress", 0.0))
    return None


def _bodies(message: Message) -> list[tuple[str, msgspec.Raw]]:
    try:
        return decode_bundle(message.body)
    except Internal as error:  # whose jobs it answered is not known, so they time out
        logger.warning("replies that cannot be read were dropped", extra={"reason": error.message})
        return []


def _timeout_error(pending: _Request) -> NearmqError:
    job_id = pending.message.message_id
    if pending.is_confirmed:
        return ReplyTimeout(f"no reply to job {job_id} in {pending.timeout_s} s")
    return BrokerUnavailable(f"the broker did not confirm job {job_id} in {pending.timeout_s} s")
