"""The row writes of one collection that waited together: one version for all, to each job its own answer."""

from collections.abc import Callable, Sequence

from nearmq.jobs import DeleteJob, Reply, RowWriteJob, UpsertJob
from nearmq_index_store import intents
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome, Write
from nearmq_index_store.errors import StoreError
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.manifest import DEFAULT_PARTITION
from nearmq_worker.batching import Task
from nearmq_worker.replies import error_reply

#: After a write, how long a collection's next writes have to wait, in seconds; given the collection's name.
Slow = Callable[[str], float]


class Writer:
    """Runs upserts, inserts and deletes.

    Args:
        slow: tells how long the next writes of a collection have to wait, so that its compaction keeps up.
    """

    def __init__(self, catalog: Catalog, slow: Slow) -> None:
        self._catalog = catalog
        self._slow = slow

    def run(self, tasks: Sequence[Task]) -> list[Reply]:
        """Answer row writes of one collection, in their order; a bad one fails alone."""
        collection = _collection_of(tasks[0])
        try:
            outcomes = self._catalog.write(collection, [_write_of(task) for task in tasks])
        except StoreError as error:
            return [error_reply(task.delivery.message.message_id, error) for task in tasks]
        slowdown_s = self._slow(collection)
        return [_reply(task, outcome, slowdown_s) for task, outcome in zip(tasks, outcomes, strict=True)]

    def run_late(self, tasks: Sequence[Task]) -> dict[str, Reply]:
        """Return by job id the answers of writes that took effect before their deadline passed or they were cancelled.

        Such a job came again because its first answer was lost: it must not be told that nothing was written.
        """
        job_ids = [task.delivery.message.message_id for task in tasks]
        try:
            outcomes = self._catalog.recorded(_collection_of(tasks[0]), job_ids)
        except StoreError:
            return {}
        by_id = dict(zip(job_ids, tasks, strict=True))
        return {job_id: _reply(by_id[job_id], outcome, 0.0) for job_id, outcome in outcomes.items()}


def _collection_of(task: Task) -> str:
    assert isinstance(task.job, RowWriteJob | DeleteJob)
    return task.job.collection


def _write_of(task: Task) -> Write:
    job, job_id = task.job, task.delivery.message.message_id
    if isinstance(job, DeleteJob):
        if job.ids is not None:
            return Write(job_id=job_id, intent=intents.delete(job.ids, job.partition_name), keys=job.ids)
        assert job.expr is not None
        intent = intents.delete_where(job.expr, job.expr_params, job.partition_name)
        return Write(job_id=job_id, intent=intent)
    assert isinstance(job, RowWriteJob)
    rows = GivenRows(ids=job.ids, vectors=job.vectors, scalars=job.fields)
    make = intents.upsert if isinstance(job, UpsertJob) else intents.insert
    return Write(job_id=job_id, intent=make(rows, job.partition_name or DEFAULT_PARTITION), keys=job.ids)


def _reply(task: Task, outcome: Outcome, slowdown_s: float) -> Reply:
    job_id = task.delivery.message.message_id
    if outcome.error is not None:
        return error_reply(job_id, outcome.error)
    result = {"collection": _collection_of(task), "version": outcome.version, **outcome.counts}
    if slowdown_s:
        result["slowdown_ms"] = round(slowdown_s * 1_000)
    return Reply(job_id=job_id, status="ok", version=outcome.version, result=result)
