"""One run of the commit protocol, as its seed decides it.

Writers with batches of jobs, some jobs given to two of them, imports, compactors and collectors work on one collection.
Their clocks disagree, they stand still for hours, are killed, and get no answer or a late one from the store.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from nearmq_index_store import holds, intents, ledger, staged
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.compaction import CompactionLimits, Workplace, compact, plan_compaction
from nearmq_index_store.digest import read_blob
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, StoreUnavailable
from nearmq_index_store.gc import find_garbage, mark, sweep
from nearmq_index_store.holds import hold
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.rows import Rows
from nearmq_index_store.segment import store_segment
from nearmq_index_store.staged import StagedGone
from tests.exploring.history import History, Link, Network
from tests.exploring.jobs import Counts, Job, Model, draw_job
from tests.exploring.quick_segments import FOLDER, SCHEMA, build_once, parse_rows
from tests.exploring.replay import Rowset, check, rows_at
from tests.exploring.turns import Clock, Killed, Turns
from tests.segments import table_of

LIMITS = CompactionLimits(min_inputs=2)


class Run:
    """What all workers of one run share."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = History()
        self.clock = Clock(self.rng)
        self.turns = Turns(self.rng, linger=0.4)
        self.network = Network(self.turns, self.clock, self.rng)
        self.problems: list[str] = []
        self.answers: dict[str, list[Outcome]] = {}
        self.jobs: list[Job] = []
        self.reads: list[tuple[int, Rowset]] = []  # versions with their rows, as they were read
        self.collection_id = ""

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Start a worker that ends at what no worker should meet."""

        def body() -> None:
            try:
                work()
            except Exception as error:
                self.problems.append(f"{name}: {error!r}")

        self.clock.errors_s[name] = self.rng.choice((0.0, 0.0, -5_000.0, 5_000.0))
        self.turns.start(name, body)

    def catalog(self) -> Catalog:
        """What a process has that starts now."""
        return _catalog(Link(self.store, self.network))

    def answer(self, job: Job, outcome: Outcome) -> None:
        self.answers.setdefault(job.id, []).append(outcome)


def explore(seed: int) -> None:
    """Play one run and check it; raises AssertionError."""
    run = Run(seed)
    with run.clock.in_ulids(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "MAX_RECENT_JOBS", 6)
        patch.setattr(holds, "HOLD_S", 1e9)
        patch.setattr(staged, "build_segment", build_once)
        run.collection_id = Catalog(run.store).create("books", SCHEMA, job_id="create").collection_id
        people(run)
        run.turns.play()
        run.network.end()
        deliver_again(run)
        check(
            run.store,
            run.collection_id,
            jobs=run.jobs,
            answers=run.answers,
            reads=run.reads,
            problems=run.problems,
        )


def people(run: Run) -> None:
    """Draw the jobs and the workers."""
    rng = run.rng
    run.jobs = [draw_job(rng, number) for number in range(rng.randint(4, 7))]
    if rng.random() < 0.06:
        run.jobs.append(Job(id="drop", intent=intents.drop("books"), effect=lambda _: {}))
    for number in range(rng.randint(2, 3)):
        mine = [job for job in run.jobs if rng.random() < 0.6]
        run.start(f"writer {number}", lambda mine=mine: write(run, mine))
    for number in range(rng.randint(1, 2)):
        run.start(f"collector {number}", lambda: collect(run))
    for number in range(rng.choice((0, 1, 1, 2))):
        run.start(f"compactor {number}", lambda number=number: merge(run, number))
    if rng.random() < 0.5:
        run.start("reader", lambda: read(run))
    if rng.random() < 0.3:
        run.start("import", lambda: import_rows(run))


def write(run: Run, jobs: list[Job]) -> None:
    """Take batches in their order; a batch that met an error comes again, after a kill to a new process."""
    left = list(jobs)
    catalog = run.catalog()
    for _ in range(12):
        batch = left[: run.rng.randint(1, 3)]
        if not batch:
            return
        try:
            outcomes = catalog._committer.commit_all(run.collection_id, [job.write for job in batch])
        except StoreUnavailable:
            continue
        except CollectionNotFound:
            return
        except Killed:
            catalog = run.catalog()
            continue
        for job, outcome in zip(batch, outcomes, strict=True):
            run.answer(job, outcome)
        left = left[len(batch) :]


def collect(run: Run) -> None:
    """Remove garbage, some times; standing still between the mark and the sweep, as readers are waited for."""
    catalog = run.catalog()
    for _ in range(run.rng.randint(1, 3)):
        keep_s = run.rng.choice((0.0, 0.1, 3_600.0))
        heads = catalog.readers.heads
        try:
            garbage = find_garbage(heads, run.collection_id, keep_s=keep_s, clock=run.clock.read)
            assert garbage is not None
            garbage = mark(catalog, garbage)
            run.turns.wait(run.rng.choice((0, 5, 30)))
            sweep(heads, garbage, threads=1)
        except StoreUnavailable:
            continue
        except Killed:
            catalog = run.catalog()


def merge(run: Run, number: int) -> None:
    """Merge all segments of a partition, some times."""
    catalog = run.catalog()
    for job in range(run.rng.randint(1, 3)):
        try:
            snapshot = catalog.readers.heads.snapshot(run.collection_id)
            assert snapshot is not None
            base = snapshot.manifest
            step = plan_compaction(snapshot.segments, base.schema, LIMITS, force=True)
            if step is not None:
                compact(catalog, base, step, Workplace(folder=FOLDER), job_id=f"merge {number} {job}")
        except StoreUnavailable:
            continue
        except CollectionNotFound:
            return
        except Killed:
            catalog = run.catalog()


def read(run: Run) -> None:
    """Read all rows of the newest version, some times; of a newer one where garbage collection was faster."""
    catalog = run.catalog()
    for _ in range(run.rng.randint(1, 5)):
        try:
            snapshot = catalog.readers.heads.snapshot(run.collection_id)
            assert snapshot is not None
            run.reads.append((snapshot.manifest.version, rows_at(catalog, snapshot)))
        except StoreUnavailable:
            continue
        except IndexCorrupt:
            newest = catalog.readers.heads.head(run.collection_id)
            assert newest is not None
            assert newest.version > snapshot.manifest.version, "the newest version misses a blob"
        except Killed:
            catalog = run.catalog()


def import_rows(run: Run) -> None:
    """Stage a segment of a key that no other job has, and commit it, hours later or in several tries."""
    is_held = run.rng.random() < 0.5
    catalog = run.catalog()
    built = build_once(table_of([100], vector=np.array([[100, 0]], np.float32)))
    try:
        with hold(catalog.store, run.collection_id, clock=run.clock.read) as renew:
            if is_held:
                renew()
            entry = store_segment(catalog.store, run.collection_id, "_default", built)
            job = _append(entry)
            run.jobs.append(job)
            for _ in range(3):
                try:
                    [outcome] = catalog._committer.commit_all(run.collection_id, [job.write])
                except StoreUnavailable:
                    continue
                except CollectionNotFound:
                    return
                run.answer(job, outcome)
                return
    except (StoreUnavailable, Killed):
        return
    except StagedGone:
        if is_held:
            raise


def deliver_again(run: Run) -> None:
    """Deliver every job once more, to a worker that nothing happens to."""
    catalog = _catalog(run.store)
    for job in run.jobs:
        try:
            [outcome] = catalog._committer.commit_all(run.collection_id, [job.write])
        except CollectionNotFound:
            continue
        except StagedGone:
            continue
        run.answer(job, outcome)


def _append(entry: SegmentEntry) -> Job:
    def effect(model: Model) -> Counts:
        model.put([100], "_default", 100)
        return {"rows": 1}

    return Job(id="import", intent=intents.append((entry,)), effect=effect)


def _catalog(store: Any) -> Catalog:
    @contextmanager
    def use_rows(_manifest: object, entry: SegmentEntry) -> Iterator[Rows]:
        yield parse_rows(read_blob(store, entry.rows_blob))

    return Catalog(store, folder=FOLDER, use_rows=use_rows)
