"""Matrices of vectors, and arrays of hits, on the wire: nested lists of numbers, or packed as base64.

A packed array is `{"data": <base64 of the little-endian values, row by row>, "shape": [rows, columns]}`; base64 is the
standard alphabet of RFC 4648 with padding and without line breaks.
"""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pybase64

from nearmq.bounds import Bounds
from nearmq.errors import InvalidArgument, LimitExceeded
from nearmq.jobs import FloatMatrix

_FLOAT32 = np.dtype("<f4")
_NUMBERS = {int, float}
_AXES = 2

#: Up to so many characters the standard library decodes: in up to four times as long, but without giving up the
#: interpreter, which another thread then keeps for far longer.
_DECODED_AT_ONCE = 2 << 10


def pack(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> dict[str, Any]:
    """Return the packed form of an array of any shape, cast to a little-endian dtype."""
    return {"data": encoded(array, dtype).decode(), "shape": list(array.shape)}


def encoded(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> bytes:
    """Return the base64 of an array of any shape, cast to a little-endian dtype."""
    values = np.ascontiguousarray(array, dtype=dtype)
    return pybase64.b64encode(values.data if values.size else b"")


def unpack(packed: dict[str, Any], shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the array of a packed form, read-only and C-contiguous.

    Raises:
        ValueError: `data` is no base64, or holds another number of bytes than the shape takes.
    """
    little_endian = np.dtype(dtype)
    expected = prod(shape) * little_endian.itemsize
    characters = 4 * -(-expected // 3)
    data: str | bytes = packed["data"]
    if len(data) != characters:
        raise ValueError(f"data has {len(data)} characters, shape {list(shape)} takes {characters} ({expected} bytes)")
    if characters <= _DECODED_AT_ONCE:
        raw = binascii.a2b_base64(data, strict_mode=True)
    else:
        raw = pybase64.b64decode(data, validate=True)
    return from_bytes(raw, shape, little_endian)


def from_bytes(raw: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the array of values of a little-endian dtype, read-only and C-contiguous.

    Raises:
        ValueError: they have another number of bytes than the shape takes.
    """
    expected = prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(f"data has {len(raw)} bytes, shape {list(shape)} takes {expected}")
    return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def as_float32(values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return values as float32, C-contiguous; what float32 cannot hold becomes infinite, to be refused by name."""
    if isinstance(values, np.ndarray) and values.dtype == np.float32:  # the rest takes longer than all of a small job
        return np.ascontiguousarray(values)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def read_vectors(value: Any, bounds: Bounds) -> FloatMatrix:
    """Return the query vectors of a job's body, or of a client's job, as float32 of shape (queries, dim).

    Args:
        value: nested lists or a packed object as parsed from JSON, or an array.
        bounds: checked before anything of the matrix's size is allocated.

    Returns:
        C-contiguous and finite; shape (0, 0) when there is no query at all.

    Raises:
        InvalidArgument: wrong shape, type, base64, or a value that is not finite as float32; names the row.
        LimitExceeded: too many queries or dimensions.
    """
    return _read(value, _queries(bounds))


def read_data(data: bytes, shape: Sequence[int]) -> FloatMatrix | None:
    """Return query vectors of a shape that was checked; None where the data are not what `read_vectors` takes."""
    try:
        matrix = unpack({"data": data}, shape, _FLOAT32)
    except ValueError:
        return None
    return matrix if _are_finite(matrix) else None


def read_row_vectors(value: Any, bounds: Bounds) -> FloatMatrix | dict[str, FloatMatrix]:
    """Return the vectors of a row write: one matrix, or one for each vector field that is named.

    Args:
        value: as for `read_vectors`, or an object from field names to such values. An object whose `data` is a string
            is a packed matrix, any other names fields.
        bounds: as for `read_vectors`, with rows instead of queries.
    """

    def form(field: str) -> _Form:
        return _Form(field=field, rows="rows", most_rows=bounds.rows, most_dim=bounds.dim)

    if not isinstance(value, dict) or isinstance(value.get("data"), str):
        return _read(value, form("vectors"))
    if not value:
        raise InvalidArgument("vectors names no field, expected a matrix, or one for each field", field="vectors")
    return {name: _read(matrix, form(f"vectors.{name:.200}")) for name, matrix in value.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """What a matrix may be, and how errors call it and its rows."""

    field: str
    rows: str
    most_rows: int
    most_dim: int


@lru_cache(16)
def _queries(bounds: Bounds) -> _Form:
    return _Form(field="vectors", rows="queries", most_rows=bounds.queries, most_dim=bounds.dim)


def _read(value: Any, form: _Form) -> FloatMatrix:
    if isinstance(value, dict):
        matrix = _read_packed(value, form)
    elif isinstance(value, list):
        matrix = _read_nested(value, form)
    elif isinstance(value, np.ndarray):
        matrix = _read_array(value, form)
    else:
        kind = type(value).__name__
        raise InvalidArgument(
            f"{form.field} is a {kind}, expected lists of numbers or {{data, shape}}", field=form.field
        )
    if not _are_finite(matrix):
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise _invalid(form, row, f"[{column}] is {matrix[row, column]}, allowed are finite float32 numbers")
    return matrix


def _are_finite(matrix: FloatMatrix) -> bool:
    # `all` takes three times as long for one query.
    return int(np.count_nonzero(np.isfinite(matrix))) == matrix.size


def _read_packed(packed: dict[str, Any], form: _Form) -> FloatMatrix:
    if set(packed) != {"data", "shape"}:
        raise InvalidArgument(
            f"packed {form.field} have the keys {sorted(packed)!r:.200}, expected 'data' and 'shape'", field=form.field
        )
    data, shape = packed["data"], packed["shape"]
    data_field, shape_field = f"{form.field}.data", f"{form.field}.shape"
    if type(data) is not str:
        raise InvalidArgument(f"{data_field} is a {type(data).__name__}, expected a base64 string", field=data_field)
    if type(shape) is not list or [type(length) for length in shape] != [int, int]:
        raise InvalidArgument(f"{shape_field} is {shape!r:.80}, expected [{form.rows}, dim]", field=shape_field)
    rows, dim = shape
    _check_shape(rows, dim, form, shape_field)
    try:
        return unpack(packed, (rows, dim), _FLOAT32)
    except ValueError as error:
        raise InvalidArgument(f"{data_field} cannot be unpacked: {error}", field=data_field) from error


def _read_nested(rows: list[Any], form: _Form) -> FloatMatrix:
    if not rows:
        return np.empty((0, 0), np.float32)
    dim = len(rows[0]) if type(rows[0]) is list else 0
    for number, row in enumerate(rows[: form.most_rows]):
        if type(row) is not list:
            raise _invalid(form, number, f" is a {type(row).__name__}, expected a list of numbers")
        if len(row) != dim:
            raise _invalid(form, number, f" has {len(row)} dimensions, {form.field}[0] has {dim}")
        if not set(map(type, row)) <= _NUMBERS:
            wrong = next(value for value in row if type(value) not in _NUMBERS)
            raise _invalid(form, number, f" holds {wrong!r:.80}, allowed are numbers")
    _check_shape(len(rows), dim, form, form.field)
    return as_float32(rows)


def _read_array(array: npt.NDArray[Any], form: _Form) -> FloatMatrix:
    if array.ndim != _AXES and array.size:
        raise InvalidArgument(f"{form.field} has shape {array.shape}, expected ({form.rows}, dim)", field=form.field)
    if array.ndim == _AXES:
        _check_shape(array.shape[0], array.shape[1], form, form.field)
    matrix = as_float32(array)
    return matrix if array.ndim == _AXES else matrix.reshape(0, 0)


def _check_shape(rows: int, dim: int, form: _Form, field: str) -> None:
    if rows < 0 or dim < (rows > 0):
        raise InvalidArgument(
            f"{form.field} have shape [{rows}, {dim}], allowed are 0 to {form.most_rows} {form.rows} of 1 to "
            f"{form.most_dim} dimensions",
            field=field,
        )
    if rows > form.most_rows:
        raise LimitExceeded(f"{form.field} has {rows} {form.rows}, allowed are at most {form.most_rows}", field=field)
    if dim > form.most_dim:
        raise LimitExceeded(f"{form.field} have {dim} dimensions, allowed are at most {form.most_dim}", field=field)


def _invalid(form: _Form, row: int, problem: str) -> InvalidArgument:
    return InvalidArgument(f"{form.field}[{row}]{problem}", field=f"{form.field}[{row}]")
