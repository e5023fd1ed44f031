"""The writes of rows of a collection, and how they are made exactly once."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Unpack

from nearmq.arguments import Columns, Ids, Vectors
from nearmq.jobs import DeleteJob, ExprValue, InsertJob, RowWriteJob, UpsertJob
from nearmq.row_arguments import WriteOptions, delete_job, row_write_job
from nearmq.row_results import WriteResult

if TYPE_CHECKING:
    from nearmq.client import Client


class Writing:
    """The part of `Collection` that writes rows.

    A write takes effect once per job id, however often it is sent. A source that delivers at least once gives each of
    its events an id that it sends again with the event, and the caller makes the job's id of that:

        for event in source:
            books.upsert([event.row], [event.vector], job_id=f"crawler-{event.id}")
            source.acknowledge(event)

    A write whose answer did not come (ReplyTimeout, BrokerUnavailable) may or may not take effect; call again with the
    error's `job_id`, and it takes effect once. An id is remembered for 7 days from the time that a UUIDv7 tells, or of
    publishing where it is none; a write that is older is refused with JobExpired, for it could take effect twice.

    Whoever needs no answer calls `client.publish(UpsertJob(…), reply_to=None)`, and nobody is told the outcome.
    """

    _client: "Client"
    name: str

    def upsert(
        self,
        ids: Ids,
        vectors: Vectors | Mapping[str, Vectors],
        fields: Columns | None = None,
        **options: Unpack[WriteOptions],
    ) -> WriteResult:
        """Write rows, replacing whole those whose id is there, and wait until they are committed.

        Args:
            ids: primary keys, at most 16,384, none twice.
            vectors: shape (rows, dim), for a collection of one vector field; or one such matrix for each, by name.
            fields: of each scalar field its values, one a row; a nullable one may be left out. Values are Python's:
                a `json` field takes whatever JSON has a word for.
            options: `partition_name`, `job_id` and `timeout_s`, see WriteOptions.

        Raises:
            InvalidArgument, FieldNotFound, DimensionMismatch: the rows do not fit the schema; none was written.
            JobExpired: the job id is of a time that is no longer remembered.
            NearmqError: as for a search.
        """
        return self.submit_upsert(ids, vectors, fields, **options).result()

    def submit_upsert(
        self,
        ids: Ids,
        vectors: Vectors | Mapping[str, Vectors],
        fields: Columns | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[WriteResult]:
        """Publish an upsert and return the future of its result; writes take effect in the order of their calls."""
        job = row_write_job(UpsertJob, self.name, ids=ids, vectors=vectors, fields=fields, options=options)
        return self._submit(job, options)

    def insert(
        self,
        ids: Ids,
        vectors: Vectors | Mapping[str, Vectors],
        fields: Columns | None = None,
        **options: Unpack[WriteOptions],
    ) -> WriteResult:
        """Add rows as `upsert` does; AlreadyExists, and none is written, when an id is there."""
        return self.submit_insert(ids, vectors, fields, **options).result()

    def submit_insert(
        self,
        ids: Ids,
        vectors: Vectors | Mapping[str, Vectors],
        fields: Columns | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[WriteResult]:
        """Publish an insert and return the future of its result."""
        job = row_write_job(InsertJob, self.name, ids=ids, vectors=vectors, fields=fields, options=options)
        return self._submit(job, options)

    def delete(
        self,
        ids: Ids | None = None,
        *,
        expr: str | None = None,
        expr_params: Mapping[str, ExprValue] | None = None,
        **options: Unpack[WriteOptions],
    ) -> WriteResult:
        """Delete the rows of these ids, or those for which an expression is true, and wait until that is committed.

        Args:
            ids: primary keys; those that are not there are no error.
            expr: instead of ids.
            expr_params: what the placeholders of the expression stand for.
            options: `partition_name` (None is all), `job_id` and `timeout_s`, see WriteOptions.
        """
        return self.submit_delete(ids, expr=expr, expr_params=expr_params, **options).result()

    def submit_delete(
        self,
        ids: Ids | None = None,
        *,
        expr: str | None = None,
        expr_params: Mapping[str, ExprValue] | None = None,
        **options: Unpack[WriteOptions],
    ) -> Future[WriteResult]:
        """Publish a delete and return the future of its result."""
        return self._submit(delete_job(self.name, ids, expr, expr_params, options), options)

    def _submit(self, job: RowWriteJob | DeleteJob, options: WriteOptions) -> Future[WriteResult]:
        return self._client.submit_as(
            WriteResult.of, job, timeout_s=options.get("timeout_s"), job_id=options.get("job_id")
        )
