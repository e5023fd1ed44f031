"""What a job may hold: the bounds of the wire contract, and the check of a job's values against them.

A value out of its range is INVALID_ARGUMENT; too much of something is LIMIT_EXCEEDED. Nothing here depends on the
data's state: what needs the collection's schema is checked by the index store.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from nearmq.errors import InvalidArgument, LimitExceeded
from nearmq.jobs import (
    FORMAT,
    CreateJob,
    DropJob,
    Job,
    LoadJob,
    ReleaseJob,
    RenameJob,
    SearchJob,
    VectorFieldSpec,
)

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")

#: The output field that stands for all scalar fields.
ALL_FIELDS = "*"

_INT64 = range(-(2**63), 2**63)
#: Milvus's: -1 is no rounding.
_ROUND_DECIMAL = range(-1, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The most that one job may hold.

    Attributes:
        body_bytes: the whole body; RabbitMQ 4 refuses messages over 16 MiB, and pika holds a body twice. Decoding takes
            at most some 12 times as many bytes for a while (JSON lists of numbers; packed vectors twice).
        depth: nesting of objects and lists.
        items: lists and objects, and strings, in the whole body; far above what the other bounds leave room for, it
            keeps a body of empty ones small in memory.
        dim: dimensions of a vector.
        queries: vectors or ids of one search.
        limit: offset + limit of one search.
        hits: queries x (offset + limit) of one search, which is what bounds the reply.
        id_bytes: UTF-8 bytes of a string primary key.
        expr_bytes: UTF-8 bytes of a filter expression.
        names: partition names or output fields of one job.
        vector_fields: vector fields of a collection.
        scalar_fields: scalar fields of a collection.
        params: search or index parameters.
    """

    body_bytes: int = 8 << 20
    depth: int = 8
    items: int = 65_536
    dim: int = 32_768
    queries: int = 16_384
    limit: int = 1_048_576
    hits: int = 16_777_216
    id_bytes: int = 1_024
    expr_bytes: int = 65_536
    names: int = 1_024
    vector_fields: int = 8
    scalar_fields: int = 64
    params: int = 32


DEFAULT_BOUNDS = Bounds()


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
        _check_name("collection", collection)
    check = _CHECKS.get(type(job))
    if check is not None:
        check(job, bounds)


def _check_search(job: SearchJob, bounds: Bounds) -> None:
    if (job.vectors is None) == (job.ids is None):
        given = "neither" if job.vectors is None else "both"
        raise InvalidArgument(f"a search takes either vectors or ids, {given} given", field="vectors")
    if job.ids is not None:
        _check_ids(job.ids, bounds)
    _check_window(job, bounds)
    _check_optional_name("field", job.field)
    _check_names("partition_names", job.partition_names, bounds)
    _check_names("output_fields", job.output_fields, bounds, also=(ALL_FIELDS,))
    _check_params("params", job.params, bounds)
    if job.expr is not None:
        _check_at_most("expr", _utf8_bytes(job.expr), bounds.expr_bytes, "bytes")
    _check_at_most("expr_params", len(job.expr_params), bounds.params, "values")
    for name, distance in (("radius", job.radius), ("range_filter", job.range_filter)):
        if distance is not None and not isfinite(distance):
            raise InvalidArgument(f"{name} is {distance}, allowed are finite numbers", field=name)
    _check_range("round_decimal", job.round_decimal, _ROUND_DECIMAL)
    if job.min_version is not None:
        _check_range("min_version", job.min_version, range(2**63))


def _check_window(job: SearchJob, bounds: Bounds) -> None:
    """Check limit, offset and what they come to over all queries."""
    if job.limit < 1:
        raise InvalidArgument(f"limit is {job.limit}, allowed are 1 to {bounds.limit}", field="limit")
    _check_at_most("limit", job.limit, bounds.limit)
    if job.offset < 0:
        raise InvalidArgument(f"offset is {job.offset}, allowed is 0 or more", field="offset")
    window = job.offset + job.limit
    if window > bounds.limit:
        raise LimitExceeded(f"offset + limit is {window}, allowed are at most {bounds.limit}", field="offset")
    queries = len(job.ids if job.vectors is None else job.vectors)  # type: ignore[arg-type]  # one of the two is there
    if queries * window > bounds.hits:
        raise LimitExceeded(
            f"{queries} queries x (offset + limit) of {window} are {queries * window} hits, allowed are at most "
            f"{bounds.hits}: split the queries",
            field="limit",
        )


