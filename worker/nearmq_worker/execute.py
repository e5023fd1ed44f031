"""Jobs in, replies out: what each job of a batch is answered, with no AMQP in sight."""

import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from nearmq.jobs import Reply, SearchJob, TimingMs
from nearmq_index_store.catalog import Catalog
from nearmq_worker.awaited import CancelledJobs, Patience
from nearmq_worker.batching import Task, is_row_write
from nearmq_worker.cache import SegmentCache
from nearmq_worker.catalog_jobs import run_catalog_job
from nearmq_worker.config import WorkerConfig
from nearmq_worker.read_jobs import READ_JOBS, Reader
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.search_jobs import Searcher
from nearmq_worker.write_jobs import Slow, Writer


class Executor:
    """Runs batches of jobs over the store's collections. Safe for many threads.

    Args:
        cancelled: the jobs that nobody waits for any more.
        slow: as for a Writer.
    """

    def __init__(
        self,
        catalog: Catalog,
        cache: SegmentCache,
        config: WorkerConfig,
        cancelled: CancelledJobs,
        slow: Slow = lambda _: 0.0,
    ) -> None:
        self._catalog = catalog
        self._name = config.name
        self._patience = Patience(config.deadline_s, cancelled)
        self._searcher = Searcher(catalog, cache, config, self._patience)
        self._writer = Writer(catalog, slow)
        self._reader = Reader(catalog, cache, config, self._patience)

    def close(self) -> None:
        """End the search threads."""
        self._searcher.close()

    def run(self, tasks: Sequence[Task]) -> list[Reply]:
        """Answer the tasks of one batch, in their order: one group's searches, row writes of a collection, or any job.

        A job that is expired or cancelled is answered so before anything is loaded, unless it is a write that took
        effect when it was delivered before. An exception that is no job's fault leaves this function, and the batch is
        unanswered.
        """
        started = time.monotonic()
        faults = {id(task): fault for task in tasks if (fault := self._patience.fault(task)) is not None}
        live = [task for task in tasks if id(task) not in faults]
        replies = {id(task): reply for task, reply in zip(live, self._answer(live), strict=True)}
        late = [task for task in tasks if id(task) in faults]
        written = self._writer.run_late(late) if late and is_row_write(late[0].job) else {}
        for task in late:
            job_id = task.delivery.message.message_id
            replies[id(task)] = written.get(job_id) or error_reply(job_id, faults[id(task)])
        return [self._stamped(task, replies[id(task)], started) for task in tasks]

    def run_alone(self, task: Task, run: Callable[[], Reply]) -> Reply:
        """Answer one task by calling `run`, which may take minutes; otherwise as `run` does."""
        started = time.monotonic()
        try:
            if fault := self._patience.fault(task):
                raise fault
            reply = run()
        except JOB_ERRORS as error:
            reply = error_reply(task.delivery.message.message_id, error)
        return self._stamped(task, reply, started)

    def _answer(self, tasks: Sequence[Task]) -> list[Reply]:
        if tasks and isinstance(tasks[0].job, SearchJob):
            return self._searcher.run(tasks)
        if tasks and is_row_write(tasks[0].job):
            return self._writer.run(tasks)
        return [self._run_alone(task) for task in tasks]

    def _run_alone(self, task: Task) -> Reply:
        job_id = task.delivery.message.message_id
        try:
            if isinstance(task.job, READ_JOBS):
                return self._reader.run(task)
            return run_catalog_job(self._catalog, task.job, job_id)
        except JOB_ERRORS as error:
            return error_reply(job_id, error)

    def _stamped(self, task: Task, reply: Reply, started: float) -> Reply:
        """Add who answered, and where the time went."""
        timing = replace(
            reply.timing_ms or TimingMs(),
            queue=(started - task.taken_at) * 1_000,
            total=(time.monotonic() - task.taken_at) * 1_000,
        )
        return replace(reply, timing_ms=timing, worker=self._name, attempt=task.delivery.delivery_count + 1)
