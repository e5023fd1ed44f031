"""The checks that all files share: columns by name and type, and each row's values."""

import difflib
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
    if len(wanted) == len(found) == 2 and len(others) == 1:  # noqa: PLR2004  the id and one other
        return dict(zip(wanted, [ID_COLUMN, *others], strict=True))
    wrong = [f"column {name!r} is missing" for name in wanted if name not in found and name not in nullable]
    wrong += [f"column {name!r} is there more than once" for name in sorted(set(found)) if found.count(name) > 1]
    wrong += [f"column {name!r} is unknown{_hint(name, wanted)}" for name in found if name not in wanted]
    if wrong:
        raise InvalidArgument(f"{path}: {'; '.join(wrong)}; expected {', '.join(map(repr, wanted))}", field="columns")
    return {name: name for name in wanted if name in found}


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
        raise InvalidArgument(
            f"{path}: row {row}: field {ID_COLUMN!r}: expected {primary_key}, got null", field=ID_COLUMN
        )
    try:
        return column.cast(pa.int64() if primary_key == "int64" else pa.string())
    except pa.ArrowInvalid:
        values = column.to_numpy(zero_copy_only=False)
        place = int(np.argmax(values > np.iinfo(np.int64).max))
        raise InvalidArgument(
            f"{path}: row {first_row + place}: field {ID_COLUMN!r}: expected int64, got {values[place]}",
            field=ID_COLUMN,
        ) from None


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
        raise InvalidArgument(
            f"{path}: row {first_row + row}: field {field.name!r}: expected finite float32, got {values[row, place]} "
            f"at position {place}",
            field=field.name,
        )
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
        raise InvalidArgument(
            f"{path}: row {first_row + bad.row}: field {field.name!r}: expected {bad.expected}, got {bad.got}",
            field=field.name,
        ) from None


def wrong_dim(path: Path, row: int | None, field: VectorField, got: int) -> DimensionMismatch:
    """The error of a vector, or of a whole file, that has another dim than its field."""
    where = f"{path}: " if row is None else f"{path}: row {row}: "
    return DimensionMismatch(f"{where}field {field.name!r}: expected dim {field.dim}, got {got}", field=field.name)


def _to_dtype(found: pa.DataType) -> np.dtype[np.generic] | None:
    try:
        dtype: np.dtype[np.generic] = np.dtype(found.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        return None
    return dtype


def _hint(name: str, wanted: list[str]) -> str:
    nearest = difflib.get_close_matches(name, wanted, n=1)
    return f", did you mean {nearest[0]!r}" if nearest else ""