def _check_ids(ids: Sequence[int | str], bounds: Bounds) -> None:
    _check_at_most("ids", len(ids), bounds.queries, "ids")
    kinds = {type(id_) for id_ in ids}
    if len(kinds) > 1:
        raise InvalidArgument("ids holds integers and strings, allowed is one of the two", field="ids")
    for position, id_ in enumerate(ids):
        if isinstance(id_, str):
            _check_at_most(f"ids[{position}]", _utf8_bytes(id_), bounds.id_bytes, "bytes")
        elif id_ not in _INT64:
            raise InvalidArgument(f"ids[{position}] is {id_}, allowed are -2^63 to 2^63 - 1", field=f"ids[{position}]")


def _check_load(job: LoadJob | ReleaseJob, bounds: Bounds) -> None:
    _check_names("partition_names", job.partition_names, bounds)
    if isinstance(job, LoadJob):
        _check_optional_name("field", job.field)


def _check_create(job: CreateJob, bounds: Bounds) -> None:
    if bool(job.vector_fields) == (job.partition_name is not None):
        given = "both" if job.vector_fields else "neither"
        raise InvalidArgument(
            f"a create takes either vector_fields or partition_name, {given} given", field="vector_fields"
        )
    if job.scalar_fields and not job.vector_fields:
        raise InvalidArgument("scalar_fields are of a collection, give vector_fields too", field="scalar_fields")
    _check_optional_name("partition_name", job.partition_name)
    _check_at_most("vector_fields", len(job.vector_fields), bounds.vector_fields, "fields")
    for position, spec in enumerate(job.vector_fields):
        _check_vector_field(f"vector_fields[{position}]", spec, bounds)
    _check_at_most("scalar_fields", len(job.scalar_fields), bounds.scalar_fields, "fields")
    for position, scalar in enumerate(job.scalar_fields):
        _check_name(f"scalar_fields[{position}].name", scalar.name)
    vectors, scalars = [spec.name for spec in job.vector_fields], [spec.name for spec in job.scalar_fields]
    counts = Counter([*vectors, *scalars])
    for argument, names in (("vector_fields", vectors), ("scalar_fields", scalars)):
        for name in names:
            if counts[name] > 1:
                raise InvalidArgument(f"field {name!r} is there {counts[name]} times", field=argument)


def _check_vector_field(path: str, spec: VectorFieldSpec, bounds: Bounds) -> None:
    _check_name(f"{path}.name", spec.name)
    _check_range(f"{path}.dim", spec.dim, range(1, bounds.dim + 1))
    _check_name(f"{path}.index", spec.index)
    _check_params(f"{path}.index_params", spec.index_params, bounds)


def _check_drop(job: DropJob, _: Bounds) -> None:
    _check_optional_name("partition_name", job.partition_name)


def _check_rename(job: RenameJob, _: Bounds) -> None:
    _check_name("new_name", job.new_name)


_CHECKS: dict[type[Job], Callable[..., None]] = {
    SearchJob: _check_search,
    LoadJob: _check_load,
    ReleaseJob: _check_load,
    CreateJob: _check_create,
    DropJob: _check_drop,
    RenameJob: _check_rename,
}


def _check_name(field: str, name: str) -> None:
    if not _NAME.match(name):
        raise InvalidArgument(f"{field} is {name!r:.200}, allowed are names that match {NAME_PATTERN}", field=field)


def _check_optional_name(field: str, name: str | None) -> None:
    if name is not None:
        _check_name(field, name)


def _check_names(field: str, names: Sequence[str] | None, bounds: Bounds, also: Sequence[str] = ()) -> None:
    if names is None:
        return
    if not names:
        raise InvalidArgument(f"{field} is empty, leave it out or name at least one", field=field)
    _check_at_most(field, len(names), bounds.names, "names")
    for position, name in enumerate(names):
        if name not in also:
            _check_name(f"{field}[{position}]", name)


def _check_params(field: str, params: Mapping[str, int | float], bounds: Bounds) -> None:
    _check_at_most(field, len(params), bounds.params, "parameters")
    for key, value in params.items():
        _check_name(field, key)
        if abs(value) >= _INT64.stop or not isfinite(value):
            raise InvalidArgument(f"{field}.{key} is {value}, allowed are numbers below 2^63", field=f"{field}.{key}")


def _check_range(field: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise InvalidArgument(f"{field} is {value}, allowed are {allowed.start} to {allowed.stop - 1}", field=field)


def _check_at_most(field: str, count: int, bound: int, unit: str = "") -> None:
    if count > bound:
        has = f"has {count} {unit}" if unit else f"is {count}"
        raise LimitExceeded(f"{field} {has}, allowed are at most {bound}", field=field)


def _utf8_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
