"""The jobs that read stored rows, get, query and count: one version each, and no index."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from nearmq.jobs import CountJob, GetJob, QueryJob, Reply, TimingMs
from nearmq.stored_rows import write_rows
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.filters import Filter
from nearmq_index_store.manifest import Snapshot
from nearmq_index_store.places import Places
from nearmq_index_store.reading import RowMasks, find_rows, no_rows, to_key, to_keys
from nearmq_index_store.schema import Schema
from nearmq_index_store.search import plan, read_expr
from nearmq_worker.awaited import Patience
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.output_fields import RowReader
from nearmq_worker.versions import ReadVersion, read_version

ReadJob = GetJob | QueryJob | CountJob
READ_JOBS = (GetJob, QueryJob, CountJob)


class Reader:
    """Answers reads of the catalog's collections. Safe for many threads."""

    def __init__(self, catalog: Catalog, cache: SegmentCache, config: WorkerConfig, patience: Patience) -> None:
        self._catalog = catalog
        self._cache = cache
        self._masks = RowMasks(catalog.readers.deletes)
        self._config = config
        self._patience = patience

    def run(self, task: Task) -> Reply:
        """Answer one job.

        Raises:
            NearmqError, StoreError: why it has no answer.
        """
        job = task.job
        assert isinstance(job, READ_JOBS)
        snapshot = self._snapshot(job)
        try:
            return self._run_at(snapshot, task, job)
        except IndexCorrupt:  # a blob may be gone because the version is, for which the one that follows has the answer
            newest = self._snapshot(job)
            if newest.manifest.version == snapshot.manifest.version:
                raise
            return self._run_at(newest, task, job)

    def _snapshot(self, job: ReadJob) -> Snapshot:
        pinned = job.version if isinstance(job, QueryJob) else None
        return read_version(self._catalog, job.collection, min_version=job.min_version, version=pinned)

    def _run_at(self, snapshot: Snapshot, task: Task, job: ReadJob) -> Reply:
        """Answer a job from one version."""
        began = time.monotonic()
        segments = plan(snapshot, job.partition_names)
        version = ReadVersion(self._cache, snapshot, segments, self._patience.of(task))
        result = self._result(job, version)
        load_s = version.load_s
        return Reply(
            job_id=task.delivery.message.message_id,
            status="ok",
            version=snapshot.manifest.version,
            result=result,
            timing_ms=TimingMs(load=load_s * 1_000, search=(time.monotonic() - began - load_s) * 1_000),
        )

    def _result(self, job: ReadJob, version: ReadVersion) -> dict[str, Any]:
        match job:
            case CountJob():
                return {"count": self._count(job, version)}
            case GetJob():
                read = self._field_reader(job, version)
                return read(*self._found(job, version))
            case QueryJob():
                read = self._field_reader(job, version)
                return read(*self._page(job, version))

    def _count(self, job: CountJob, version: ReadVersion) -> int:
        """Count the rows; without an expression the manifest alone says it."""
        condition = _condition(job, version.schema)
        if condition is None:
            return sum(entry.live_rows for entry in version.segments)
        count = 0
        for part, entry in enumerate(version.segments):
            with version.open(part) as rows:
                count += int(np.count_nonzero(self._masks.mask(entry, rows, condition)))
        return count

    def _found(self, job: GetJob, version: ReadVersion) -> tuple[pa.Array, Places]:
        """Return the ids of a get that are there, in their order, and where."""
        primary_key = version.schema.primary_key
        keys = to_keys(job.ids, primary_key, as_text=job.id_format == "string")
        readers = self._catalog.readers
        places = find_rows(
            version.segments, keys, lambda entry: readers.keys.keys(entry, primary_key), readers.deletes.deleted
        )
        is_found = places >= 0
        return keys.filter(pa.array(is_found)), places[is_found]

    def _page(self, job: QueryJob, version: ReadVersion) -> tuple[pa.Array, Places]:
        """Return the ids of a query's rows, ascending, and where they are."""
        primary_key = version.schema.primary_key
        condition = _condition(job, version.schema)
        as_text = job.id_format == "string"
        after = None if job.after is None else to_key(job.after, primary_key, field="after", as_text=as_text)
        first = no_rows(primary_key, job.offset + job.limit)
        for part in sorted(range(len(version.segments)), key=lambda number: version.segments[number].keys.min):
            entry = version.segments[part]
            if not first.has_room_for(entry):
                break  # nor has it for those that follow, whose ids are larger still
            if after is not None and entry.keys.max <= after.as_py():
                continue
            with version.open(part) as rows:
                first = first.and_of(part, rows, self._masks.mask(entry, rows, condition), after)
        return first.keys[job.offset :], first.places[job.offset :]

    def _field_reader(
        self, job: GetJob | QueryJob, version: ReadVersion
    ) -> Callable[[pa.Array, Places], dict[str, Any]]:
        """Check the fields that a job asks for; return what reads them and writes the rows as the wire has them."""
        scalars, vectors = version.schema.read_fields(job.output_fields or ())
        as_text = job.id_format == "string"

        def read(keys: pa.Array, places: Places) -> dict[str, Any]:
            reader = RowReader(version.open, self._config.result_bytes, integers_as_text=as_text)
            return write_rows(
                keys.to_numpy(zero_copy_only=False),
                reader.scalars(scalars, places),
                reader.vectors(vectors, places),
                encoding=job.encoding,
                id_format=job.id_format,
            )

        return read


def _condition(job: QueryJob | CountJob, schema: Schema) -> Filter | None:
    return read_expr(schema, job.expr, job.expr_params) if job.expr else None
