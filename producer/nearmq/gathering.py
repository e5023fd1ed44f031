"""The answers of all live workers to one job, of which nobody knows beforehand how many there will be."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from nearmq.jobs import Reply
from nearmq.requests import raise_error

#: After the first worker's answer, how long others may take to show that they live.
_GATHER_S = 0.25


class Gathered:
    """Collects answers by worker, and waits until each worker that answered has finished."""

    def __init__(self, on_progress: Callable[[float], None] | None) -> None:
        self._on_progress = on_progress
        self._replies: dict[str, Reply] = {}  # the last of each worker; the waiting thread's alone
        self._unread: list[Reply] = []
        self._first_at: float | None = None
        self._news = threading.Condition()

    def add(self, reply: Reply) -> None:
        """Take one worker's progress or final answer; never the last, for nobody knows how many workers live."""
        with self._news:
            if self._first_at is None:
                self._first_at = time.monotonic()
            self._unread.append(reply)
            self._news.notify()

    def wait(self, future: Future[Reply]) -> dict[str, Any]:
        """Wait until every worker that answered has finished; the future only ever fails, by time-out or connection."""
        future.add_done_callback(self._wake)
        try:
            while not self._is_complete(future):
                self._read()
        finally:
            future.cancel()
        replies = {worker: raise_error(reply) for worker, reply in sorted(self._replies.items())}
        return {"workers": {worker: reply.result or {} for worker, reply in replies.items()}}

    def _is_complete(self, future: Future[Reply]) -> bool:
        """Wait for news; say whether all have finished. Raises what the future failed with."""
        with self._news:
            if future.done():
                future.result()
            if self._unread:
                return False
            all_final = bool(self._replies) and all(reply.status != "partial" for reply in self._replies.values())
            if not all_final or self._first_at is None:
                self._news.wait()
                return False
            left_s = self._first_at + _GATHER_S - time.monotonic()
            if left_s > 0:
                self._news.wait(left_s)
                return False
            return True

    def _read(self) -> None:
        """Take what came, and report after each reply: of two that came at once, the first is reported, too."""
        with self._news:
            unread, self._unread = self._unread, []
        for reply in unread:
            self._replies[reply.worker or ""] = reply
            if self._on_progress is not None:
                shares = list(map(_share, self._replies.values()))
                self._on_progress(sum(shares) / len(shares))

    def _wake(self, _: Future[Reply]) -> None:
        with self._news:
            self._news.notify()


def _share(reply: Reply) -> float:
    progress: float = (reply.result or {}).get("progress", 0.0) if reply.status == "partial" else 1.0
    return progress
