"""The checks of single values that many jobs have: names, ids, expressions, versions, parameters.

A value out of its range is INVALID_ARGUMENT; too much of something is LIMIT_EXCEEDED.
"""

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from nearmq.bounds import Bounds
from nearmq.errors import InvalidArgument, LimitExceeded
from nearmq.jobs import CountJob, DeleteJob, QueryJob, SearchJob

NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")

#: The output field that stands for all scalar fields.
ALL_FIELDS = "*"

#: Job ids are chosen by publishers, UUIDv7 as a rule.
JOB_ID_CHARACTERS = 128
INT64 = range(-(2**63), 2**63)
_UTF8_BYTES_A_CHARACTER = 4


def check_name(field: str, name: str) -> None:
    """Refuse a name of a collection, partition or field that does not match NAME_PATTERN."""
    if not _NAME.match(name):
        raise InvalidArgument(f"{field} is {name!r:.200}, allowed are names that match {NAME_PATTERN}", field=field)


def check_optional_name(field: str, name: str | None) -> None:
    """Check a name that may be left out."""
    if name is not None:
        check_name(field, name)


def check_names(field: str, names: Sequence[str] | None, bounds: Bounds, also: Sequence[str] = ()) -> None:
    """Check a list of names that may be left out, but not be empty; those in `also` need not be names."""
    if names is None:
        return
    if not names:
        raise InvalidArgument(f"{field} is empty, leave it out or name at least one", field=field)
    check_at_most(field, len(names), bounds.names, "names")
    for position, name in enumerate(names):
        if name not in also:
            check_name(f"{field}[{position}]", name)


def check_job_id(field: str, job_id: str) -> None:
    """Refuse a job id that is empty or too long: ids are kept in manifests and replies."""
    if not 1 <= len(job_id) <= JOB_ID_CHARACTERS:
        raise InvalidArgument(
            f"{field} has {len(job_id)} characters, allowed are 1 to {JOB_ID_CHARACTERS}", field=field
        )


def check_ids(ids: Sequence[int | str], bounds: Bounds, *, most: int) -> None:
    """Check the ids of a job: not too many, of one type, int64 or not too long."""
    check_at_most("ids", len(ids), most, "ids")
    if len(set(map(type, ids))) > 1:
        raise InvalidArgument("ids holds integers and strings, allowed is one of the two", field="ids")
    if not _are_small(ids, bounds):
        for position, id_ in enumerate(ids):
            check_id(f"ids[{position}]", id_, bounds)


def check_id(field: str, id_: int | str, bounds: Bounds) -> None:
    """Refuse an integer beyond int64, and a string of too many bytes."""
    if isinstance(id_, str):
        check_at_most(field, _utf8_bytes(id_), bounds.id_bytes, "bytes")
    elif id_ not in INT64:
        raise InvalidArgument(f"{field} is {id_}, allowed are -2^63 to 2^63 - 1", field=field)


def check_expr(job: SearchJob | CountJob | QueryJob | DeleteJob, bounds: Bounds) -> None:
    """Check the length of an expression and the number of its parameters; what they say is for the index store."""
    if job.expr is not None:
        check_at_most("expr", _utf8_bytes(job.expr), bounds.expr_bytes, "bytes")
    check_at_most("expr_params", len(job.expr_params), bounds.params, "values")


def check_version(field: str, version: int | None) -> None:
    """Refuse a version that none can have."""
    if version is not None:
        check_range(field, version, range(2**63))


def check_params(field: str, params: Mapping[str, int | float], bounds: Bounds) -> None:
    """Check the parameters of a search or an index: names, and numbers below 2^63."""
    check_at_most(field, len(params), bounds.params, "parameters")
    for key, value in params.items():
        check_name(field, key)
        if abs(value) >= INT64.stop or not isfinite(value):
            raise InvalidArgument(f"{field}.{key} is {value}, allowed are numbers below 2^63", field=f"{field}.{key}")


def check_range(field: str, value: int, allowed: range) -> None:
    """Refuse an integer that is not in a range."""
    if value not in allowed:
        raise InvalidArgument(f"{field} is {value}, allowed are {allowed.start} to {allowed.stop - 1}", field=field)


def check_at_most(field: str, count: int, bound: int, unit: str = "") -> None:
    """Raise LimitExceeded for more than a bound; `unit` says of what, unless it is the value itself."""
    if count > bound:
        has = f"has {count} {unit}" if unit else f"is {count}"
        raise LimitExceeded(f"{field} {has}, allowed are at most {bound}", field=field)


def _are_small(ids: Sequence[Any], bounds: Bounds) -> bool:
    """Say, quickly, whether no id can be out of its range: they are thousands, and hardly ever are."""
    if not ids:
        return True
    if isinstance(ids[0], str):
        return max(map(len, ids)) * _UTF8_BYTES_A_CHARACTER <= bounds.id_bytes
    return bool(INT64.start <= min(ids) and max(ids) < INT64.stop)


def _utf8_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
