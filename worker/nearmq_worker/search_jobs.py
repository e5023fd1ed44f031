"""A batch of searches: one snapshot, one pass over the segments, and from it to each job exactly what it gets alone."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from nearmq.errors import DeadlineExceeded, InvalidArgument, VersionTimeout
from nearmq.jobs import Hits, Reply, SearchJob, TimingMs
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import StoreError
from nearmq_index_store.filters import Filter
from nearmq_index_store.manifest import Snapshot
from nearmq_index_store.schema import Schema
from nearmq_index_store.search import Hits as FoundHits
from nearmq_index_store.search import check_queries, plan, read_expr, resolve, search_part
from nearmq_index_store.segment import Segment
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.output_fields import read_fields
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.search_pass import Choice, Found, Pass, Search

#: Fields that the wire contract has and this release does not serve, with the value that asks for nothing.
_NOT_SERVED = {
    "ids": None,
    "radius": None,
    "range_filter": None,
    "explain": False,
}

#: Fewest queries that are worth handing to another thread.
_SLICE_QUERIES = 64


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
        groups: dict[Choice, list[Search]] = {}
        read = _ExprReader(snapshot.manifest.schema)
        for place, task in enumerate(tasks):
            try:
                choice, output_fields = _check(task, snapshot, read)
                groups.setdefault(choice, []).append(self._search_of(place, task, output_fields))
            except JOB_ERRORS as error:
                replies[place] = error_reply(job_ids[place], error)
        for choice, searches in groups.items():
            for batch in _within(self._config.result_hits, searches):
                try:
                    replies.update(self._run_pass(Pass(snapshot, segments, choice, batch), job_ids))
                except JOB_ERRORS as error:
                    replies.update((search.place, error_reply(job_ids[search.place], error)) for search in batch)
        return [replies[place] for place in range(len(tasks))]

    def _search_of(self, place: int, task: Task, output_fields: Sequence[str] | None) -> Search:
        job = task.job
        assert isinstance(job, SearchJob)
        assert job.vectors is not None
        left_s = self._config.deadline_s
        if task.deadline_ms is not None:
            left_s = min(left_s, task.deadline_ms / 1_000 - time.time())
        return Search(place, job, job.vectors, output_fields, time.monotonic() + left_s)

    def _run_pass(self, part: Pass, job_ids: Sequence[str]) -> Iterator[tuple[int, Reply]]:
        """Search the segments with all queries of a pass, and cut each job's own answer from the result."""
        began = time.monotonic()
        queries = np.concatenate([search.queries for search in part.searches])
        slices = _slices(len(queries), self._config.threads)
        units = [(number, rows) for rows in slices for number in range(len(part.segments))]
        done = self._run_units(part, queries, units)
        rows = part.merged([found for found, _ in done], len(queries))
        load_s = max((seconds for _, seconds in done), default=0.0)
        timing = TimingMs(load=load_s * 1_000, search=(time.monotonic() - began - load_s) * 1_000)
        start = 0
        for search in part.searches:
            own = rows[start : start + len(search.queries)]
            start += len(search.queries)
            yield search.place, self._reply(part, search, own, timing, job_ids[search.place])

    def _reply(self, part: Pass, search: Search, own: Sequence[Found], timing: TimingMs, job_id: str) -> Reply:
        """Cut a search's hits from those of its pass, and read the fields that it asks for."""
        if time.monotonic() > search.expires_at:
            return error_reply(job_id, DeadlineExceeded("the job's deadline passed while it was searched"))
        page = [search.cut(found) for found in own]
        try:
            fields = self._fields_of(part, search, page)
        except JOB_ERRORS as error:
            return error_reply(job_id, error)
        return Reply(
            job_id=job_id,
            status="ok",
            version=part.snapshot.manifest.version,
            hits=[
                Hits(ids=found.ids, distances=found.distances, fields=values)
                for found, values in zip(page, fields, strict=True)
            ],
            timing_ms=timing,
        )

    def _fields_of(self, part: Pass, search: Search, page: Sequence[Found]) -> Sequence[dict[str, list[Any]] | None]:
        if search.output_fields is None:
            return [None] * len(page)
        manifest = part.snapshot.manifest

        def open_part(number: int) -> AbstractContextManager[Segment]:
            return self._cache.use(manifest.collection_id, part.segments[number], manifest.schema, part.field.name)

        places = [found.places for found in page if found.places is not None]
        return read_fields(search.output_fields, places, open_part)

    def _run_units(
        self, part: Pass, queries: FloatMatrix, units: Sequence[tuple[int, slice]]
    ) -> list[tuple[FoundHits, float]]:
        """Search each unit, a segment's number and queries, in parallel where there are several.

        Returns:
            What each found and how long loading took.
        """
        manifest, field, limit, with_places = part.snapshot.manifest, part.field.name, part.limit, part.with_places

        def run(unit: tuple[int, slice]) -> tuple[FoundHits, float]:
            number, rows = unit
            entry = part.segments[number]
            asked = time.monotonic()
            if asked > part.expires_at:
                raise DeadlineExceeded("the job's deadline passed before all segments were searched")
            with self._cache.use(manifest.collection_id, entry, manifest.schema, field) as segment:
                load_s = time.monotonic() - asked
                hits = search_part(
                    segment,
                    queries[rows],
                    limit,
                    part.choice.params,
                    condition=part.choice.condition,
                    part=number if with_places else None,
                )
                return hits, load_s

        return list(map(run, units) if len(units) == 1 else self._pool.map(run, units))


class _ExprReader:
    """Compiles the expressions of a batch against one schema, each once however many jobs carry it."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._read: dict[tuple[str, bytes], Filter] = {}

    def __call__(self, job: SearchJob) -> Filter | None:
        if not job.expr:
            return None
        key = job.expr, msgspec.json.encode(job.expr_params)
        if key not in self._read:
            self._read[key] = read_expr(self._schema, job.expr, job.expr_params)
        return self._read[key]


def _check(task: Task, snapshot: Snapshot, read: _ExprReader) -> tuple[Choice, Sequence[str] | None]:
    """Check a job against what is served and the schema; return what it chooses, and its output fields."""
    job = task.job
    assert isinstance(job, SearchJob)
    unserved = [name for name, nothing in _NOT_SERVED.items() if getattr(job, name) != nothing]
    if unserved:
        raise InvalidArgument(f"{unserved[0]} is not served by this release", field=unserved[0])
    assert job.vectors is not None
    version = snapshot.manifest.version
    if job.min_version is not None and job.min_version > version:
        message = f"collection {job.collection!r} is at version {version}, min_version is {job.min_version}"
        raise VersionTimeout(message, field="min_version")
    schema = snapshot.manifest.schema
    field, params = resolve(
        schema,
        field=job.field,
        metric_type=job.metric_type,
        params=job.params,
        limit=job.offset + job.limit,
    )
    check_queries(field, job.vectors)
    output_fields = None if job.output_fields is None else schema.output_fields(job.output_fields)
    return Choice(field.name, params, read(job)), output_fields


def _within(most_hits: int, searches: Sequence[Search]) -> Iterator[list[Search]]:
    """Cut searches into passes of at most `most_hits` queries x largest window, so that a large one stays alone."""
    batch: list[Search] = []
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
