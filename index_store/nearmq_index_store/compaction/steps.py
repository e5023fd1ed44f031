"""A step of compaction, and as many as are due: read, build, store, commit.

Nothing is visible before the commit, so a kill leaves nothing but blobs that no version names, which garbage collection
removes.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from uuid import UUID

from blake3 import blake3

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.compaction.claims import claimed
from nearmq_index_store.compaction.limits import CompactionLimits
from nearmq_index_store.compaction.merging import OpenRows, merge_rows
from nearmq_index_store.compaction.policy import plan_compaction, rows_due
from nearmq_index_store.compaction.replacing import InputsGone, replace
from nearmq_index_store.compaction.tiers import Step
from nearmq_index_store.errors import IndexCorrupt, StoreError
from nearmq_index_store.ledger import job_time_ms
from nearmq_index_store.manifest import Manifest, SegmentEntry
from nearmq_index_store.search import plan
from nearmq_index_store.segment import BuiltSegment, build_indexes, store_segment
from nearmq_index_store.staging import staging_folder

Stage = Literal["reading", "building", "storing", "committing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionProgress:
    """How far it is: `rows` of `total` are indexed. More may fall due meanwhile, by the merges themselves too."""

    stage: Stage
    rows: int
    total: int


OnProgress = Callable[[CompactionProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What compaction did.

    Attributes:
        version: that has the outputs.
        segments_before, segments_after: inputs and outputs of a step; for several steps, the segments of the partitions
            looked at when the last was done, and that with those that the steps did away with.
        rows: that were written.
        dropped: deleted rows that were not.
        is_all: False where further steps are due.
    """

    version: int
    segments_before: int
    segments_after: int
    rows: int
    dropped: int
    is_all: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What a step is run with.

    Attributes:
        folder: on a disk with room for the output's rows three times and its indexes; made when it is missing.
        threads: of the index builds.
        open_rows_of: gives the rows of an input; None fetches them.
    """

    folder: Path
    threads: int = 1
    open_rows_of: OpenRows | None = None


def compact(
    catalog: Catalog,
    base: Manifest,
    step: Step,
    workplace: Workplace,
    *,
    job_id: str,
    on_progress: OnProgress = lambda _: None,
) -> Compacted | None:
    """Run a step that was planned on a version, once for this job id.

    Takes the memory of the inputs' rows, and of one index (`merging.py`).

    Returns:
        None when it was abandoned, since a newer version lacks an input, or since the output was garbage to a collector
        before it was committed: nothing has changed.

    Raises:
        CollectionNotFound: the collection is dropped.
        IndexCorrupt: a blob of an input is missing, or fails its digest.
        StoreUnavailable: the outcome may be unknown; the same job id again finds it out.
    """
    recorded = catalog.taken(base.collection_id, job_id)
    if recorded is not None:
        return _compacted(recorded)
    run = _Run(catalog, base, step, workplace, on_progress)
    output = None
    try:
        output = run.stored()
        run.report("committing", step.rows)
        intent = replace(catalog.readers, step, run.deleted, output)
        outcome = catalog.commit(base.collection_id, intent, job_id=job_id)
    except (InputsGone, IndexCorrupt) as error:
        if isinstance(error, IndexCorrupt) and has_inputs(catalog, base, step) and not _is_collected(catalog, output):
            raise
        _discard(catalog, output)
        return None
    if not _names(catalog, outcome, output):
        _discard(catalog, output)
    return _compacted(outcome)


def compact_all(
    catalog: Catalog,
    collection: str,
    limits: CompactionLimits,
    workplace: Workplace,
    *,
    job_id: str,
    partition_names: Collection[str] | None = None,
    force: bool = False,
    now_s: float | None = None,
    on_progress: OnProgress = lambda _: None,
    may_go_on: Callable[[], bool] = lambda: True,
    share: bool = False,
) -> Compacted:
    """Run steps until none is due. The same job id again goes on where it was, and counts all of its steps.

    Args:
        force, now_s: as for `plan_compaction`.
        may_go_on: asked after each step; False leaves the rest to another job.
        share: leave the partitions alone that somebody else compacts now.

    Raises:
        CollectionNotFound, PartitionNotFound: there is none of this name.
        IndexCorrupt, StoreUnavailable: as `compact`.
    """
    steps: list[Compacted] = []
    elsewhere: set[str] = set()  # partitions that somebody else compacts
    while True:
        step_id = step_job_id(job_id, len(steps))
        snapshot = catalog.snapshot(collection)
        base, segments = snapshot.manifest, plan(snapshot, partition_names)
        recorded = catalog.taken(base.collection_id, step_id)
        if recorded is not None:
            steps.append(_compacted(recorded))
            continue
        open_to_us = [entry for entry in segments if entry.partition not in elsewhere]
        step = plan_compaction(open_to_us, base.schema, limits, force=force, now_s=now_s)
        if step is None or (steps and not may_go_on()):
            return _sum(steps, base.version, len(segments), is_all=step is None)
        before = sum(each.rows for each in steps)
        total = before + max(step.rows, rows_due(segments, base.schema, limits, force=force))
        with claimed(catalog.store, base.collection_id, step.partition, owner=job_id) as is_ours:
            if not has_inputs(catalog, base, step):
                continue  # who had the claim has just finished
            if is_ours or not share:
                report = _shifted(on_progress, before, total)
                done = compact(catalog, base, step, workplace, job_id=step_id, on_progress=report)
                steps += [] if done is None else [done]
            else:
                elsewhere.add(step.partition)


def step_job_id(job_id: str, number: int) -> str:
    """The job id of a step of a job; it says the same time as the job's, so that the ledger finds it as fast."""
    digest = blake3(f"{job_id}/{number}".encode()).digest(length=16)
    made_ms = job_time_ms(job_id)
    if made_ms is None:
        return digest.hex()
    random = int.from_bytes(digest) & ((1 << 80) - 1)
    version_and_variant = random & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(UUID(int=made_ms << 80 | version_and_variant))


