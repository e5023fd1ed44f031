"""A collection's schema: its primary key, its scalar fields, and its vector fields with dimension, metric and index.

What an index's parameters may be is the index's own matter (`indexes/`); this module checks names, counts and metrics.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Literal, get_args

import msgspec

from nearmq_index_store.errors import FieldNotFound, InvalidArgument

Metric = Literal["L2", "IP", "COSINE"]
PrimaryKey = Literal["int64", "string"]
ScalarType = Literal[
    "bool", "int64", "float64", "string", "json", "array<bool>", "array<int64>", "array<float64>", "array<string>"
]

METRICS: tuple[Metric, ...] = ("L2", "IP", "COSINE")
MAX_DIM = 32_768
MAX_VECTOR_FIELDS = 8
MAX_SCALAR_FIELDS = 64
SCALAR_TYPES: tuple[ScalarType, ...] = get_args(ScalarType)

#: The types of scalar fields that hits may be grouped by.
_GROUPED_TYPES = ("bool", "int64", "float64", "string")

#: The output field that stands for all scalar fields.
ALL_FIELDS = "*"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")

#: The primary key's column in `rows.arrow` and in imported files.
ID_COLUMN = "id"


def check_name(kind: str, name: str) -> str:
    """Return the name of a collection, partition or field, or raise InvalidArgument that quotes it and the pattern."""
    if not _NAME.match(name):
        raise InvalidArgument(f"{kind} name {name!r} does not match ^[A-Za-z0-9_][A-Za-z0-9_-]{{0,127}}$", field=kind)
    return name


class IndexSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An index as declared: its kind and all its build parameters, defaults filled in."""

    kind: str
    params: dict[str, int] = {}


class VectorField(msgspec.Struct, frozen=True, kw_only=True):
    """One vector column: float32 of `dim` dimensions."""

    name: str
    dim: int
    metric: Metric
    index: IndexSpec


class ScalarField(msgspec.Struct, frozen=True, kw_only=True):
    """One column beside the vectors; `scalars.py` has its values."""

    name: str
    type: ScalarType
    nullable: bool = False


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a collection; manifests of the first releases have no scalar fields."""

    primary_key: PrimaryKey = "int64"
    vector_fields: tuple[VectorField, ...]
    scalar_fields: tuple[ScalarField, ...] = ()

    def field(self, name: str | None) -> VectorField:
        """Return the vector field of this name; None is the only one.

        Raises:
            FieldNotFound: no such field, or None where the collection has several.
        """
        if name is None:
            if len(self.vector_fields) == 1:
                return self.vector_fields[0]
            raise FieldNotFound(
                f"the collection has {len(self.vector_fields)} vector fields, name one of {self._names()}",
                field="field",
            )
        for field in self.vector_fields:
            if field.name == name:
                return field
        raise FieldNotFound(f"no vector field {name!r}, the collection has {self._names()}", field="field")

    def field_names(self) -> list[str]:
        """The names of all vector fields, then of all scalar fields."""
        return [*(field.name for field in self.vector_fields), *(field.name for field in self.scalar_fields)]

    def output_fields(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the scalar fields of these names, each once, in the order of the names; `*` is all of them.

        Raises:
            FieldNotFound: no scalar field has a name; says which is near.
            InvalidArgument: a name is a vector field's.
        """
        known = [field.name for field in self.scalar_fields]
        found: dict[str, None] = {}
        for name in names:
            if any(name == field.name for field in self.vector_fields):
                raise InvalidArgument(
                    f"{name!r} is a vector field, output_fields takes scalar fields only", field="output_fields"
                )
            if name != ALL_FIELDS and name not in known:
                raise FieldNotFound(f"no scalar field {name!r}, {_hint_at(name, known)}", field="output_fields")
            found |= dict.fromkeys(known if name == ALL_FIELDS else [name])
        return tuple(found)

    def read_fields(self, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[VectorField, ...]]:
        """Return the scalar fields and the vector fields of these names, each once; `*` is all scalar fields.

        Raises:
            FieldNotFound: no field has a name; says which is near.
        """
        vectors = {field.name: field for field in self.vector_fields}
        wanted = list(names)
        known = [field.name for field in self.scalar_fields]
        for name in wanted:
            if name not in {ALL_FIELDS, *vectors, *known}:
                raise FieldNotFound(f"no field {name!r}, {_hint_at(name, [*known, *vectors])}", field="output_fields")
        scalars = self.output_fields(name for name in wanted if name not in vectors)
        return scalars, tuple(vectors[name] for name in dict.fromkeys(wanted) if name in vectors)

    def group_field(self, name: str) -> str:
        """Return the name of a scalar field by whose values hits may be grouped.

        Raises:
            FieldNotFound: no scalar field has this name; says which is near.
            InvalidArgument: its values are JSON or arrays.
        """
        fields = {field.name: field for field in self.scalar_fields}
        if name not in fields:
            raise FieldNotFound(f"no scalar field {name!r}, {nearest_name(name, fields)}", field="group_by_field")
        if fields[name].type not in _GROUPED_TYPES:
            raise InvalidArgument(
                f"field {name!r} is {fields[name].type}, hits are grouped by {', '.join(_GROUPED_TYPES)}",
                field="group_by_field",
            )
        return name

    def _names(self) -> str:
        return ", ".join(repr(field.name) for field in self.vector_fields)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return a hint for the name of a field that is not known: the nearest that is, else all of them."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        return f"did you mean {nearest[0]!r}"
    return f"the collection has {', '.join(map(repr, known))}" if known else "the collection has none"


def _hint_at(name: str, known: Iterable[str]) -> str:
    return "ids are in every answer" if name == ID_COLUMN else nearest_name(name, known)


def check_fields(schema: Schema) -> None:
    """Check names, number and types of a schema's fields.

    Raises:
        InvalidArgument: a name is none or taken, a type is unknown, or there are too many or too few.
    """
    fields, scalars = schema.vector_fields, schema.scalar_fields
    if not 1 <= len(fields) <= MAX_VECTOR_FIELDS:
        raise InvalidArgument(
            f"a collection has 1 to {MAX_VECTOR_FIELDS} vector fields, got {len(fields)}", field="vector_fields"
        )
    if len(scalars) > MAX_SCALAR_FIELDS:
        raise InvalidArgument(
            f"a collection has at most {MAX_SCALAR_FIELDS} scalar fields, got {len(scalars)}", field="scalar_fields"
        )
    names = [ID_COLUMN, *schema.field_names()]
    for place, name in enumerate(names[1:]):
        if check_name("field", name) in names[: place + 1]:
            argument = "vector_fields" if place < len(fields) else "scalar_fields"
            raise InvalidArgument(f"field name {name!r} is taken", field=argument)
    for scalar in scalars:
        if scalar.type not in SCALAR_TYPES:
            raise InvalidArgument(
                f"type of field {scalar.name!r} must be one of {', '.join(SCALAR_TYPES)}, got {scalar.type!r}",
                field="type",
            )
