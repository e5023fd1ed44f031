"""The arguments of a search, as a caller has them, to its job."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypedDict

from nearmq.arguments import Ids, Vectors, as_ids, as_matrix, as_names, check_keywords
from nearmq.errors import InvalidArgument
from nearmq.jobs import ExprValue, Metric, SearchJob


class SearchOptions(TypedDict, total=False):
    """What a search takes beside its vectors; docs/wire.md explains each field.

    `ids` stand in the place of vectors: the search is by the vectors of these stored rows.
    `param` is Milvus's nesting of `metric_type` and `params`; give either it or the two.
    """

    ids: Ids | None
    field: str | None
    limit: int
    offset: int
    param: Mapping[str, Any] | None
    params: Mapping[str, int | float] | None
    metric_type: Metric | None
    expr: str | None
    expr_params: Mapping[str, ExprValue] | None
    partition_names: Sequence[str] | None
    output_fields: Sequence[str] | None
    radius: float | None
    range_filter: float | None
    round_decimal: int
    group_by_field: str | None
    group_size: int
    min_version: int | None
    explain: bool
    timeout_s: float | None


#: How many neighbours a search finds when it does not say.
DEFAULT_LIMIT = 10


#: What a job has in another form than callers do; None stands for what is not given.
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "ids": lambda ids: None if ids is None else as_ids(ids),
    "expr_params": lambda values: dict(values or {}),
    "partition_names": partial(as_names, "partition_names"),
    "output_fields": partial(as_names, "output_fields"),
}
#: Those that decide each other, and one that is not the job's.
_NOT_AS_GIVEN = {"param", "params", "metric_type", "timeout_s"}


def search_job(collection: str, vectors: Vectors | None, options: SearchOptions) -> SearchJob:
    """Return the job of a search's arguments.

    Raises:
        InvalidArgument: the vectors are no matrix, or an argument is given in two ways.
        TypeError: there is no such argument.
    """
    check_keywords(options, SearchOptions)
    metric_type, params = _search_params(options)
    given = {
        name: _CONVERT[name](value) if name in _CONVERT else value
        for name, value in options.items()
        if name not in _NOT_AS_GIVEN
    }
    return SearchJob(
        collection=collection,
        vectors=None if vectors is None else as_matrix("vectors", vectors),
        metric_type=metric_type,
        params=params,
        encoding="base64",
        **({"limit": DEFAULT_LIMIT} | given),  # type: ignore[arg-type]  # checked by name, and when the job is encoded
    )


def _search_params(options: SearchOptions) -> tuple[Metric | None, dict[str, int | float]]:
    """Return metric_type and params, given flat or in Milvus's nesting."""
    param = options.get("param")
    if param is None:
        return options.get("metric_type"), dict(options.get("params") or {})
    if options.get("params") is not None or options.get("metric_type") is not None:
        raise InvalidArgument("give either param, or params and metric_type", field="param")
    unknown = sorted(set(param) - {"metric_type", "params"})
    if unknown:
        raise InvalidArgument(
            f"param has unknown key {unknown[0]!r}, it takes 'metric_type' and 'params'", field="param"
        )
    return param.get("metric_type"), dict(param.get("params") or {})
