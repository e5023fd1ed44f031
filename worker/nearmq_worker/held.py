"""The jobs that this worker holds, from their delivery to their answer: what `nearmq jobs` shows."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from nearmq.jobs import CancelJob, PingJob
from nearmq_worker.batching import Task

State = Literal["waiting", "running"]

#: Who asks is no part of the answer.
_NOT_SHOWN = (CancelJob, PingJob)


class HeldJobs:
    """Waiting and running tasks. Safe for many threads: each step is one operation of a dict."""

    def __init__(self) -> None:
        self._waiting: dict[int, Task] = {}  # by `id`, in the order of their delivery
        self._running: dict[int, Task] = {}

    def add(self, task: Task) -> None:
        """Take a task on, which waits until it runs."""
        self._waiting[id(task)] = task

    @contextmanager
    def running(self, tasks: Sequence[Task]) -> Iterator[None]:
        """Let tasks run, and be answered or given back when the context ends."""
        for task in tasks:
            self._running[id(task)] = task
            self._waiting.pop(id(task), None)
        try:
            yield
        finally:
            for task in tasks:
                self._running.pop(id(task), None)

    def find(self, job_id: str) -> tuple[State, Task] | None:
        """Return a task of this id, rather one that runs: a job may have been published twice."""
        return next(reversed(self._all(job_id)), None)

    def shown(self) -> list[dict[str, Any]]:
        """Return what the wire says of each job, those that came first in front, but none that asks for this."""
        now = time.monotonic()
        return [
            {
                "job_id": _job_id(task),
                "type": task.delivery.message.type,
                "collection": getattr(task.job, "collection", None),
                "state": state,
                "age_s": round(now - task.taken_at, 3),
                "queries": task.queries,
                "attempt": task.delivery.delivery_count + 1,
            }
            for state, task in sorted(self._all(), key=lambda held: held[1].taken_at)
            if not isinstance(task.job, _NOT_SHOWN)
        ]

    def _all(self, job_id: str | None = None) -> list[tuple[State, Task]]:
        """Return the tasks, of one id or of all, the running ones last."""
        # The waiting are read first, so that one which begins meanwhile is not missed; it is there twice then.
        held: dict[int, tuple[State, Task]] = {}
        states: dict[State, dict[int, Task]] = {"waiting": self._waiting, "running": self._running}
        for state, tasks in states.items():
            for key, task in list(tasks.items()):
                if job_id in {None, _job_id(task)}:
                    held.pop(key, None)
                    held[key] = state, task
        return list(held.values())


def _job_id(task: Task) -> str:
    return task.delivery.message.message_id
