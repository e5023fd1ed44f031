"""Futures of what becomes of a message, or of a reply."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from nearmq.jobs import Reply
from nearmq.transport import OnConfirm

T = TypeVar("T")


def confirmed(publish: Callable[[OnConfirm], None]) -> Future[None]:
    """Return the future of what becomes of a message that is published so."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    publish(lambda fault: future.set_result(None) if fault is None else future.set_exception(fault))
    return future


def mapped(replies: Future[Reply], convert: Callable[[Reply], T]) -> Future[T]:
    """Return the future of the converted reply; cancelling one of the two cancels the other."""
    results: Future[T] = Future()

    def settle(done: Future[Reply]) -> None:
        if done.cancelled():
            results.cancel()
        if not results.set_running_or_notify_cancel():
            return
        try:
            results.set_result(convert(done.result()))
        except Exception as error:
            results.set_exception(error)

    results.add_done_callback(lambda done: replies.cancel() if done.cancelled() else None)
    replies.add_done_callback(settle)
    return results
