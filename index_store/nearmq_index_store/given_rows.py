"""Rows as a write job gives them, not yet compared with the schema of the collection that they are for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import DimensionMismatch, FieldNotFound, InvalidArgument
from nearmq_index_store.scalars import BadValue, arrow_type, no_scalars, to_scalars
from nearmq_index_store.schema import PrimaryKey, ScalarField, Schema, VectorField, nearest_name
from nearmq_index_store.sources.protocol import Batch

_KEY_TYPES: dict[PrimaryKey, type] = {"int64": int, "string": str}

#: The Python types that a value of a scalar type, or an item of an array, may have; of bool and int exactly these.
_VALUE_TYPES: dict[str, set[type]] = {"bool": {bool}, "int64": {int}, "float64": {int, float}, "string": {str}}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRows:
    """The rows of one upsert or insert.

    Attributes:
        ids: all integers or all text, each once.
        vectors: float32, shape (rows, dim), finite, of the only vector field or by field name.
        scalars: values by field name, one a row: bool, int, float, str, None, lists of these; of JSON fields anything
            that JSON can hold.
    """

    ids: Sequence[int | str]
    vectors: FloatMatrix | Mapping[str, FloatMatrix]
    scalars: Mapping[str, Sequence[Any]]

    def fit(self, schema: Schema) -> Batch:
        """Return the rows as columns of a collection.

        Raises:
            FieldNotFound: a field is unknown (names the nearest known one).
            InvalidArgument: a field is missing, a column has another length, or a value is none that its field can
                hold; names field, row, expected and got.
            DimensionMismatch: a vector has another dim than its field.
        """
        ids = key_array(self.ids, schema.primary_key)
        self._check_unique()
        self._check_names(schema)
        return Batch(
            ids,
            {field.name: self._vectors_of(field) for field in schema.vector_fields},
            {field.name: self._scalars_of(field) for field in schema.scalar_fields},
        )

    def _check_unique(self) -> None:
        if len(set(self.ids)) == len(self.ids):
            return
        first_rows: dict[int | str, int] = {}
        ids: Sequence[int | str] = self.ids
        for row, key in enumerate(ids):
            first = first_rows.setdefault(key, row)
            if first != row:
                raise InvalidArgument(f"ids[{row}] is {key!r:.200}, which ids[{first}] is too", field="ids")

    def _check_names(self, schema: Schema) -> None:
        vectors = {field.name for field in schema.vector_fields}
        scalars = {field.name for field in schema.scalar_fields}
        given = self.vectors if isinstance(self.vectors, Mapping) else {}
        for argument, names, known in (("vectors", given, vectors), ("fields", self.scalars, scalars)):
            for name in names:
                if name not in known:
                    kind = "vector" if argument == "vectors" else "scalar"
                    raise FieldNotFound(f"no {kind} field {name!r}, {nearest_name(name, known)}", field=argument)
        missing = sorted(vectors.difference(given)) if isinstance(self.vectors, Mapping) else []
        if not isinstance(self.vectors, Mapping) and len(vectors) > 1:
            missing = sorted(vectors)
        needed = [field.name for field in schema.scalar_fields if not field.nullable]
        missing += [name for name in needed if name not in self.scalars]
        if missing:
            raise InvalidArgument(f"the rows have no {', '.join(map(repr, missing))}", field=missing[0])

    def _vectors_of(self, field: VectorField) -> FloatMatrix:
        vectors = self.vectors[field.name] if isinstance(self.vectors, Mapping) else self.vectors
        if vectors.ndim != 2 or vectors.shape[1] != field.dim:  # noqa: PLR2004  rows and dimensions
            got = vectors.shape[1] if vectors.ndim == 2 else vectors.ndim  # noqa: PLR2004  the same
            raise DimensionMismatch(f"field {field.name!r}: expected dim {field.dim}, got {got}", field=field.name)
        _check_length(field.name, len(vectors), len(self.ids))
        return np.ascontiguousarray(vectors, dtype=np.float32)

    def _scalars_of(self, field: ScalarField) -> pa.Array:
        values = self.scalars.get(field.name)
        if values is None:
            return no_scalars(field, len(self.ids))
        _check_length(field.name, len(values), len(self.ids))
        try:
            return to_scalars(field, _column(field, values))
        except BadValue as bad:
            raise InvalidArgument(
                f"row {bad.row}: field {field.name!r}: expected {bad.expected}, got {bad.got}", field=field.name
            ) from None


def key_array(ids: Sequence[int | str], primary_key: PrimaryKey) -> pa.Array:
    """Return primary keys as int64 or string.

    Raises:
        InvalidArgument: a key is of another type, or beyond 64 bits.
    """
    wanted = _KEY_TYPES[primary_key]
    if set(map(type, ids)) - {wanted}:
        row, got = next((row, key) for row, key in enumerate(ids) if type(key) is not wanted)
        raise InvalidArgument(f"ids[{row}] is {got!r:.80}, the primary keys are {primary_key}", field="ids")
    try:
        return pa.array(ids, pa.int64() if primary_key == "int64" else pa.string())
    except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
        raise InvalidArgument(f"an id of {ids!r:.80} is no {primary_key}", field="ids") from None


def _column(field: ScalarField, values: Sequence[Any]) -> pa.Array:
    """Return Python values as an Arrow column that `to_scalars` takes."""
    if field.type == "json":
        return pa.array([_json_text(row, value) for row, value in enumerate(values)], pa.string())
    row = _first_mistyped(field, values)
    if row is not None:
        raise BadValue(row, field.type, f"{values[row]!r:.80}")
    try:
        return pa.array(values, arrow_type(field))
    except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
        raise _first_bad(field, values) from None


def _first_mistyped(field: ScalarField, values: Sequence[Any]) -> int | None:
    types = _VALUE_TYPES[field.type.removeprefix("array<").removesuffix(">")]
    if field.type.startswith("array<"):
        good = (value is None or (isinstance(value, list) and set(map(type, value)) <= types) for value in values)
    elif set(map(type, values)) <= types | {type(None)}:
        return None
    else:
        good = (value is None or type(value) in types for value in values)
    return next((row for row, is_good in enumerate(good) if not is_good), None)


def _first_bad(field: ScalarField, values: Sequence[Any]) -> BadValue:
    for row, value in enumerate(values):
        try:
            pa.array([value], arrow_type(field))
        except (OverflowError, pa.ArrowInvalid, UnicodeEncodeError):
            return BadValue(row, field.type, f"{value!r:.80}")
    raise AssertionError(f"the values of {field.name!r} are no {field.type} as a whole, but each is")


def _json_text(row: int, value: Any) -> str | None:
    if value is None:
        return None
    try:
        return msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadValue(row, "JSON", f"{value!r:.80} ({error})") from None


def _check_length(name: str, got: int, expected: int) -> None:
    if got != expected:
        raise InvalidArgument(f"field {name!r} has {got} values, ids has {expected}", field=name)
