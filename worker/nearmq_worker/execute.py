"""Jobs in, replies out: what each job of a batch is answered, with no AMQP in sight."""

import time
from collections.abc import Sequence

from msgspec.structs import replace

from nearmq.errors import DeadlineExceeded
from nearmq.jobs import Reply, SearchJob, TimingMs
from nearmq_index_store.catalog import Catalog
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.catalog_jobs import run_catalog_job
from nearmq_worker.config import WorkerConfig
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.search_jobs import Searcher


class Executor:
    """Runs batches of jobs over the store's collections. Safe for many threads."""

    def __init__(self, catalog: Catalog, cache: SegmentCache, config: WorkerConfig) -> None:
        self._catalog = catalog
        self._name = config.name
        self._searcher = Searcher(catalog, cache, config)

    def close(self) -> None:
        """End the search threads."""
        self._searcher.close()

    def run(self, tasks: Sequence[Task]) -> list[Reply]:
        """Answer the tasks of one batch, in their order: searches of one group, or one job of another type.

        A job that is expired is answered DEADLINE before anything is loaded. An exception that is no job's fault
        leaves this function, and the batch is unanswered.
        """
        started = time.monotonic()
        now_ms = time.time_ns() // 1_000_000
        live = [task for task in tasks if task.deadline_ms is None or task.deadline_ms > now_ms]
        answers = {id(task): reply for task, reply in zip(live, self._answer(live), strict=True)}
        return [self._stamped(task, answers.get(id(task)) or _expired(task, now_ms), started) for task in tasks]

    def _answer(self, tasks: Sequence[Task]) -> list[Reply]:
        if tasks and isinstance(tasks[0].job, SearchJob):
            return self._searcher.run(tasks)
        return [self._run_alone(task) for task in tasks]

    def _run_alone(self, task: Task) -> Reply:
        job_id = task.delivery.message.message_id
        try:
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


def _expired(task: Task, now_ms: int) -> Reply:
    late_ms = now_ms - (task.deadline_ms or now_ms)
    error = DeadlineExceeded(f"the job was taken up {late_ms} ms after its deadline")
    return error_reply(task.delivery.message.message_id, error)
