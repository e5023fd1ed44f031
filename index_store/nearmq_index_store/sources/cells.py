"""Columns of text as columns of the types that a schema wants."""

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.scalars import arrow_type
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.checks import bad_value

#: A vector as its text is read: doubles, so that a message can quote a number that float32 cannot hold.
VECTOR_TYPE = pa.list_(pa.float64())

#: Between the numbers of a list that is no JSON, such as numpy's `[0.5 1. ]`.
_BETWEEN_NUMBERS = re.compile(r"[,\s]+")

_INT64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_JSON_TYPES: dict[pa.DataType, Any] = {pa.bool_(): bool, pa.int64(): _INT64, pa.float64(): float, pa.string(): str}


def column_types(schema: Schema) -> dict[str, pa.DataType]:
    """The type of each column, by name, that text is parsed to; JSON stays text."""
    types = {ID_COLUMN: pa.int64() if schema.primary_key == "int64" else pa.string()}
    types |= {field.name: VECTOR_TYPE for field in schema.vector_fields}
    return types | {field.name: arrow_type(field) for field in schema.scalar_fields}


def parse_cells(path: Path, first_row: int, texts: pa.Array, name: str, wanted: pa.DataType) -> pa.Array:
    """Parse a column of text; null stays null.

    Raises:
        InvalidArgument: a cell is no such value; names the file, the row and the column.
    """
    if pa.types.is_string(wanted):
        return texts
    if pa.types.is_list(wanted):
        return _parse_lists(path, first_row, texts, name, wanted)
    trimmed = pc.utf8_trim_whitespace(texts)
    try:
        return trimmed.cast(wanted)
    except pa.ArrowInvalid:
        row = next(row for row in range(len(trimmed)) if not _can_cast(trimmed.slice(row, 1), wanted))
        raise bad_value(path, first_row + row, name, str(wanted), f"{texts[row].as_py()!r:.80}") from None


def json_type(wanted: pa.DataType) -> Any:
    """The type that msgspec decodes JSON to, for a column of this type."""
    return list[json_type(wanted.value_type)] if pa.types.is_list(wanted) else _JSON_TYPES[wanted]  # type: ignore[misc]


def to_lists(lists: Iterable[Sequence[Any] | None], wanted: pa.DataType) -> pa.Array:
    """Return lists of bool, int, float or str as an Arrow array; the lists may be made while they are taken."""
    # Doubles as such: as Python's they take four times the memory.
    values: array[float] | list[Any] = array("d") if pa.types.is_floating(wanted.value_type) else []
    offsets: list[int | None] = [0]
    for one in lists:
        if one is None:
            offsets[-1] = None
        else:
            values.extend(one)
        offsets.append(len(values))
    flat = np.frombuffer(values) if isinstance(values, array) else values
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(flat, wanted.value_type))


def _parse_lists(path: Path, first_row: int, texts: pa.Array, name: str, wanted: pa.DataType) -> pa.Array:
    decoder = msgspec.json.Decoder(json_type(wanted))
    is_floats = pa.types.is_floating(wanted.value_type)

    def parsed() -> Iterator[list[Any] | None]:
        for row, text in enumerate(texts.to_pylist()):
            try:
                yield text and decoder.decode(text)
            except msgspec.MsgspecError:
                numbers = _numbers_between_brackets(text) if is_floats else None
                if numbers is None:
                    expected = f"a list of {wanted.value_type}"
                    raise bad_value(path, first_row + row, name, expected, f"{text!r:.80}") from None
                yield numbers

    return to_lists(parsed(), wanted)


def _numbers_between_brackets(text: str) -> list[float] | None:
    """Read a list that is no JSON; None when there is anything but numbers in it."""
    inner = text.strip()
    if inner[:1] + inner[-1:] not in ("[]", "()"):
        return None
    try:
        return [float(number) for number in _BETWEEN_NUMBERS.split(inner[1:-1].strip())]
    except ValueError:
        return None


def _can_cast(text: pa.Array, wanted: pa.DataType) -> bool:
    try:
        text.cast(wanted)
    except pa.ArrowInvalid:
        return False
    return True
