"""The jobs that every live worker gets a copy of: load, release, cancel and ping."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from typing import Any

from nearmq.errors import Cancelled, InvalidArgument
from nearmq.jobs import CancelJob, Job, LoadJob, PingJob, ReleaseJob, Reply
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.search import plan
from nearmq_worker.awaited import CancelledJobs
from nearmq_worker.cache import SegmentCache, segment_bytes
from nearmq_worker.held import HeldJobs
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.telemetry import SEGMENTS_RELEASED

logger = logging.getLogger(__name__)

#: One segment is fetched while another is put together.
_LOADS_AT_ONCE = 2

CONTROL_JOBS = (LoadJob, ReleaseJob, CancelJob, PingJob)


class Control:
    """Runs control jobs on this worker. Safe for many threads.

    Args:
        held: the jobs to tell of.
        cancel: cancels the job of an id, and returns the state that it was in.
    """

    def __init__(
        self,
        catalog: Catalog,
        cache: SegmentCache,
        held: HeldJobs,
        cancelled: CancelledJobs,
        cancel: Callable[[str], str],
    ) -> None:
        self._catalog = catalog
        self._cache = cache
        self._held = held
        self._cancelled = cancelled
        self._cancel = cancel
        self._started_at = time.monotonic()

    def run(self, job: Job, job_id: str) -> Iterator[Reply]:
        """Yield the worker's replies: progress (`partial`) until the last, which is `ok` or `error`."""
        try:
            match job:
                case PingJob():
                    yield Reply(job_id=job_id, status="ok", result=self._told(job))
                case CancelJob():
                    states = {wanted: self._cancel(wanted) for wanted in job.job_ids}
                    yield Reply(job_id=job_id, status="ok", result={"states": states})
                case LoadJob():
                    yield from self._load(job, job_id)
                case ReleaseJob():
                    yield self._release(job, job_id)
                case _:
                    raise InvalidArgument(f"a {type(job).__name__} is not for every worker", field="type")
        except JOB_ERRORS as error:
            yield error_reply(job_id, error)

    def _told(self, job: PingJob) -> dict[str, Any]:
        uptime_s = round(time.monotonic() - self._started_at, 3)
        told: dict[str, Any] = {"version": version("nearmq-worker"), "uptime_s": uptime_s}
        return told | {"jobs": self._held.shown()} if job.jobs else told

    def _load(self, job: LoadJob, job_id: str) -> Iterator[Reply]:
        yield _progress(job_id, 0.0)  # at once, so that the client knows that this worker lives
        snapshot = self._catalog.snapshot(job.collection)
        schema = snapshot.manifest.schema
        segments = plan(snapshot, job.partition_names)
        fields = [schema.field(job.field)] if job.field else schema.vector_fields
        size = 0
        wanted = [(entry, field.name) for entry in segments for field in fields]
        total = sum(segment_bytes(entry, schema, field) for entry, field in wanted)
        with ThreadPoolExecutor(_LOADS_AT_ONCE, thread_name_prefix="nearmq-load") as pool:
            loads = [pool.submit(self._cache.pin, snapshot.manifest, *one) for one in wanted]
            try:
                for load in as_completed(loads):
                    size += load.result()
                    if job_id in self._cancelled:
                        raise Cancelled("the job was cancelled; what it had loaded stays until it is released")
                    if size < total:
                        yield _progress(job_id, size / total)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        result = {"segments": len(segments), "bytes": size}
        yield Reply(job_id=job_id, status="ok", version=snapshot.manifest.version, result=result)

    def _release(self, job: ReleaseJob, job_id: str) -> Reply:
        snapshot = self._catalog.snapshot(job.collection)
        names = job.partition_names
        partitions = {entry.partition for entry in plan(snapshot, names)} if names else None
        freed = self._cache.release(snapshot.manifest.collection_id, partitions)
        logger.info(SEGMENTS_RELEASED, extra={"collection": job.collection, "bytes": freed})
        return Reply(job_id=job_id, status="ok", version=snapshot.manifest.version, result={"bytes": freed})


def _progress(job_id: str, share: float) -> Reply:
    return Reply(job_id=job_id, status="partial", result={"progress": round(share, 4)})
