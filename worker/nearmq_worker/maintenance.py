"""Compaction and index builds, on a thread of their own: neither searches nor writes wait for them.

Who writes or searches says which version it saw; when compaction is due there, this worker publishes a job for it, and
any idle worker takes it. While rows are written it only keeps up; what that leaves is merged when no segment has come
for a while. Every step of the job commits by itself, so that one which is delivered again goes on where it was. Of
such jobs several may be about, so each leaves alone what another worker compacts; a job that somebody waits for does
not.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from nearmq.errors import Cancelled
from nearmq.job_message import job_message
from nearmq.jobs import BuildJob, CompactJob, Reply
from nearmq.transport import Message
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.compaction import (
    CompactionLimits,
    CompactionProgress,
    Workplace,
    compact_all,
    debt,
    leisure_at,
    plan_compaction,
)
from nearmq_index_store.errors import StoreError
from nearmq_index_store.manifest import Manifest, Snapshot
from nearmq_index_store.recent import Recent
from nearmq_worker.awaited import CancelledJobs
from nearmq_worker.batching import Task
from nearmq_worker.config import WorkerConfig
from nearmq_worker.telemetry import COMPACTION_ASKED, WRITES_SLOWED

logger = logging.getLogger(__name__)

MaintenanceJob = CompactJob | BuildJob

#: Collections whose last look is remembered.
_COLLECTIONS_KEPT = 1_024
#: A job for a collection is not published again so soon: the one before may wait in the queue. It expires when it was
#: not taken up until the next, so that jobs do not pile up.
_ASK_AGAIN_S = 5.0
#: A job stops after so long, and publishes one that goes on: well under the broker's consumer timeout of 30 min.
_LONGEST_S = 600.0
_REPORT_EVERY_S = 1.0

#: Longest wait that is laid on the writes of a collection at a time.
_LONGEST_SLOWDOWN_S = 5.0


class Interrupted(Exception):
    """The worker stops; the job goes on where it was when it is delivered again."""


class _Look(NamedTuple):
    """What a version has for compaction.

    Attributes:
        due_at: when a step falls due if no newer version comes, in seconds since 1970; None for never.
    """

    version: int
    debt: float
    due_at: float | None


class _PutOff(NamedTuple):
    """A collection to look at again, at a time of `time.monotonic()`."""

    name: str
    until: float


class Maintenance:
    """Runs compact and build jobs, and asks for them. Safe for many threads.

    Args:
        publish: sends a job of this worker's own; nobody awaits its reply.
        cancelled: jobs to end at their next step; what they have done so far stays.
    """

    def __init__(
        self, catalog: Catalog, config: WorkerConfig, publish: Callable[[Message], None], cancelled: CancelledJobs
    ) -> None:
        self._catalog = catalog
        # It reads rows past the worker's cache, in which they would take the place of what is searched.
        self._own_catalog = Catalog(catalog.store, folder=config.work_folder)
        self._limits = CompactionLimits(segment_bytes=config.segment_bytes)
        self._workplace = Workplace(folder=config.work_folder, threads=config.threads)
        self._publish = publish
        self._cancelled = cancelled
        self._asked: Recent[str, float] = Recent(_COLLECTIONS_KEPT)  # `time.monotonic()`, by collection id
        self._seen: Recent[str, _Look] = Recent(_COLLECTIONS_KEPT)  # by collection id
        self._put_off: dict[str, _PutOff] = {}  # by collection id
        self._stopping = threading.Event()

    def notice(self, snapshot: Snapshot) -> None:
        """Look at a version that was just read, and ask for a compaction that is due."""
        due_at, manifest = self._look(snapshot).due_at, snapshot.manifest
        if due_at is None:
            return
        if time.time() >= due_at:
            self._ask(manifest)
        else:
            self._put_off[manifest.collection_id] = _PutOff(manifest.name, time.monotonic() + due_at - time.time())

    def _look(self, snapshot: Snapshot) -> _Look:
        manifest = snapshot.manifest
        look = self._seen.get(manifest.collection_id)
        if look is None or look.version < manifest.version:
            owed = debt(snapshot.segments, manifest.schema, self._limits).ratio
            look = _Look(manifest.version, owed, self._due_at(snapshot))
            self._seen.put(manifest.collection_id, look)
        return look

    def _due_at(self, snapshot: Snapshot) -> float | None:
        segments, schema = snapshot.segments, snapshot.manifest.schema
        is_due = plan_compaction(segments, schema, self._limits) is not None
        return 0.0 if is_due else leisure_at(segments, schema, self._limits)

    def catch_up(self) -> None:
        """Look again at the collections that were put off; called now and then."""
        now = time.monotonic()
        for collection_id, (name, until) in list(self._put_off.items()):
            if now >= until:
                del self._put_off[collection_id]
                with suppress(StoreError):
                    self._catalog.snapshot(name)  # which is noticed

    def slowdown_s(self, collection: str) -> float:
        """Look at the newest version of a collection; return how long its next writes should wait."""
        ratio = self._look(self._catalog.snapshot(collection)).debt
        wait_s = min(_LONGEST_SLOWDOWN_S, max(0.0, ratio - 1.0))
        if wait_s:
            logger.warning(WRITES_SLOWED, extra={"collection": collection, "debt": ratio, "wait_s": wait_s})
        return wait_s

    def run(self, task: Task, report: Callable[[Reply], None]) -> Reply:
        """Run a job until nothing is due.

        Args:
            report: given progress now and then.

        Raises:
            Interrupted: `stop` was called.
            Cancelled: the job was.
            StoreError: as `compact_all`.
        """
        job, job_id = task.job, task.delivery.message.message_id
        assert isinstance(job, MaintenanceJob)
        stop_at = time.monotonic() + _LONGEST_S
        done = compact_all(
            self._own_catalog,
            job.collection,
            self._limits,
            self._workplace,
            job_id=job_id,
            partition_names=job.partition_names,
            force=isinstance(job, BuildJob),
            now_s=time.time(),
            on_progress=_Reporter(job_id, report, self._stopping, self._cancelled),
            may_go_on=lambda: time.monotonic() < stop_at,
            share=task.delivery.message.reply_to is None,
        )
        if not done.is_all:
            self._publish(job_message(job))
        return Reply(
            job_id=job_id,
            status="ok",
            version=done.version,
            result={
                "collection": job.collection,
                "version": done.version,
                "segments_before": done.segments_before,
                "segments_after": done.segments_after,
                "rows": done.rows,
                "dropped": done.dropped,
            },
        )

    def stop(self) -> None:
        """Interrupt the job in progress."""
        self._stopping.set()

    def _ask(self, manifest: Manifest) -> None:
        now = time.monotonic()
        asked_at = self._asked.get(manifest.collection_id)
        if asked_at is not None and now < asked_at + _ASK_AGAIN_S:
            self._put_off[manifest.collection_id] = _PutOff(manifest.name, asked_at + _ASK_AGAIN_S)
            return
        self._asked.put(manifest.collection_id, now)
        logger.info(COMPACTION_ASKED, extra={"collection": manifest.name, "version": manifest.version})
        self._publish(job_message(CompactJob(collection=manifest.name), timeout_s=_ASK_AGAIN_S))


class _Reporter:
    """Makes progress replies, not too many of them, and ends the job when the worker stops or it is cancelled."""

    def __init__(
        self, job_id: str, report: Callable[[Reply], None], stopping: threading.Event, cancelled: CancelledJobs
    ) -> None:
        self._job_id = job_id
        self._report = report
        self._stopping = stopping
        self._cancelled = cancelled
        self._next_at = 0.0

    def __call__(self, progress: CompactionProgress) -> None:
        if self._stopping.is_set():
            raise Interrupted
        if self._job_id in self._cancelled:
            raise Cancelled("the job was cancelled; the steps that it had finished stay")
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + _REPORT_EVERY_S
        share = round(progress.rows / progress.total, 4) if progress.total else 0.0
        self._report(Reply(job_id=self._job_id, status="partial", result={"progress": share, "stage": progress.stage}))
