"""Whether anybody still waits for a job: its deadline has not passed, and nobody has cancelled it."""

import time
from collections.abc import Sequence

import msgspec

from nearmq.errors import Cancelled, DeadlineExceeded, NearmqError
from nearmq.jobs import Job
from nearmq_index_store.recent import Recent
from nearmq_worker.batching import Task, is_row_write, is_write

#: Cancelled jobs that are remembered, and for how long: a job may come after its cancel, and be delivered again.
_KEPT = 16_384
_KEPT_S = 600.0


class CancelledJobs:
    """The ids of the jobs that were cancelled lately. Safe for many threads."""

    def __init__(self) -> None:
        self._until: Recent[str, float] = Recent(_KEPT)  # `time.monotonic()`

    def add(self, job_id: str) -> None:
        """Remember a job, which this worker may not have yet."""
        self._until.put(job_id, time.monotonic() + _KEPT_S)

    def __contains__(self, job_id: str) -> bool:
        """Say whether a job was cancelled."""
        if not self._until.held:  # as nearly always, and asked for each job several times
            return False
        until = self._until.get(job_id)
        return until is not None and time.monotonic() < until


class Awaited(msgspec.Struct, frozen=True, gc=False):
    """A job that somebody waits for until some time, or until it is cancelled.

    Attributes:
        expires_at: `time.monotonic()` after which nobody waits, or it has computed for too long.
    """

    job_id: str
    expires_at: float
    cancelled: CancelledJobs

    def fault(self) -> NearmqError | None:
        """Return why nobody waits any more; None while somebody does."""
        if self.job_id in self.cancelled:
            return Cancelled("the job was cancelled")
        if time.monotonic() > self.expires_at:
            return DeadlineExceeded("the job's deadline passed before its result was complete")
        return None

    def check(self) -> None:
        """Raise DeadlineExceeded or Cancelled when nobody waits any more."""
        check_any([self])


class Patience:
    """Knows until when each job is awaited.

    Args:
        most_s: how long a job may compute, where its own deadline is later.
    """

    def __init__(self, most_s: float, cancelled: CancelledJobs) -> None:
        self._most_s = most_s
        self._cancelled = cancelled

    def of(self, task: Task) -> Awaited:
        """Start the time of a job."""
        left_s = self._most_s
        if task.deadline_ms is not None:
            left_s = min(left_s, task.deadline_ms / 1_000 - time.time())
        return Awaited(task.delivery.message.message_id, time.monotonic() + left_s, self._cancelled)

    def fault(self, task: Task) -> NearmqError | None:
        """Return why a job that is taken up is not worth beginning; None when it is."""
        if task.deadline_ms is not None and (late_ms := time.time_ns() // 1_000_000 - task.deadline_ms) >= 0:
            return DeadlineExceeded(f"the job was taken up {late_ms} ms after its deadline")
        if task.delivery.message.message_id in self._cancelled and can_be_cancelled(task.job):
            return Cancelled("the job was cancelled before it began")
        return None


def can_be_cancelled(job: Job) -> bool:
    """Say whether a job that has not begun can be cancelled: a create, drop or rename cannot, it takes but a moment."""
    return is_row_write(job) or not is_write(job)


def check_any(jobs: Sequence[Awaited]) -> None:
    """Raise the fault of the first of some jobs, at least one, when nobody waits for any of them."""
    fault: NearmqError | None = None
    for job in jobs:
        own = job.fault()
        if own is None:
            return
        fault = fault or own
    assert fault is not None
    raise fault
