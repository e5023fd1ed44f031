"""The checks that all files share: columns by name and type, and each row's values."""

import difflib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import DimensionMismatch, InvalidArgument
from nearmq_index_store.scalars import BadValue, can_hold, to_scalars
from nearmq_index_store.schema import ID_COLUMN, PrimaryKey, ScalarField, Schema, VectorField

#: Values that become float32 as they are, but for a rounding: halves, floats, doubles and small integers.
_VALUE_KINDS = {"f2", "f4", "f8", "i1", "i2", "u1", "u2"}


def map_columns(path: Path, found: list[str], schema: Schema) -> dict[str, str]:
    """Return the file's column for the primary key and for each field; a nullable field may have none.

    The only field of a schema may have any name in the file, as long as it is the only column beside `id`.

    Raises:
        InvalidArgument: a column is missing, unknown, or there twice; all are named.
    """
    nullable = {field.name for field in schema.scalar_fields if field.nullable}
    wanted = [ID_COLUMN, *schema.field_names()]
    others = [name for name in found if name != ID_COLUMN]
    if is_only_field(found, schema):
        return dict(zip(wanted, [ID_COLUMN, *others], strict=True))
    wrong = [f"column {name!r} is missing" for name in wanted if name not in found and name not in nullable]
    wrong += [f"column {name!r} is there more than once" for name in sorted(set(found)) if found.count(name) > 1]
    wrong += [f"column {name!r} is unknown{hint(name, wanted)}" for name in found if name not in wanted]
    if wrong:
        raise InvalidArgument(f"{path}: {'; '.join(wrong)}; expected {', '.join(map(repr, wanted))}", field="columns")
    return {name: name for name in wanted if name in found}


def is_only_field(found: list[str], schema: Schema) -> bool:
    """Whether the one column beside `id` is the schema's only field, whatever its name."""
    others = [name for name in found if name != ID_COLUMN]
    return len(schema.field_names()) == len(others) == len(found) - 1 == 1


def check_id_type(path: Path, column: str, found: pa.DataType, primary_key: PrimaryKey) -> None:
    """Raise InvalidArgument unless the column's values can be primary keys of the collection."""
    is_good = (
        pa.types.is_integer(found)
        if primary_key == "int64"
        else pa.types.is_string(found) or pa.types.is_large_string(found)
    )
    if not is_good:
        raise InvalidArgument(f"{path}: column {column!r}: expected {primary_key}, got {found}", field=ID_COLUMN)


def to_ids(path: Path, first_row: int, column: pa.Array, primary_key: PrimaryKey) -> pa.Array:
    """Return primary keys as int64 or string."""
    if column.null_count:
        row = first_row + pc.index(pc.is_null(column), value=True).as_py()
        raise bad_value(path, row, ID_COLUMN, primary_key, "null")
    try:
        return column.cast(pa.int64() if primary_key == "int64" else pa.string())
    except pa.ArrowInvalid:
        values = column.to_numpy(zero_copy_only=False)
        place = int(np.argmax(values > np.iinfo(np.int64).max))
        raise bad_value(path, first_row + place, ID_COLUMN, "int64", str(values[place])) from None


def check_value_type(path: Path, field: VectorField, found: np.dtype[np.generic] | pa.DataType) -> None:
    """Raise InvalidArgument unless the values of a vector can become float32."""
    dtype = found if isinstance(found, np.dtype) else _to_dtype(found)
    if dtype is None or f"{dtype.kind}{dtype.itemsize}" not in _VALUE_KINDS:
        raise InvalidArgument(
            f"{path}: field {field.name!r}: expected floats, or integers of 8 or 16 bits, got {found}",
            field=field.name,
        )


def to_matrix(path: Path, first_row: int, values: npt.NDArray[np.generic], field: VectorField) -> FloatMatrix:
    """Return the values of shape (rows, dim) as finite float32, C-contiguous."""
    with np.errstate(over="ignore"):  # what overflows is found below
        matrix = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        place = int(np.argmin(np.isfinite(matrix[row])))
        got = f"{values[row, place]} at position {place}"
        raise bad_value(path, first_row + row, field.name, "finite float32", got)
    return matrix


def check_scalar_type(path: Path, field: ScalarField, found: pa.DataType) -> None:
    """Raise InvalidArgument unless the column's values can become the field's, as far as the type tells."""
    if not can_hold(field, found):
        raise InvalidArgument(f"{path}: field {field.name!r}: expected {field.type}, got {found}", field=field.name)


def to_column(path: Path, first_row: int, column: pa.Array, field: ScalarField) -> pa.Array:
    """Return the values of a scalar field in its own type."""
    try:
        return to_scalars(field, column)
    except BadValue as bad:
        raise bad_value(path, first_row + bad.row, field.name, bad.expected, bad.got) from None


def bad_value(path: Path, row: int, field: str, expected: str, got: str) -> InvalidArgument:
    """The error of one value; `got` is it as text."""
    return InvalidArgument(f"{path}: row {row}: field {field!r}: expected {expected}, got {got}", field=field)


def wrong_dim(path: Path, row: int | None, field: VectorField, got: int) -> DimensionMismatch:
    """The error of a vector, or of a whole file, that has another dim than its field."""
    where = f"{path}: " if row is None else f"{path}: row {row}: "
    return DimensionMismatch(f"{where}field {field.name!r}: expected dim {field.dim}, got {got}", field=field.name)


def hint(name: str, wanted: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest of those that are known, if one is near."""
    nearest = difflib.get_close_matches(name, list(wanted), n=1)
    return f", did you mean {nearest[0]!r}" if nearest else ""


def _to_dtype(found: pa.DataType) -> np.dtype[np.generic] | None:
    try:
        dtype: np.dtype[np.generic] = np.dtype(found.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        return None
    return dtype
