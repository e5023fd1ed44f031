"""Futures of what becomes of a message."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from nearmq.transport import OnConfirm

T = TypeVar("T")


def confirmed(publish: Callable[[OnConfirm], None]) -> Future[None]:
    """Return the future of what becomes of a message that is published so."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    publish(lambda fault: future.set_result(None) if fault is None else future.set_exception(fault))
    return future


def following(first: Future[T]) -> Future[T]:
    """Return another future of what a future ends as; cancelling one of the two cancels the other."""
    second: Future[T] = Future()

    def settle(done: Future[T]) -> None:
        if done.cancelled():
            second.cancel()
        if not second.set_running_or_notify_cancel():
            return
        error = done.exception()
        if error is None:
            second.set_result(done.result())
        else:
            second.set_exception(error)

    second.add_done_callback(lambda done: first.cancel() if done.cancelled() else None)
    first.add_done_callback(settle)
    return second
