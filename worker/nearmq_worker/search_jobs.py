"""A batch of searches: one snapshot, one pass over the segments, and from it to each job exactly what it gets alone."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nearmq.errors import DeadlineExceeded, InvalidArgument, VersionTimeout
from nearmq.jobs import Hits, Reply, SearchJob, TimingMs
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.distances import Distances, FloatMatrix
from nearmq_index_store.errors import StoreError
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_index_store.rows import Ids
from nearmq_index_store.schema import VectorField
from nearmq_index_store.search import Hits as FoundHits
from nearmq_index_store.search import check_queries, merge, no_hits, plan, resolve, search_part
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.replies import JOB_ERRORS, error_reply

#: Fields that the wire contract has and this release does not serve, with the value that asks for nothing.
_NOT_SERVED = {
    "ids": None,
    "output_fields": None,
    "radius": None,
    "range_filter": None,
    "explain": False,
}

#: Fewest queries that are worth handing to another thread.
_SLICE_QUERIES = 64


@dataclass(frozen=True, slots=True)
class _Search:
    """A search that passed all checks.

    Attributes:
        place: of its task in the batch.
        queries: float32, shape (queries, dim).
        expires_at: `time.monotonic()` after which nobody waits for it.
    """

    place: int
    job: SearchJob
    queries: FloatMatrix
    expires_at: float

    @property
    def window(self) -> int:
        """How many of the nearest rows decide the answer: those skipped, and those given."""
        return self.job.offset + self.job.limit

    def cut(self, ids: Ids, distances: Distances) -> Hits:
        """Cut this search's hits of one query from those of a window at least as large."""
        page = slice(self.job.offset, self.window)
        if self.job.round_decimal >= 0:
            distances = distances.round(self.job.round_decimal)
        return Hits(ids=ids[page], distances=distances[page])


class Searcher:
    """Runs searches over the catalog's collections. Safe for many threads."""

    def __init__(self, catalog: Catalog, cache: SegmentCache, config: WorkerConfig) -> None:
        self._catalog = catalog
        self._cache = cache
        self._config = config
        self._pool = ThreadPoolExecutor(config.threads, thread_name_prefix="nearmq-search")

    def close(self) -> None:
        """End the search threads."""
        self._pool.shutdown()

    def run(self, tasks: Sequence[Task]) -> list[Reply]:
        """Answer searches of the same collection and partitions, in their order; a bad one fails alone."""
        job_ids = [task.delivery.message.message_id for task in tasks]
        first = tasks[0].job
        assert isinstance(first, SearchJob)
        try:
            snapshot = self._catalog.snapshot(first.collection)
            segments = plan(snapshot, first.partition_names)
        except StoreError as error:
            return [error_reply(job_id, error) for job_id in job_ids]
        replies: dict[int, Reply] = {}
        groups: dict[tuple[str, SearchParams], list[_Search]] = {}
        for place, task in enumerate(tasks):
            try:
                field, params = _check(task, snapshot)
                groups.setdefault((field.name, params), []).append(self._search_of(place, task))
            except JOB_ERRORS as error:
                replies[place] = error_reply(job_ids[place], error)
        for (field_name, params), searches in groups.items():
            for batch in _within(self._config.result_hits, searches):
                try:
                    part = _Pass(snapshot, segments, snapshot.manifest.schema.field(field_name), params, batch)
                    replies.update(self._run_pass(part, job_ids))
                except JOB_ERRORS as error:
                    replies.update((search.place, error_reply(job_ids[search.place], error)) for search in batch)
        return [replies[place] for place in range(len(tasks))]

    def _search_of(self, place: int, task: Task) -> _Search:
        job = task.job
        assert isinstance(job, SearchJob)
        assert job.vectors is not None
        left_s = self._config.deadline_s
        if task.deadline_ms is not None:
            left_s = min(left_s, task.deadline_ms / 1_000 - time.time())
        return _Search(place, job, job.vectors, time.monotonic() + left_s)

    def _run_pass(self, part: "_Pass", job_ids: Sequence[str]) -> Iterator[tuple[int, Reply]]:
        """Search the segments with all queries of a pass, and cut each job's own answer from the result."""
        began = time.monotonic()
        queries = np.concatenate([search.queries for search in part.searches])
        units = [(entry, rows) for rows in _slices(len(queries), self._config.threads) for entry in part.segments]
        done = self._run_units(part, queries, units)
        rows = part.rows_of([found for found, _ in done], len(queries))
        load_s = max((seconds for _, seconds in done), default=0.0)
        timing = TimingMs(load=load_s * 1_000, search=(time.monotonic() - began - load_s) * 1_000)
        start = 0
        for search in part.searches:
            own = rows[start : start + len(search.queries)]
            start += len(search.queries)
            if time.monotonic() > search.expires_at:
                late = DeadlineExceeded("the job's deadline passed while it was searched")
                yield search.place, error_reply(job_ids[search.place], late)
                continue
            yield (
                search.place,
                Reply(
                    job_id=job_ids[search.place],
                    status="ok",
                    version=part.snapshot.manifest.version,
                    hits=[search.cut(ids, distances) for ids, distances in own],
                    timing_ms=timing,
                ),
            )

    def _run_units(
        self, part: "_Pass", queries: FloatMatrix, units: Sequence[tuple[SegmentEntry, slice]]
    ) -> list[tuple[FoundHits, float]]:
        """Search each unit, in parallel where there are several; return what it found and how long loading took."""
        manifest = part.snapshot.manifest

        def run(unit: tuple[SegmentEntry, slice]) -> tuple[FoundHits, float]:
            entry, rows = unit
            asked = time.monotonic()
            if asked > part.expires_at:
                raise DeadlineExceeded("the job's deadline passed before all segments were searched")
            with self._cache.use(manifest.collection_id, entry, manifest.schema, part.field.name) as segment:
                load_s = time.monotonic() - asked
                return search_part(segment, queries[rows], part.limit, part.params), load_s

        return list(map(run, units) if len(units) == 1 else self._pool.map(run, units))


