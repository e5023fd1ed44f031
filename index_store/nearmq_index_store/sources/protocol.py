"""The seam to the files that rows are imported from: each read in batches of a few MiB, each row checked.

Every error names the file, the row (counted from 0), the field, what was expected and what is there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.schema import Schema

#: What one batch holds; the pages of a mapped file are given back after each.
BATCH_BYTES = 8 << 20

#: What one scalar is taken to need, so that a batch of long texts beside short vectors is no large one.
_SCALAR_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a source.

    Attributes:
        ids: int64 or string, as the schema's primary key; no nulls.
        vectors: float32 of shape (rows, dim) by field name, finite; valid until the next batch is read.
        scalars: of every scalar field by its name, in the field's own type.
    """

    ids: pa.Array
    vectors: Mapping[str, FloatMatrix]
    scalars: Mapping[str, pa.Array]


class Source(Protocol):
    """Rows in a fixed order, which can be read any number of times."""

    @property
    def path(self) -> Path:
        """The file, for messages."""
        ...

    @property
    def identity(self) -> str:
        """Differs, without the file's being read for it, when its content does; for people to read too."""
        ...

    def ids(self) -> Iterator[pa.Array]:
        """Read the primary keys alone.

        Raises:
            InvalidArgument: a primary key is missing, or no such key.
        """
        ...

    def batches(self) -> Iterator[Batch]:
        """Read whole rows.

        Raises:
            InvalidArgument: a row is bad.
            DimensionMismatch: a vector has another dim than its field.
        """
        ...


def rows_a_batch(schema: Schema) -> int:
    """How many rows make a batch."""
    return max(1, BATCH_BYTES // (row_bytes(schema) + _SCALAR_BYTES * len(schema.scalar_fields)))


def row_bytes(schema: Schema) -> int:
    """The bytes that the vectors of one row take."""
    return 4 * sum(field.dim for field in schema.vector_fields)
