"""The searches of a batch, checked against one version of their collection, and what each is looking for."""

from collections.abc import Sequence

import msgspec
import numpy as np

from nearmq.errors import LimitExceeded
from nearmq.jobs import SearchJob
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.distances import FloatMatrix, RowNumbers
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import Snapshot
from nearmq_index_store.ranges import check_range
from nearmq_index_store.reading import find_rows, to_keys
from nearmq_index_store.schema import Schema, VectorField
from nearmq_index_store.search import check_queries, read_expr, resolve
from nearmq_worker.awaited import Awaited, Patience
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.output_fields import RowReader
from nearmq_worker.search_pass import Choice, Found
from nearmq_worker.versions import ReadVersion, check_reached


class Search(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A search that passed all checks.

    Attributes:
        place: of its task in the batch.
        queries: float32, shape (queries, dim).
        rows: of the answer, one for each vector or id of the job.
        row_of: the row of the answer that each query is for, ascending; an id that is not there has no query. None
            where each row has one.
        output_fields: the scalar fields to return; None where the job asks for none.
    """

    place: int
    job: SearchJob
    choice: Choice
    queries: FloatMatrix
    rows: int
    row_of: RowNumbers | None
    output_fields: Sequence[str] | None
    awaited: Awaited

    @property
    def job_id(self) -> str:
        """The id of its job."""
        return self.awaited.job_id

    @property
    def window(self) -> int:
        """How many of the nearest rows decide the answer at least: those skipped, and those given."""
        return (self.job.offset + self.job.limit) * self.job.group_size

    def page(self, found: Found) -> Found:
        """Cut this search's hits from those of a window at least as large."""
        return found.page(self.job.offset, self.window)

    def answer(self, found: Found) -> Found:
        """Return the hits of the rows of the answer: those of the queries, rounded, and none for the others."""
        decimals = self.job.round_decimal
        if decimals >= 0:
            found = found._replace(distances=found.distances.round(decimals))
        if self.row_of is None:
            return found
        counts = [0] * self.rows
        for row, count in zip(self.row_of.tolist(), found.counts, strict=True):
            counts[row] = count
        return found._replace(counts=counts)


class SearchChecker:
    """Checks the searches of a batch; reads the vectors of those that name stored rows."""

    def __init__(
        self, catalog: Catalog, cache: SegmentCache, config: WorkerConfig, patience: Patience, snapshot: Snapshot
    ) -> None:
        self._readers = catalog.readers
        self._cache = cache
        self._config = config
        self._patience = patience
        self._snapshot = snapshot
        self._schema = snapshot.manifest.schema
        self._expr = _ExprReader(self._schema)
        self._resolved: dict[tuple[object, ...], tuple[VectorField, SearchParams]] = {}

    def check(self, place: int, task: Task) -> Search:
        """Return what a job of this place in the batch is looking for.

        Raises:
            NearmqError, StoreError: what is wrong with it.
        """
        job = task.job
        assert isinstance(job, SearchJob)
        check_reached(self._snapshot.manifest, job.min_version)
        field, params = self._resolve(job)
        check_range(field.metric, job.radius, job.range_filter)
        choice = Choice(field.name, params, self._expr(job), job.radius, job.range_filter)
        output_fields = _output_fields(self._schema, job)
        awaited = self._patience.of(task)
        queries, rows, row_of = self._queries(job, field, awaited)
        return Search(
            place=place,
            job=job,
            choice=choice,
            queries=queries,
            rows=rows,
            row_of=row_of,
            output_fields=output_fields,
            awaited=awaited,
        )

    def _resolve(self, job: SearchJob) -> tuple[VectorField, SearchParams]:
        """Resolve what a job asks for; once for all jobs that ask for the same."""
        limit = (job.offset + job.limit) * job.group_size
        types = tuple(map(type, job.params.values()))  # 32 equals 32.0, which is refused
        key = job.field, job.metric_type, limit, types, *job.params.items()
        resolved = self._resolved.get(key)
        if resolved is None:
            resolved = self._resolved[key] = resolve(
                self._schema, field=job.field, metric_type=job.metric_type, params=job.params, limit=limit
            )
        return resolved

    def widened(self, search: Search, window: int) -> Choice:
        """Return what a search chooses for a larger window than its own."""
        job = search.job
        params = {name: max(value, window) if name == "ef" else value for name, value in job.params.items()}
        _, wider = resolve(self._schema, field=job.field, metric_type=None, params=params, limit=window)
        return search.choice._replace(params=wider)

    def _queries(
        self, job: SearchJob, field: VectorField, awaited: Awaited
    ) -> tuple[FloatMatrix, int, RowNumbers | None]:
        """Return the query vectors, the rows of the answer, and the row that each vector is for."""
        if job.vectors is not None:
            check_queries(field, job.vectors)
            return job.vectors, len(job.vectors), None
        return self._stored_vectors(job, field, awaited)

    def _stored_vectors(
        self, job: SearchJob, field: VectorField, awaited: Awaited
    ) -> tuple[FloatMatrix, int, RowNumbers]:
        """Read the vectors of the rows that a job names; they may be in any partition."""
        ids = job.ids or []
        primary_key = self._schema.primary_key
        keys = to_keys(ids, primary_key, as_text=job.id_format == "string")
        segments = self._snapshot.segments
        places = find_rows(
            segments, keys, lambda entry: self._readers.keys.keys(entry, primary_key), self._readers.deletes.deleted
        )
        row_of = np.flatnonzero(places >= 0)
        taken, most = 4 * field.dim * len(row_of), self._config.result_bytes
        if taken > most:
            raise LimitExceeded(f"the vectors of the ids take {taken} bytes, allowed are at most {most}", field="ids")
        version = ReadVersion(self._cache, self._snapshot, segments, awaited, field=field.name)
        vectors = RowReader(version.open, most).vectors([field], places[row_of])
        return vectors[field.name], len(ids), row_of


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


def _output_fields(schema: Schema, job: SearchJob) -> Sequence[str] | None:
    """Return the scalar fields that the hits carry: those asked for, and that of their groups."""
    if job.group_by_field is None:
        return None if job.output_fields is None else schema.output_fields(job.output_fields)
    return schema.output_fields([schema.group_field(job.group_by_field), *(job.output_fields or ())])
