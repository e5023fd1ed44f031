"""Scalar columns: what Arrow type each scalar field has in `rows.arrow`, what may become one, and values out again.

JSON is kept as compact text that was parsed once. Everything that is kept can be written as JSON again: numbers are
finite, integers of JSON fit into 64 bits, and JSON is nested at most MAX_JSON_DEPTH levels deep.
"""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.schema import ScalarField

MAX_JSON_DEPTH = 64

_TYPES = {
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "string": pa.string(),
    "json": pa.string(),
    "array<bool>": pa.list_(pa.bool_()),
    "array<int64>": pa.list_(pa.int64()),
    "array<float64>": pa.list_(pa.float64()),
    "array<string>": pa.list_(pa.string()),
}
#: The types whose integers may be beyond what a float64 holds, and those types with texts in their place.
_AS_TEXT = {"int64": pa.string(), "array<int64>": pa.list_(pa.string())}
_JSON_INTEGERS = range(-(2**63), 2**64)
#: How many texts are Python's at a time.
_JSON_BLOCK = 1_024
#: What a text must hold to have an integer beyond 64 bits.
_MANY_DIGITS = re.compile(r"\d{19}")


class BadValue(Exception):
    """A value that a scalar field cannot hold; its catcher knows where the rows come from.

    Attributes:
        row: counted from the first of the column.
        got: the value as text, cut.
    """

    def __init__(self, row: int, expected: str, got: str) -> None:
        super().__init__(f"row {row}: expected {expected}, got {got}")
        self.row = row
        self.expected = expected
        self.got = got


@dataclass(frozen=True, slots=True)
class ScalarColumn:
    """The values of a scalar field by row number, in the Arrow type of `arrow_type`."""

    field: ScalarField
    values: pa.Array

    def at(self, rows: RowNumbers, *, integers_as_text: bool = False) -> list[Any]:
        """The values of some rows as Python has them, in the order of the row numbers; JSON decoded, null as None.

        Args:
            integers_as_text: write those of int64 and array<int64> as strings; integers within JSON stay what they are.
        """
        found = self.values.take(pa.array(rows))
        if integers_as_text and self.field.type in _AS_TEXT:
            found = found.cast(_AS_TEXT[self.field.type])
        if self.field.type != "json":
            return list(found.to_pylist())
        return [None if text is None else msgspec.json.decode(text) for text in found.to_pylist()]

    def bytes_at(self, rows: RowNumbers) -> int:
        """What the values of some rows take in Arrow, about; known before any of them is read."""
        return _bytes_at(self.values, rows)


def arrow_type(field: ScalarField) -> pa.DataType:
    """The type of the field's column in `rows.arrow`."""
    return _TYPES[field.type]


def can_hold(field: ScalarField, found: pa.DataType) -> bool:
    """Whether values of a type can become the field's without a loss, as far as the type tells."""
    if pa.types.is_null(found):
        return field.nullable
    wanted = arrow_type(field)
    if not pa.types.is_list(wanted):
        return _can_hold(wanted, found)
    is_list = pa.types.is_list(found) or pa.types.is_large_list(found) or pa.types.is_fixed_size_list(found)
    return is_list and _can_hold(wanted.value_type, found.value_type)


def to_scalars(field: ScalarField, column: pa.Array) -> pa.Array:
    """Return a column of a type that the field can hold in the field's own; a column that has it is not copied.

    Raises:
        BadValue: null in a field that is not nullable, or in an array; a number that is not finite or would lose
            digits; text that is not UTF-8 or not JSON.
    """
    if column.null_count and not field.nullable:
        raise BadValue(pc.index(pc.is_null(column), value=True).as_py(), field.type, "null")
    wanted = arrow_type(field)
    try:
        column.validate(full=True)
        cast = column.cast(wanted)
    except pa.ArrowInvalid:
        raise _first_misfit(field, column, wanted) from None
    if pa.types.is_list(wanted):
        _check_items(field, cast)
    elif pa.types.is_floating(wanted):
        _check_finite(field, cast)
    elif field.type == "json":
        return _to_json(cast)
    return cast


def no_scalars(field: ScalarField, rows: int) -> pa.Array:
    """Return a column of nulls."""
    return pa.nulls(rows, arrow_type(field))


