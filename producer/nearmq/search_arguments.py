"""The arguments of a search, as a caller has them, to its job."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from nearmq.arguments import Ids, Vectors, as_ids, as_matrix, as_names
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


def search_job(collection: str, vectors: Vectors | None, options: SearchOptions) -> SearchJob:
    """Return the job of a search's arguments.

    Raises:
        InvalidArgument: the vectors are no matrix, or an argument is given in two ways.
    """
    metric_type, params = _search_params(options)
    ids = options.get("ids")
    return SearchJob(
        collection=collection,
        vectors=None if vectors is None else as_matrix("vectors", vectors),
        ids=None if ids is None else as_ids(ids),
        limit=options.get("limit", DEFAULT_LIMIT),
        offset=options.get("offset", 0),
        field=options.get("field"),
        metric_type=metric_type,
        params=params,
        expr=options.get("expr"),
        expr_params=dict(options.get("expr_params") or {}),
        partition_names=as_names("partition_names", options.get("partition_names")),
        output_fields=as_names("output_fields", options.get("output_fields")),
        radius=options.get("radius"),
        range_filter=options.get("range_filter"),
        round_decimal=options.get("round_decimal", -1),
        group_by_field=options.get("group_by_field"),
        group_size=options.get("group_size", 1),
        min_version=options.get("min_version"),
        explain=options.get("explain", False),
        encoding="base64",
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
