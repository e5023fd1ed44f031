"""Values as callers have them, of numpy, pandas, Arrow or plain Python, to those that jobs hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nearmq.errors import InvalidArgument
from nearmq.jobs import FloatMatrix
from nearmq.strict_struct import nearest
from nearmq.vectors import as_float32

#: Shape (rows, dim), or (dim,) for one row.
Vectors = npt.ArrayLike | Sequence[Sequence[float]]
#: Primary keys, all integers or all strings.
Ids = Sequence[int] | Sequence[str] | npt.NDArray[Any]
#: From field name to the values of the rows: JSON's, in a list, or an array or column of any library with `tolist`.
Columns = Mapping[str, Any]


def check_keywords(options: Mapping[str, Any], known: type) -> None:
    """Refuse keyword arguments that a call does not have, as Python does by itself where none are passed on.

    Args:
        known: the TypedDict of those that it has.

    Raises:
        TypeError: names the nearest one that there is.
    """
    if not options.keys() <= known.__annotations__.keys():
        wrong = next(name for name in options if name not in known.__annotations__)
        raise TypeError(f"unexpected keyword argument {wrong!r}, {nearest(wrong, known.__annotations__)}")


def as_matrix(argument: str, vectors: Vectors) -> FloatMatrix:
    """Return vectors as float32 of shape (rows, dim), C-contiguous.

    Raises:
        InvalidArgument: they are no matrix of numbers.
    """
    try:
        matrix = as_float32(vectors)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{argument} are no matrix of numbers: {error}", field=argument) from None
    if matrix.ndim == 1 and matrix.size:
        matrix = matrix[np.newaxis]
    if matrix.ndim != 2 and matrix.size:  # noqa: PLR2004
        raise InvalidArgument(f"{argument} have {matrix.ndim} axes, expected (rows, dim)", field=argument)
    return matrix


def as_matrices(vectors: Vectors | Mapping[str, Vectors]) -> FloatMatrix | dict[str, FloatMatrix]:
    """Return the vectors of rows: a matrix, or one for each vector field that is named."""
    if isinstance(vectors, Mapping):
        return {name: as_matrix(f"vectors.{name}", matrix) for name, matrix in vectors.items()}
    return as_matrix("vectors", vectors)


def as_ids(ids: Ids) -> list[int | str]:
    """Return primary keys as a list.

    Raises:
        InvalidArgument: a single key stands there instead of a list.
    """
    return _as_list("ids", ids, "ids")


def as_columns(fields: Columns | None) -> dict[str, list[Any]]:
    """Return scalar columns as lists."""
    return {name: _as_list(f"fields.{name}", column, "values") for name, column in (fields or {}).items()}


def as_names(argument: str, names: Sequence[str] | None) -> list[str] | None:
    """Return names as a list; a single string, which is a sequence too, is refused."""
    return None if names is None else _as_list(argument, names, "names")


def _as_list(argument: str, values: Any, what: str) -> list[Any]:
    if isinstance(values, list):
        return values
    for method in ("tolist", "to_pylist", "to_list"):  # numpy and pandas, Arrow, Polars
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidArgument(f"{argument} is {values!r:.80}, expected a list of {what}", field=argument)
    return list(values)