@dataclass(frozen=True, slots=True)
class _Pass:
    """Searches of one field with equal params, which decide together which rows are candidates."""

    snapshot: Snapshot
    segments: Sequence[SegmentEntry]
    field: VectorField
    params: SearchParams
    searches: Sequence[_Search]

    @property
    def limit(self) -> int:
        """The largest window, but no more than there are rows."""
        rows = sum(entry.rows for entry in self.segments)
        return max(1, min(rows, max(search.window for search in self.searches)))

    @property
    def expires_at(self) -> float:
        """When nobody waits for any of the searches."""
        return max(search.expires_at for search in self.searches)

    def rows_of(self, found: Sequence[FoundHits], queries: int) -> list[tuple[Ids, Distances]]:
        """Merge what was found, slice by slice and in each slice segment by segment, into ids and distances a query."""
        if self.segments:
            slices = range(0, len(found), len(self.segments))
            merged = [merge(found[at : at + len(self.segments)], self.limit) for at in slices]
        else:
            merged = [no_hits(queries, self.field, self.snapshot.manifest.schema.primary_key)]
        return [
            (ids[:count], distances[:count])
            for hits in merged
            for ids, distances, count in zip(hits.ids, hits.distances, hits.counts, strict=True)
        ]


def _check(task: Task, snapshot: Snapshot) -> tuple[VectorField, SearchParams]:
    """Check a job against what is served, the schema and the bounds."""
    job = task.job
    assert isinstance(job, SearchJob)
    unserved = [name for name, nothing in _NOT_SERVED.items() if getattr(job, name) != nothing]
    if job.expr:
        unserved.append("expr")
    if unserved:
        raise InvalidArgument(f"{unserved[0]} is not served by this release", field=unserved[0])
    assert job.vectors is not None
    version = snapshot.manifest.version
    if job.min_version is not None and job.min_version > version:
        message = f"collection {job.collection!r} is at version {version}, min_version is {job.min_version}"
        raise VersionTimeout(message, field="min_version")
    field, params = resolve(
        snapshot.manifest.schema,
        field=job.field,
        metric_type=job.metric_type,
        params=job.params,
        limit=job.offset + job.limit,
    )
    check_queries(field, job.vectors)
    return field, params


def _within(most_hits: int, searches: Sequence[_Search]) -> Iterator[list[_Search]]:
    """Cut searches into passes of at most `most_hits` queries x largest window, so that a large one stays alone."""
    batch: list[_Search] = []
    queries = 0
    for search in sorted(searches, key=lambda search: search.window):
        queries += len(search.queries)
        if batch and queries * search.window > most_hits:
            yield batch
            batch, queries = [], len(search.queries)
        batch.append(search)
    yield batch


def _slices(queries: int, threads: int) -> list[slice]:
    """Cut the queries into at most one slice a thread, none too small to be worth one."""
    count = max(1, min(threads, queries // _SLICE_QUERIES))
    bounds = [queries * part // count for part in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
