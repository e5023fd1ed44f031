"""The check of a job's values against the bounds, by the job's type; `row_checks.py` has those of jobs about rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite

from nearmq.bounds import DEFAULT_BOUNDS, Bounds
from nearmq.errors import InvalidArgument, LimitExceeded
from nearmq.jobs import (
    FORMAT,
    BuildJob,
    CancelJob,
    CompactJob,
    CountJob,
    CreateJob,
    DeleteJob,
    DropJob,
    GetJob,
    InsertJob,
    Job,
    LoadJob,
    QueryJob,
    ReleaseJob,
    RenameJob,
    ScalarFieldSpec,
    SearchJob,
    UpsertJob,
    VectorFieldSpec,
)
from nearmq.row_checks import check_delete, check_get, check_query, check_read, check_row_write
from nearmq.value_checks import (
    ALL_FIELDS,
    check_at_most,
    check_ids,
    check_job_id,
    check_name,
    check_names,
    check_optional_name,
    check_params,
    check_range,
)

#: Milvus's: -1 is no rounding.
ROUND_DECIMAL = range(-1, 7)


def check_job(job: Job, bounds: Bounds = DEFAULT_BOUNDS) -> None:
    """Check every value of a job except its vectors, which `vectors.py` checks as it reads or writes them.

    Raises:
        InvalidArgument: a value is out of its range, or fields contradict each other.
        LimitExceeded: there is too much of something.
    """
    if job.format != FORMAT:
        raise InvalidArgument(f"format is {job.format}, allowed is {FORMAT}", field="format")
    collection = getattr(job, "collection", None)
    if collection is not None:
        check_name("collection", collection)
    check = _CHECKS.get(type(job))
    if check is not None:
        check(job, bounds)


def _check_search(job: SearchJob, bounds: Bounds) -> None:
    if (job.vectors is None) == (job.ids is None):
        given = "neither" if job.vectors is None else "both"
        raise InvalidArgument(f"a search takes either vectors or ids, {given} given", field="vectors")
    if job.ids is not None:
        check_ids(job.ids, bounds, most=bounds.queries)
    _check_window(job, bounds)
    check_optional_name("field", job.field)
    check_optional_name("group_by_field", job.group_by_field)
    check_read(job, bounds)
    check_names("output_fields", job.output_fields, bounds, also=(ALL_FIELDS,))
    check_params("params", job.params, bounds)
    for name, distance in (("radius", job.radius), ("range_filter", job.range_filter)):
        if distance is not None and not isfinite(distance):
            raise InvalidArgument(f"{name} is {distance}, allowed are finite numbers", field=name)
    check_range("round_decimal", job.round_decimal, ROUND_DECIMAL)


def _check_window(job: SearchJob, bounds: Bounds) -> None:
    """Check limit, offset and what they come to over all queries."""
    if job.limit < 1:
        raise InvalidArgument(f"limit is {job.limit}, allowed are 1 to {bounds.limit}", field="limit")
    check_at_most("limit", job.limit, bounds.limit)
    if job.offset < 0:
        raise InvalidArgument(f"offset is {job.offset}, allowed is 0 or more", field="offset")
    window = job.offset + job.limit
    if window > bounds.limit:
        raise LimitExceeded(f"offset + limit is {window}, allowed are at most {bounds.limit}", field="offset")
    if job.group_size != 1:
        window *= _group_size(job, bounds)
    queries = len(job.ids if job.vectors is None else job.vectors)  # type: ignore[arg-type]  # one of the two is there
    if queries * window > bounds.hits:
        raise LimitExceeded(
            f"{queries} queries x (offset + limit) of {window} are {queries * window} hits, allowed are at most "
            f"{bounds.hits}: split the queries",
            field="limit",
        )


def _group_size(job: SearchJob, bounds: Bounds) -> int:
    """Return the rows of a group, by which the window is multiplied."""
    if job.group_size < 1:
        raise InvalidArgument(f"group_size is {job.group_size}, allowed are 1 to {bounds.limit}", field="group_size")
    if job.group_by_field is None:
        raise InvalidArgument("group_size is of groups, give group_by_field too", field="group_size")
    hits = (job.offset + job.limit) * job.group_size
    if hits > bounds.limit:
        raise LimitExceeded(
            f"(offset + limit) x group_size is {hits}, allowed are at most {bounds.limit}", field="group_size"
        )
    return job.group_size


def _check_create(job: CreateJob, bounds: Bounds) -> None:
    if job.partition_name is not None and job.vector_fields:
        raise InvalidArgument(
            "a create takes either vector_fields or partition_name, both given", field="vector_fields"
        )
    if job.partition_name is not None and job.scalar_fields:
        raise InvalidArgument("scalar_fields are of a collection, not of a partition", field="scalar_fields")
    if job.partition_name is None and not job.vector_fields:
        _check_added_fields(job.scalar_fields)
    check_optional_name("partition_name", job.partition_name)
    check_at_most("vector_fields", len(job.vector_fields), bounds.vector_fields, "fields")
    for position, spec in enumerate(job.vector_fields):
        _check_vector_field(f"vector_fields[{position}]", spec, bounds)
    check_at_most("scalar_fields", len(job.scalar_fields), bounds.scalar_fields, "fields")
    for position, scalar in enumerate(job.scalar_fields):
        check_name(f"scalar_fields[{position}].name", scalar.name)
    vectors, scalars = [spec.name for spec in job.vector_fields], [spec.name for spec in job.scalar_fields]
    counts = Counter([*vectors, *scalars])
    for argument, names in (("vector_fields", vectors), ("scalar_fields", scalars)):
        for name in names:
            if counts[name] > 1:
                raise InvalidArgument(f"field {name!r} is there {counts[name]} times", field=argument)


def _check_added_fields(scalars: Sequence[ScalarFieldSpec]) -> None:
    """Check fields that are added to a collection: its rows, which stay as they are, have no value of them."""
    if not scalars:
        raise InvalidArgument(
            "a create takes vector_fields, partition_name or scalar_fields, none given", field="vector_fields"
        )
    for position, scalar in enumerate(scalars):
        if not scalar.nullable:
            raise InvalidArgument(
                f"field {scalar.name!r} is added to rows that have no value of it, set nullable to true",
                field=f"scalar_fields[{position}].nullable",
            )


def _check_vector_field(path: str, spec: VectorFieldSpec, bounds: Bounds) -> None:
    check_name(f"{path}.name", spec.name)
    check_range(f"{path}.dim", spec.dim, range(1, bounds.dim + 1))
    check_name(f"{path}.index", spec.index)
    check_params(f"{path}.index_params", spec.index_params, bounds)


def _check_drop(job: DropJob, _: Bounds) -> None:
    check_optional_name("partition_name", job.partition_name)


def _check_rename(job: RenameJob, _: Bounds) -> None:
    check_name("new_name", job.new_name)


def _check_partitions(job: CompactJob | BuildJob, bounds: Bounds) -> None:
    check_names("partition_names", job.partition_names, bounds)


def _check_load(job: LoadJob | ReleaseJob, bounds: Bounds) -> None:
    check_names("partition_names", job.partition_names, bounds)
    if isinstance(job, LoadJob):
        check_optional_name("field", job.field)


def _check_cancel(job: CancelJob, bounds: Bounds) -> None:
    if not job.job_ids:
        raise InvalidArgument("job_ids is empty, name at least one", field="job_ids")
    check_at_most("job_ids", len(job.job_ids), bounds.names, "ids")
    for position, job_id in enumerate(job.job_ids):
        check_job_id(f"job_ids[{position}]", job_id)


_CHECKS: dict[type[Job], Callable[..., None]] = {
    SearchJob: _check_search,
    UpsertJob: check_row_write,
    InsertJob: check_row_write,
    DeleteJob: check_delete,
    GetJob: check_get,
    CountJob: check_read,
    QueryJob: check_query,
    CompactJob: _check_partitions,
    BuildJob: _check_partitions,
    LoadJob: _check_load,
    ReleaseJob: _check_load,
    CancelJob: _check_cancel,
    CreateJob: _check_create,
    DropJob: _check_drop,
    RenameJob: _check_rename,
}
