"""Checks of index parameters: which keys there are, what range each has, and what the caller probably meant."""

from collections.abc import Mapping
from difflib import get_close_matches

from nearmq_index_store.errors import InvalidArgument

#: The most hits that one query may ask for, offset included (Milvus 1.x's bound).
MAX_LIMIT = 1_048_576


def check_params(params: Mapping[str, int | float], ranges: Mapping[str, tuple[int, int]], kind: str) -> dict[str, int]:
    """Return the given parameters as whole numbers.

    Args:
        params: as given.
        ranges: lowest and highest allowed value of each parameter that the kind has.
        kind: for the message, such as `HNSW search`.

    Raises:
        InvalidArgument: a key that is not in `ranges`, a value that is no whole number or out of range.
    """
    checked = {}
    for key, value in params.items():
        if key not in ranges:
            raise InvalidArgument(f"{kind} has no parameter {key!r}{_hint(key, ranges)}", field=f"params.{key}")
        low, high = ranges[key]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidArgument(
                f"{key} must be a whole number from {low} to {high}, got {value!r}", field=f"params.{key}"
            )
        checked[key] = value
    return checked


def check_recall(params: Mapping[str, int | float]) -> float:
    """Return the recall that a search asks for in its params, which stands for all others.

    Raises:
        InvalidArgument: it is not above 0 and at most 1, or there is another parameter.
    """
    recall = params["recall"]
    if isinstance(recall, bool) or not 0 < recall <= 1:
        raise InvalidArgument(f"recall must be a number above 0 and at most 1, got {recall!r}", field="params.recall")
    others = sorted(set(params) - {"recall"})
    if others:
        raise InvalidArgument(
            f"recall stands for all other parameters, give either it or {', '.join(map(repr, others))}",
            field="params.recall",
        )
    return float(recall)


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below the number."""
    return 1 << (number - 1).bit_length()


def _hint(key: str, ranges: Mapping[str, tuple[int, int]]) -> str:
    if not ranges:
        return ", it takes none"
    by_lower = {name.lower(): name for name in ranges}
    close = get_close_matches(key.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f", did you mean {by_lower[close[0]]!r}"
    return f", only {', '.join(map(repr, ranges))}"
