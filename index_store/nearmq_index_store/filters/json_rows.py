"""JSON columns, a row at a time in Python: some microseconds a row, where the other types take nanoseconds.

A column holds JSON text; an array of JSON counts as one JSON array. Whatever is not there, is JSON's null, or is of
another type than the context asks for, is None here and null in the expression.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.filters.numbers import compare_values
from nearmq_index_store.filters.tree import CompareOp, Path


def decode(name: str, array: pa.Array) -> list[Any]:
    """Return what each row's text means.

    Raises:
        IndexCorrupt: a text is no JSON; a write would have been refused.
    """
    decode_text = msgspec.json.Decoder().decode
    try:
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            return [row and [None if text is None else decode_text(text) for text in row] for row in array.to_pylist()]
        return [None if text is None else decode_text(text) for text in array.to_numpy(zero_copy_only=False)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise IndexCorrupt(f"json field {name!r}: {error}") from error


def follow(values: Sequence[Any], path: Path) -> list[Any]:
    """Return what each value holds under the keys and indices of a path."""
    return [_at(value, path) for value in values]


def numbers(values: Iterable[Any]) -> pa.Array:
    """Return the numbers as float64, rounded to the nearest."""
    return pa.array([_as_float(value) for value in values], pa.float64())


def strings(values: Iterable[Any]) -> pa.Array:
    """Return the strings."""
    return pa.array([value if isinstance(value, str) else None for value in values], pa.large_string())


def compare(op: CompareOp, left: Iterable[Any], right: Iterable[Any]) -> pa.Array:
    """Compare pairs: numbers by their exact values, strings by code point, bools for equality, others not at all."""
    return pa.array([_compare_pair(op, a, b) for a, b in zip(left, right, strict=True)], pa.bool_())


def is_in(values: Iterable[Any], wanted: tuple[Any, ...]) -> pa.Array:
    """Say which values are among the wanted ones; null where there is none."""
    known = {_key(item) for item in wanted}
    return pa.array([None if value is None else _key(value) in known for value in values], pa.bool_())


def lengths(values: Iterable[Any]) -> pa.Array:
    """Return how many elements each array has."""
    return pa.array([len(value) if isinstance(value, list) else None for value in values], pa.int64())


def contains(values: Iterable[Any], wanted: tuple[Any, ...], *, need_all: bool) -> pa.Array:
    """Say of each array whether it holds all of the wanted values, or one at least."""
    known = {_key(item) for item in wanted}
    found: list[bool | None] = []
    for value in values:
        if not isinstance(value, list):
            found.append(None)
            continue
        held = {_key(item) for item in value}
        found.append(known <= held if need_all else not known.isdisjoint(held))
    return pa.array(found, pa.bool_())


def _at(value: Any, path: Path) -> Any:
    for key in path:
        if isinstance(key, str) and isinstance(value, dict):
            value = value.get(key)
        elif isinstance(key, int) and isinstance(value, list) and key < len(value):
            value = value[key]
        else:
            return None
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _as_float(value: Any) -> float | None:
    if not _is_number(value):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _compare_pair(op: CompareOp, left: Any, right: Any) -> bool | None:
    if (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
        return compare_values(op, left, right)
    if isinstance(left, bool) and isinstance(right, bool) and op in ("==", "!="):
        return compare_values(op, left, right)
    return None


def _key(value: Any) -> Any:
    """Return something equal for equal values only: to Python 1 and true are the same, to JSON they are not."""
    if isinstance(value, list | tuple):
        return tuple(_key(item) for item in value)
    if isinstance(value, dict) or value is None:
        return object()  # no literal is one
    return isinstance(value, bool), value
