"""Milvus's `param` of a search: what stands in it, flat or nested, to nearmq's own options."""

from collections.abc import Mapping
from typing import Any

from nearmq.collection import SearchOptions
from nearmq.errors import InvalidArgument

_OUTER = ("metric_type", "params", "offset", "round_decimal", "group_by_field", "group_size")
#: Those of `params` that are options of their own here.
_INNER = ("radius", "range_filter", "group_by_field", "group_size")


def options_of(param: Mapping[str, Any] | None) -> SearchOptions:
    """Return the options of a search's `param`.

    Milvus has `offset` beside `params`, and `radius` and `range_filter` among them; `refine_k` is nearmq's `refine`.

    Raises:
        InvalidArgument: a key beside `params` is unknown.
    """
    param = param or {}
    unknown = sorted(set(param) - set(_OUTER))
    if unknown:
        raise InvalidArgument(f"param has unknown key {unknown[0]!r}, it takes {', '.join(_OUTER)}", field="param")
    params = dict(param.get("params") or {})
    if "refine_k" in params:
        params["refine"] = params.pop("refine_k")
    options: dict[str, Any] = {name: params.pop(name) for name in _INNER if name in params}
    options |= {name: param[name] for name in _OUTER if name in param}
    options["params"] = params
    return options  # type: ignore[return-value]  # each key is one of SearchOptions