def _bytes_at(values: pa.Array, rows: RowNumbers) -> int:
    if not (pa.types.is_list(values.type) or pa.types.is_string(values.type)):
        return len(rows) * (1 if pa.types.is_boolean(values.type) else values.type.bit_width // 8)
    ends = _offsets(values)
    if pa.types.is_list(values.type) and pa.types.is_string(values.type.value_type):
        ends = 4 * ends + _offsets(values.values)[ends]
    elif pa.types.is_list(values.type):
        ends = ends * (1 if pa.types.is_boolean(values.type.value_type) else values.type.value_type.bit_width // 8)
    return 4 * len(rows) + int((ends[rows + 1] - ends[rows]).sum())


def _offsets(values: pa.Array) -> npt.NDArray[np.int64]:
    """Where each text or list ends in what they are made of; shape (values + 1,), from where the first starts."""
    buffer = values.buffers()[1]
    if buffer is None:  # of no values
        return np.zeros(1, dtype=np.int64)
    offsets = np.frombuffer(buffer, dtype=np.int32, count=values.offset + len(values) + 1)
    return offsets[values.offset :].astype(np.int64)


def _can_hold(wanted: pa.DataType, found: pa.DataType) -> bool:
    if pa.types.is_boolean(wanted):
        return bool(pa.types.is_boolean(found))
    if pa.types.is_int64(wanted):
        return bool(pa.types.is_integer(found))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(found) or pa.types.is_integer(found))
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _first_misfit(field: ScalarField, column: pa.Array, wanted: pa.DataType) -> BadValue:
    """Find the row for which a column could not be validated or cast."""
    for row in range(len(column)):
        one = column.take(pa.array([row]))
        try:
            one.validate(full=True)
            one.cast(wanted)
        except pa.ArrowInvalid:
            return BadValue(row, field.type, _shown(one))
    raise AssertionError(f"a column of {column.type} is no {wanted} as a whole, but each row is")


def _check_items(field: ScalarField, column: pa.Array) -> None:
    items = column.flatten()
    if items.null_count:
        row, got = next((row, got) for row, got in enumerate(column.to_pylist()) if got is not None and None in got)
        raise BadValue(row, f"{field.type} without nulls", f"{got!r:.80}")
    if pa.types.is_floating(items.type) and not _is_finite(items):
        lists = enumerate(column.to_pylist())
        row, got = next((row, got) for row, got in lists if got is not None and not all(map(isfinite, got)))
        raise BadValue(row, f"finite {field.type}", f"{got!r:.80}")


def _check_finite(field: ScalarField, column: pa.Array) -> None:
    if not _is_finite(column):
        row = pc.index(pc.is_finite(column), value=False).as_py()
        raise BadValue(row, f"finite {field.type}", str(column[row]))


def _is_finite(numbers: pa.Array) -> bool:
    return pc.all(pc.is_finite(numbers), min_count=0).as_py() is True


def _to_json(column: pa.Array) -> pa.Array:
    """Check and compact texts, few at a time, since as Python's they take more memory; compact ones are not copied."""
    given = [column.slice(start, _JSON_BLOCK) for start in range(0, len(column), _JSON_BLOCK)]
    blocks = []
    for number, block in enumerate(given):
        texts = block.to_pylist()
        compact = [_compact(number * _JSON_BLOCK + place, text) for place, text in enumerate(texts)]
        blocks.append(block if compact == texts else pa.array(compact, column.type))
    is_compact = all(block is same for block, same in zip(blocks, given, strict=True))
    return column if is_compact else pa.concat_arrays(blocks)


def _compact(row: int, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        value = msgspec.json.decode(text)
        if text.count("[") + text.count("{") > MAX_JSON_DEPTH or _MANY_DIGITS.search(text):
            _check_tree(value, MAX_JSON_DEPTH)
        return msgspec.json.format(text, indent=-1)
    except RecursionError:
        raise BadValue(row, f"JSON at most {MAX_JSON_DEPTH} levels deep", f"{text!r:.80}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadValue(row, "JSON", f"{text!r:.80} ({error})") from None


def _check_tree(value: Any, levels: int) -> None:
    if isinstance(value, dict | list):
        if levels == 0:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _check_tree(item, levels - 1)
    elif isinstance(value, int) and value not in _JSON_INTEGERS:
        raise ValueError(f"{value!r:.30} is beyond 64 bits")


def _shown(one: pa.Array) -> str:
    """The only value of an array as text for a message."""
    try:
        return f"{one[0].as_py()!r:.80}"
    except UnicodeDecodeError as error:
        return f"{error.object!r:.80}"
