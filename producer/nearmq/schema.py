"""A collection's schema as a client declares it; the worker checks it whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nearmq.jobs import ScalarFieldSpec, VectorFieldSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """The columns of a collection to create: its vector and scalar fields, and the type of its primary key."""

    vector_fields: Sequence[VectorFieldSpec]
    scalar_fields: Sequence[ScalarFieldSpec] = ()
    primary_key: Literal["int64", "string"] = "int64"
