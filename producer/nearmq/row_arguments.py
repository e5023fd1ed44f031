"""The arguments of calls about rows, as a caller has them, to their jobs."""

from collections.abc import Mapping, Sequence
from typing import TypedDict, TypeVar

from nearmq.arguments import Columns, Ids, Vectors, as_columns, as_ids, as_matrices, as_names, check_keywords
from nearmq.jobs import CountJob, DeleteJob, ExprValue, GetJob, QueryJob, RowWriteJob

W = TypeVar("W", bound=RowWriteJob)

#: The most rows that one query returns.
MAX_ROWS = 16_384


class WriteOptions(TypedDict, total=False):
    """What every write takes beside its rows.

    Attributes:
        partition_name: the partition to write to or delete from; None is `_default` for rows, and all for a delete.
        job_id: chosen by the caller, so that a write that is sent again takes effect once; None for a new one.
        timeout_s: how long to wait; None for the client's default.
    """

    partition_name: str | None
    job_id: str | None
    timeout_s: float | None


class GetOptions(TypedDict, total=False):
    """What every read of rows takes.

    Attributes:
        output_fields: scalar and vector fields to return; `*` is all scalar ones.
        partition_names: only these; None for all.
        min_version: the version that the collection has to have reached, such as that of a write.
        timeout_s: how long to wait; None for the client's default.
    """

    output_fields: Sequence[str] | None
    partition_names: Sequence[str] | None
    min_version: int | None
    timeout_s: float | None


class QueryOptions(GetOptions, total=False):
    """What a query takes beside its expression.

    Attributes:
        expr_params: what the placeholders of the expression stand for.
        limit: how many rows at most, 1 to MAX_ROWS, which is the default.
        offset: rows to skip.
        version: read this version; None for the newest.
        after: only rows with a larger id.
    """

    expr_params: Mapping[str, ExprValue] | None
    limit: int
    offset: int
    version: int | None
    after: int | str | None


def row_write_job(
    kind: type[W],
    collection: str,
    *,
    ids: Ids,
    vectors: Vectors | Mapping[str, Vectors],
    fields: Columns | None,
    options: WriteOptions,
) -> W:
    """Return the job of an upsert's or insert's arguments.

    Raises:
        InvalidArgument: an argument is no list, matrix or mapping of such.
        TypeError: there is no such argument.
    """
    check_keywords(options, WriteOptions)
    return kind(
        collection=collection,
        ids=as_ids(ids),
        vectors=as_matrices(vectors),
        fields=as_columns(fields),
        partition_name=options.get("partition_name"),
    )


def delete_job(
    collection: str,
    ids: Ids | None,
    expr: str | None,
    expr_params: Mapping[str, ExprValue] | None,
    options: WriteOptions,
) -> DeleteJob:
    """Return the job of a delete's arguments; raises as `row_write_job` does."""
    check_keywords(options, WriteOptions)
    return DeleteJob(
        collection=collection,
        ids=None if ids is None else as_ids(ids),
        expr=expr,
        expr_params=dict(expr_params or {}),
        partition_name=options.get("partition_name"),
    )


def get_job(collection: str, ids: Ids, options: GetOptions) -> GetJob:
    """Return the job of a get's arguments; raises as `row_write_job` does."""
    check_keywords(options, GetOptions)
    return GetJob(
        collection=collection,
        ids=as_ids(ids),
        output_fields=as_names("output_fields", options.get("output_fields")),
        partition_names=as_names("partition_names", options.get("partition_names")),
        min_version=options.get("min_version"),
        encoding="base64",
    )


def query_job(collection: str, expr: str | None, options: QueryOptions) -> QueryJob:
    """Return the job of a query's arguments; raises as `row_write_job` does."""
    check_keywords(options, QueryOptions)
    return QueryJob(
        collection=collection,
        expr=expr,
        expr_params=dict(options.get("expr_params") or {}),
        limit=options.get("limit", MAX_ROWS),
        offset=options.get("offset", 0),
        output_fields=as_names("output_fields", options.get("output_fields")),
        partition_names=as_names("partition_names", options.get("partition_names")),
        min_version=options.get("min_version"),
        version=options.get("version"),
        after=options.get("after"),
        encoding="base64",
    )


def count_job(
    collection: str,
    expr: str | None,
    expr_params: Mapping[str, ExprValue] | None,
    partition_names: Sequence[str] | None,
    min_version: int | None,
) -> CountJob:
    """Return the job of a count's arguments."""
    return CountJob(
        collection=collection,
        expr=expr,
        expr_params=dict(expr_params or {}),
        partition_names=as_names("partition_names", partition_names),
        min_version=min_version,
    )
