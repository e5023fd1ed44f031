"""The jobs that wait for a compute thread, and which of them are taken together.

A thread that falls free takes everything that waits for the same thing as the oldest job does: batching that adds no
delay, since nobody ever waits for a batch to fill.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass

from nearmq.amqp import Delivery
from nearmq.jobs import DescribeJob, Job, ListJob, SearchJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A decoded job beside the delivery that it came in.

    Attributes:
        deadline_ms: milliseconds since 1970, of the job's own header; None when it has none.
        taken_at: `time.monotonic()` when it was received.
    """

    delivery: Delivery
    job: Job
    deadline_ms: int | None
    taken_at: float

    @property
    def queries(self) -> int:
        """How many query vectors the job holds."""
        return len(self.job.vectors) if isinstance(self.job, SearchJob) and self.job.vectors is not None else 0


@dataclass(frozen=True, slots=True)
class Group:
    """What jobs have in common that are taken together; of an exclusive group only one batch runs at a time."""

    key: Hashable
    exclusive: bool = False


def group_of(task: Task) -> Group:
    """Return the group of a job.

    Searches of the same collection, partitions, field and params go together. Writes go in one line, in their order.
    Every other job goes alone.
    """
    job = task.job
    if isinstance(job, SearchJob):
        partitions = None if job.partition_names is None else frozenset(job.partition_names)
        params = frozenset(job.params.items())
        return Group((job.collection, partitions, job.field, params))
    if isinstance(job, ListJob | DescribeJob):
        return Group(object())
    return Group("writes", exclusive=True)


class WaitingJobs:
    """A queue of tasks by group, oldest group first. Safe for many threads."""

    def __init__(self, *, batch_queries: int) -> None:
        self._batch_queries = batch_queries
        self._groups: OrderedDict[Group, deque[Task]] = OrderedDict()
        self._running: set[Group] = set()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, task: Task) -> None:
        """Add a task; after `close` it is still kept, for `drain`."""
        with self._changed:
            self._groups.setdefault(group_of(task), deque()).append(task)
            self._changed.notify()

    def take(self) -> tuple[Group, list[Task]] | None:
        """Wait for tasks and take those of the group that has waited longest; None when closed.

        A batch holds at most `batch_queries` queries, but always one task. Call `done` with the group afterwards.
        """
        with self._changed:
            while not self._closed:
                group = next((group for group in self._groups if group not in self._running), None)
                if group is None:
                    self._changed.wait()
                    continue
                if group.exclusive:
                    self._running.add(group)
                    return group, [self._next(group)]
                return group, self._batch(group)
            return None

    def done(self, group: Group) -> None:
        """Say that a batch of this group has ended, so that an exclusive group's next one may start."""
        if group.exclusive:
            with self._changed:
                self._running.discard(group)
                self._changed.notify()

    def drain(self) -> list[Task]:
        """Take all that wait, oldest group first."""
        with self._changed:
            tasks = [task for waiting in self._groups.values() for task in waiting]
            self._groups.clear()
            return tasks

    def close(self) -> None:
        """Let every `take` return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batch(self, group: Group) -> list[Task]:
        batch = [self._next(group)]
        room = self._batch_queries - batch[0].queries
        while group in self._groups and self._groups[group][0].queries <= room:
            batch.append(self._next(group))
            room -= batch[-1].queries
        if group in self._groups:  # what is left over has waited less long than the other groups
            self._groups.move_to_end(group)
        return batch

    def _next(self, group: Group) -> Task:
        """Take the oldest task of a group."""
        waiting = self._groups[group]
        task = waiting.popleft()
        if not waiting:
            del self._groups[group]
        return task
