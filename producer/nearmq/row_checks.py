"""The checks of the jobs about rows: written, deleted, and read by id or expression."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from nearmq.bounds import Bounds
from nearmq.errors import InvalidArgument, LimitExceeded
from nearmq.jobs import CountJob, DeleteJob, GetJob, QueryJob, RowWriteJob, SearchJob
from nearmq.value_checks import (
    ALL_FIELDS,
    check_at_most,
    check_expr,
    check_id,
    check_ids,
    check_name,
    check_names,
    check_optional_name,
    check_version,
)

#: Values of these types hold no number that is not finite.
_UNSUSPICIOUS = frozenset({bool, int, str, type(None)})


def check_row_write(job: RowWriteJob, bounds: Bounds) -> None:
    """Check that a write's columns are of one length, that their names are names, and that no id is there twice."""
    check_ids(job.ids, bounds, most=bounds.rows)
    check_optional_name("partition_name", job.partition_name)
    rows = len(job.ids)
    matrices = job.vectors if isinstance(job.vectors, dict) else {None: job.vectors}
    for name, matrix in matrices.items():
        if name is not None:
            check_name("vectors", name)
        _check_rows("vectors" if name is None else f"vectors.{name}", len(matrix), rows)
    check_at_most("fields", len(job.fields), bounds.scalar_fields, "fields")
    for name, column in job.fields.items():
        check_name("fields", name)
        _check_rows(f"fields.{name}", len(column), rows)
    _check_no_id_twice(job.ids)


def check_finite(fields: Mapping[str, Sequence[Any]]) -> None:
    """Refuse numbers that are not finite, which JSON has no word for: a writer of JSON may make null of them."""
    for name, column in fields.items():
        if _UNSUSPICIOUS.issuperset(map(type, column)):
            continue
        for row, value in enumerate(column):
            if not _is_finite(value):
                field = f"fields.{name}[{row}]"
                raise InvalidArgument(f"{field} is {value!r:.80}, allowed are finite numbers", field=field)


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list) else True


def _check_rows(field: str, length: int, rows: int) -> None:
    if length != rows:
        raise InvalidArgument(f"{field} has {length} rows, ids has {rows}", field=field)


def _check_no_id_twice(ids: Sequence[int | str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen: dict[int | str, int] = {}
    for position, id_ in enumerate(ids):
        first = seen.setdefault(id_, position)
        if first != position:
            raise InvalidArgument(
                f"ids[{first}] and ids[{position}] are both {id_!r:.80}, allowed is an id once a job",
                field=f"ids[{position}]",
            )


def check_delete(job: DeleteJob, bounds: Bounds) -> None:
    """Check that a delete says by one of the two ways what to delete."""
    if (job.ids is None) == (job.expr is None):
        given = "neither" if job.ids is None else "both"
        raise InvalidArgument(f"a delete takes either ids or expr, {given} given", field="ids")
    if job.ids is not None:
        check_ids(job.ids, bounds, most=bounds.rows)
    check_expr(job, bounds)
    check_optional_name("partition_name", job.partition_name)


def check_get(job: GetJob, bounds: Bounds) -> None:
    """Check a get."""
    check_ids(job.ids, bounds, most=bounds.rows)
    check_names("output_fields", job.output_fields, bounds, also=(ALL_FIELDS,))
    check_names("partition_names", job.partition_names, bounds)
    check_version("min_version", job.min_version)


def check_query(job: QueryJob, bounds: Bounds) -> None:
    """Check a query, and its place among pages."""
    if job.limit < 1:
        raise InvalidArgument(f"limit is {job.limit}, allowed are 1 to {bounds.rows}", field="limit")
    check_at_most("limit", job.limit, bounds.rows)
    if job.offset < 0:
        raise InvalidArgument(f"offset is {job.offset}, allowed is 0 or more", field="offset")
    if job.offset + job.limit > bounds.limit:
        raise LimitExceeded(
            f"offset + limit is {job.offset + job.limit}, allowed are at most {bounds.limit}: page by after instead",
            field="offset",
        )
    check_read(job, bounds)
    check_names("output_fields", job.output_fields, bounds, also=(ALL_FIELDS,))
    check_version("version", job.version)
    if job.after is not None:
        check_id("after", job.after, bounds)


def check_read(job: SearchJob | CountJob | QueryJob, bounds: Bounds) -> None:
    """Check what all that read by an expression have in common."""
    check_names("partition_names", job.partition_names, bounds)
    check_expr(job, bounds)
    check_version("min_version", job.min_version)
