"""Matrices of query vectors, and arrays of hits, on the wire: nested lists of numbers, or packed as base64.

A packed array is `{"data": <base64 of the little-endian values, row by row>, "shape": [rows, columns]}`; base64 is the
standard alphabet of RFC 4648 with padding and without line breaks.
"""

from collections.abc import Sequence
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


def pack(array: npt.NDArray[Any], dtype: npt.DTypeLike) -> dict[str, Any]:
    """Return the packed form of an array of any shape, cast to a little-endian dtype."""
    values = np.ascontiguousarray(array, dtype=dtype)
    return {"data": pybase64.b64encode_as_string(values.data if values.size else b""), "shape": list(array.shape)}


def unpack(packed: dict[str, Any], shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the array of a packed form, read-only and C-contiguous.

    Raises:
        ValueError: `data` is no base64, or holds another number of bytes than the shape takes.
    """
    little_endian = np.dtype(dtype)
    expected = prod(shape) * little_endian.itemsize
    characters = 4 * -(-expected // 3)
    data: str = packed["data"]
    if len(data) != characters:
        raise ValueError(f"data has {len(data)} characters, shape {list(shape)} takes {characters} ({expected} bytes)")
    raw = pybase64.b64decode(data, validate=True)
    if len(raw) != expected:
        raise ValueError(f"data has {len(raw)} bytes, shape {list(shape)} takes {expected}")
    values = np.frombuffer(raw, little_endian).reshape(shape)
    return values.astype(little_endian.newbyteorder("="), copy=False)


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
    if isinstance(value, dict):
        matrix = _read_packed(value, bounds)
    elif isinstance(value, list):
        matrix = _read_nested(value, bounds)
    elif isinstance(value, np.ndarray):
        matrix = _read_array(value, bounds)
    else:
        raise _invalid(f"vectors is a {type(value).__name__}, expected lists of numbers or {{data, shape}}")
    finite = np.isfinite(matrix)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise _invalid(
            f"vectors[{row}][{column}] is {matrix[row, column]}, allowed are finite float32 numbers", f"vectors[{row}]"
        )
    return matrix


def _read_packed(packed: dict[str, Any], bounds: Bounds) -> FloatMatrix:
    if set(packed) != {"data", "shape"}:
        raise _invalid(f"packed vectors have the keys {sorted(packed)!r:.200}, expected 'data' and 'shape'")
    data, shape = packed["data"], packed["shape"]
    if type(data) is not str:
        raise _invalid(f"vectors.data is a {type(data).__name__}, expected a base64 string", "vectors.data")
    if type(shape) is not list or len(shape) != _AXES or any(type(length) is not int for length in shape):
        raise _invalid(f"vectors.shape is {shape!r:.80}, expected [queries, dim]", "vectors.shape")
    queries, dim = shape
    _check_shape(queries, dim, bounds, "vectors.shape")
    try:
        return unpack(packed, (queries, dim), _FLOAT32)
    except ValueError as error:
        raise _invalid(f"vectors.data cannot be unpacked: {error}", "vectors.data") from error


def _read_nested(rows: list[Any], bounds: Bounds) -> FloatMatrix:
    if not rows:
        return np.empty((0, 0), np.float32)
    dim = len(rows[0]) if type(rows[0]) is list else 0
    for number, row in enumerate(rows[: bounds.queries]):
        if type(row) is not list:
            raise _invalid(f"vectors[{number}] is a {type(row).__name__}, expected a list of numbers", number)
        if len(row) != dim:
            raise _invalid(f"vectors[{number}] has {len(row)} dimensions, vectors[0] has {dim}", number)
        if not set(map(type, row)) <= _NUMBERS:
            wrong = next(value for value in row if type(value) not in _NUMBERS)
            raise _invalid(f"vectors[{number}] holds {wrong!r:.80}, allowed are numbers", number)
    _check_shape(len(rows), dim, bounds, "vectors")
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused by name
        return np.array(rows, dtype=np.float32)


def _read_array(array: npt.NDArray[Any], bounds: Bounds) -> FloatMatrix:
    if array.ndim != _AXES and array.size:
        raise _invalid(f"vectors has shape {array.shape}, expected (queries, dim)")
    if array.ndim == _AXES:
        _check_shape(array.shape[0], array.shape[1], bounds, "vectors")
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(array, dtype=np.float32)
    return matrix if array.ndim == _AXES else matrix.reshape(0, 0)


def _check_shape(queries: int, dim: int, bounds: Bounds, field: str) -> None:
    if queries < 0 or dim < (queries > 0):
        raise InvalidArgument(
            f"vectors have shape [{queries}, {dim}], allowed are 0 to {bounds.queries} queries of 1 to {bounds.dim} "
            "dimensions",
            field=field,
        )
    if queries > bounds.queries:
        raise LimitExceeded(f"vectors has {queries} queries, allowed are at most {bounds.queries}", field=field)
    if dim > bounds.dim:
        raise LimitExceeded(f"vectors have {dim} dimensions, allowed are at most {bounds.dim}", field=field)


def _invalid(message: str, where: str | int = "vectors") -> InvalidArgument:
    return InvalidArgument(message, field=where if isinstance(where, str) else f"vectors[{where}]")
