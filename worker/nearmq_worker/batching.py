"""The jobs that wait for a compute thread, and which of them are taken together.

A thread that falls free takes everything that waits for the same thing as one job does: batching that adds no delay,
since nobody ever waits for a batch to fill. Collections take turns, a batch each, so that a flood of jobs on one of
them delays a job on another by a batch and no more; within a collection, what has waited longest comes first.

Jobs that write stand in one line, and one batch of it runs at a time: the row writes of one collection, as many as
wait. They may pass row writes of other collections, but nothing that makes, drops or renames, and nothing passes those.
The line has a turn of its own.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence

import msgspec

from nearmq.amqp import Delivery
from nearmq.jobs import CreateJob, DeleteJob, DropJob, Job, RenameJob, RowWriteJob, SearchJob

#: More share no more of what a batch saves, and the answers to the first would wait for the last: with 256 one-query
#: jobs in flight, 64 give an eighth more of them a second than as many as wait.
_MOST_SEARCHES = 64

_ROW_WRITES = (RowWriteJob, DeleteJob)
_WRITES = (*_ROW_WRITES, CreateJob, DropJob, RenameJob)


class Task(msgspec.Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """A decoded job beside the delivery that it came in; equal to no other one.

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
        """How many query vectors the job holds or names by id."""
        if not isinstance(self.job, SearchJob):
            return 0
        return len(self.job.ids or [] if self.job.vectors is None else self.job.vectors)


class Group(msgspec.Struct, frozen=True, gc=False):
    """What jobs have in common that are taken together; of an exclusive group only one batch runs at a time."""

    key: Hashable
    exclusive: bool = False


#: The oldest group first.
_Groups = OrderedDict[Group, deque[Task]]

_WRITE_LINE = Group("writes", exclusive=True)


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
    return _WRITE_LINE if is_write(job) else Group(object())


def is_write(job: Job) -> bool:
    """Say whether a job changes what the catalog or a collection holds."""
    return isinstance(job, _WRITES)


def is_row_write(job: Job) -> bool:
    """Say whether a job writes rows of one collection, so that it may be committed together with others."""
    return isinstance(job, _ROW_WRITES)


class WaitingJobs:
    """Tasks by group, and groups by whose turn it is. Safe for many threads."""

    def __init__(self, *, batch_queries: int, batch_bytes: int) -> None:
        self._batch_queries = batch_queries
        self._batch_bytes = batch_bytes
        self._resume_at: dict[str, float] = {}  # `time.monotonic()`, by collection
        self._turns: OrderedDict[Hashable, _Groups] = OrderedDict()  # the one that had its turn last at the end
        self._running: set[Group] = set()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def put(self, tasks: Sequence[Task]) -> None:
        """Add tasks; after `close` they are still kept, for `drain`."""
        with self._changed:
            for task in tasks:
                group = group_of(task)
                turn = group if group.exclusive else getattr(task.job, "collection", None)
                self._turns.setdefault(turn, OrderedDict()).setdefault(group, deque()).append(task)
            self._changed.notify()  # whoever takes some of them and leaves others wakes the next

    def take(self) -> tuple[Group, list[Task]] | None:
        """Wait for tasks and take those of a group; None when closed.

        A batch holds at most 64 searches and `batch_queries` queries, or `batch_bytes` of bodies that write, but always
        one task. Call `done` with the group afterwards.
        """
        with self._changed:
            while not self._closed:
                self._forget_pauses()  # else a pause that is over, with no write waiting, would make this a busy loop
                for turn, groups in self._turns.items():
                    group, waiting = next(iter(groups.items()))
                    if group in self._running:
                        continue
                    batch = self._write_batch(waiting) if group == _WRITE_LINE else self._batch(waiting)
                    if batch:
                        self._end_turn(turn, group)
                        if self._turns:
                            self._changed.notify()
                        return group, batch
                self._changed.wait(self._until_resumed())
            return None

    def pause(self, collection: str, seconds: float) -> None:
        """Leave the row writes of a collection waiting for so long."""
        with self._changed:
            self._resume_at[collection] = time.monotonic() + seconds
            self._changed.notify_all()  # those who wait have to look at the time now

    def done(self, group: Group) -> None:
        """Say that a batch of this group has ended, so that an exclusive group's next one may start."""
        if group.exclusive:
            with self._changed:
                self._running.discard(group)
                self._changed.notify()

    def withdraw(self, job_id: str) -> list[Task]:
        """Take the jobs of this id, in whatever order, but no writes: these keep their place in the line."""
        with self._changed:
            withdrawn: list[Task] = []
            for turn in [turn for turn in self._turns if turn != _WRITE_LINE]:
                for group, waiting in list(self._turns[turn].items()):
                    found = [task for task in waiting if task.delivery.message.message_id == job_id]
                    for task in found:
                        waiting.remove(task)
                    withdrawn += found
                    self._drop_if_empty(turn, group)
            return withdrawn

    def drain(self) -> list[Task]:
        """Take all that wait."""
        with self._changed:
            tasks = [task for groups in self._turns.values() for waiting in groups.values() for task in waiting]
            self._turns.clear()
            return tasks

    def close(self) -> None:
        """Let every `take` return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _batch(self, waiting: deque[Task]) -> list[Task]:
        batch = [waiting.popleft()]
        room = self._batch_queries - batch[0].queries
        while waiting and waiting[0].queries <= room and len(batch) < _MOST_SEARCHES:
            batch.append(waiting.popleft())
            room -= batch[-1].queries
        return batch

    def _write_batch(self, line: deque[Task]) -> list[Task]:
        """Take the next batch of the line of writes; empty while all of it has to wait."""
        left: deque[Task] = deque()
        batch: list[Task] = []
        room = self._batch_bytes
        while line:
            task = line.popleft()
            if not is_row_write(task.job):
                (left if batch or left else batch).append(task)
                break
            collection = _collection(task)
            if collection != _collection(batch[0]) if batch else collection in self._resume_at:
                left.append(task)
                continue
            room -= len(task.delivery.message.body)
            if batch and room < 0:
                left.append(task)
                break
            batch.append(task)
        line.extendleft(reversed(left))
        if batch:
            self._running.add(_WRITE_LINE)
        return batch

    def _forget_pauses(self) -> None:
        now = time.monotonic()
        self._resume_at = {name: at for name, at in self._resume_at.items() if at > now}

    def _until_resumed(self) -> float | None:
        return max(0.0, min(self._resume_at.values()) - time.monotonic()) if self._resume_at else None

    def _end_turn(self, turn: Hashable, group: Group) -> None:
        """Put what is left of a group, and of the turn that it had, behind the others."""
        self._turns[turn].move_to_end(group)
        self._turns.move_to_end(turn)
        self._drop_if_empty(turn, group)

    def _drop_if_empty(self, turn: Hashable, group: Group) -> None:
        groups = self._turns[turn]
        if not groups[group]:
            del groups[group]
        if not groups:
            del self._turns[turn]


def _collection(task: Task) -> str:
    assert isinstance(task.job, RowWriteJob | DeleteJob)
    return task.job.collection
