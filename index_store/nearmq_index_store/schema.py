"""A collection's schema: its primary key and its vector fields, each with a dimension, a metric and an index.

What an index's parameters may be is the index's own matter (`indexes/`); this module checks names, counts and metrics.
"""

import re
from typing import Literal

import msgspec

from nearmq_index_store.errors import FieldNotFound, InvalidArgument

Metric = Literal["L2", "IP", "COSINE"]
PrimaryKey = Literal["int64", "string"]

METRICS: tuple[Metric, ...] = ("L2", "IP", "COSINE")
MAX_DIM = 32_768
MAX_VECTOR_FIELDS = 8

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


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of a collection. Scalar fields come with format 2 of the manifest's schema."""

    primary_key: PrimaryKey = "int64"
    vector_fields: tuple[VectorField, ...]

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

    def _names(self) -> str:
        return ", ".join(repr(field.name) for field in self.vector_fields)