def has_inputs(catalog: Catalog, base: Manifest, step: Step) -> bool:
    """Say whether the newest version has all inputs of a step that was planned on a version."""
    snapshot = catalog.readers.heads.snapshot(base.collection_id)
    present = set() if snapshot is None else {entry.id for entry in snapshot.segments}
    return all(entry.id in present for entry in step.inputs)


class _Run:
    """A step on its way to the commit."""

    def __init__(
        self, catalog: Catalog, base: Manifest, step: Step, workplace: Workplace, on_progress: OnProgress
    ) -> None:
        self._catalog = catalog
        self._base = base
        self._step = step
        self._workplace = workplace
        self._on_progress = on_progress
        self.deleted = {entry.id: catalog.readers.deletes.deleted(entry) for entry in step.inputs}

    def report(self, stage: Stage, rows: int) -> None:
        self._on_progress(CompactionProgress(stage=stage, rows=rows, total=self._step.rows))

    def stored(self) -> SegmentEntry:
        """Merge the inputs, and store what comes of it."""
        with staging_folder(self._workplace.folder) as folder:
            built = self._built(folder)
            self.report("storing", self._step.rows)
            return store_segment(self._catalog.store, self._base.collection_id, self._step.partition, built)

    def _built(self, folder: Path) -> BuiltSegment:
        schema, threads = self._base.schema, self._workplace.threads
        written = merge_rows(
            self._step.inputs,
            self.deleted,
            schema,
            folder,
            open_rows_of=self._workplace.open_rows_of or partial(self._catalog.readers.use_rows, self._base),
            threads=threads,
            on_rows=lambda _: self.report("reading", 0),
        )
        return build_indexes(written, schema, folder, threads=threads, on_rows=partial(self.report, "building"))


def _shifted(on_progress: OnProgress, before: int, total: int) -> OnProgress:
    def shifted(progress: CompactionProgress) -> None:
        rows = before + progress.rows
        on_progress(CompactionProgress(stage=progress.stage, rows=rows, total=max(total, rows)))

    return shifted


def _names(catalog: Catalog, outcome: Outcome, output: SegmentEntry) -> bool:
    """Whether the version that took the job has this output, and not that of another worker's run of the same job."""
    heads = catalog.readers.heads
    with suppress(StoreError):
        snapshot = heads.open(heads.manifest(outcome.collection_id, outcome.version))
        return any(entry.id == output.id for entry in snapshot.segments)
    return True  # who cannot tell leaves it to garbage collection


def _is_collected(catalog: Catalog, output: SegmentEntry | None) -> bool:
    """Whether garbage collection has taken the output, hours after it was stored."""
    return output is not None and not all(catalog.store.exists(blob.key) for blob in output.blobs())


def _discard(catalog: Catalog, output: SegmentEntry | None) -> None:
    """Remove an output that no version names."""
    with suppress(StoreError):
        for blob in () if output is None else output.blobs():
            catalog.store.delete(blob.key)


def _compacted(outcome: Outcome) -> Compacted:
    counts = outcome.counts
    return Compacted(
        version=outcome.version,
        segments_before=counts["segments_before"],
        segments_after=counts["segments_after"],
        rows=counts["rows"],
        dropped=counts["dropped"],
    )


def _sum(steps: list[Compacted], version: int, segments: int, *, is_all: bool) -> Compacted:
    return Compacted(
        version=version,
        segments_before=segments + sum(step.segments_before - step.segments_after for step in steps),
        segments_after=segments,
        rows=sum(step.rows for step in steps),
        dropped=sum(step.dropped for step in steps),
        is_all=is_all,
    )
