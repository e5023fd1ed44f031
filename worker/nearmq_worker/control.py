"""The jobs that every live worker gets a copy of: load, release and ping."""

import logging
import time
from collections.abc import Iterator
from importlib.metadata import version

from nearmq.errors import InvalidArgument
from nearmq.jobs import Job, LoadJob, PingJob, ReleaseJob, Reply
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.search import plan
from nearmq_worker.cache import SegmentCache
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.telemetry import SEGMENTS_RELEASED

logger = logging.getLogger(__name__)

CONTROL_JOBS = (LoadJob, ReleaseJob, PingJob)


class Control:
    """Runs control jobs on this worker. Safe for many threads."""

    def __init__(self, catalog: Catalog, cache: SegmentCache) -> None:
        self._catalog = catalog
        self._cache = cache
        self._started_at = time.monotonic()

    def run(self, job: Job, job_id: str) -> Iterator[Reply]:
        """Yield the worker's replies: progress (`partial`) until the last, which is `ok` or `error`."""
        try:
            match job:
                case PingJob():
                    uptime_s = round(time.monotonic() - self._started_at, 3)
                    result = {"version": version("nearmq-worker"), "uptime_s": uptime_s}
                    yield Reply(job_id=job_id, status="ok", result=result)
                case LoadJob():
                    yield from self._load(job, job_id)
                case ReleaseJob():
                    yield self._release(job, job_id)
                case _:
                    raise InvalidArgument(f"a {type(job).__name__} is not for every worker", field="type")
        except JOB_ERRORS as error:
            yield error_reply(job_id, error)

    def _load(self, job: LoadJob, job_id: str) -> Iterator[Reply]:
        yield _progress(job_id, 0.0)  # at once, so that the client knows that this worker lives
        snapshot = self._catalog.snapshot(job.collection)
        schema = snapshot.manifest.schema
        segments = plan(snapshot, job.partition_names)
        fields = [schema.field(job.field)] if job.field else schema.vector_fields
        size = 0
        for done, entry in enumerate(segments, 1):
            for field in fields:
                size += self._cache.pin(snapshot.manifest.collection_id, entry, schema, field.name)
            if done < len(segments):
                yield _progress(job_id, done / len(segments))
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
