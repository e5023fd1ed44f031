"""Rows of a table, whatever file it is in: its columns checked by name and type, then each row's values."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.scalars import no_scalars
from nearmq_index_store.schema import ID_COLUMN, ScalarField, Schema, VectorField
from nearmq_index_store.sources.checks import (
    bad_value,
    check_id_type,
    check_scalar_type,
    check_value_type,
    map_columns,
    to_column,
    to_ids,
    to_matrix,
    wrong_dim,
)
from nearmq_index_store.sources.files import SourceFile
from nearmq_index_store.sources.protocol import Batch, rows_a_batch


class TableReader(Protocol):
    """A file of columns that can be read any number of times.

    Its methods raise pyarrow's exceptions where the file is none of its kind, and InvalidArgument where a value is bad.
    """

    @property
    def file(self) -> SourceFile:
        """What is read."""
        ...

    @property
    def kind(self) -> str:
        """What it is read as, for messages, such as `Parquet`."""
        ...

    def schema(self) -> pa.Schema:
        """The names of its columns, and the types of the values that `read` gives."""
        ...

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read some of its columns in their order here, at most so many rows at a time."""
        ...


class TableSource:
    """A Source over the columns of a file; vectors are FixedSizeList or List of numbers."""

    def __init__(self, reader: TableReader, schema: Schema, *, rows: int | None = None) -> None:
        """Read the file's columns and check them.

        Args:
            rows: of a batch; None is as many as make one of this schema.

        Raises:
            InvalidArgument: the file cannot be read, a column is missing or unknown, or of another type.
            DimensionMismatch: a column has another dim than its field.
        """
        self._reader = reader
        self._schema = schema
        self._rows = rows or rows_a_batch(schema)
        self.path = reader.file.shown
        self.identity = reader.file.identity
        found = read_columns(reader)
        self._columns = map_columns(self.path, found.names, schema)
        check_id_type(self.path, ID_COLUMN, found.field(ID_COLUMN).type, schema.primary_key)
        for field in schema.vector_fields:
            self._check_vectors(field, found.field(self._columns[field.name]).type)
        for scalar in schema.scalar_fields:
            if scalar.name in self._columns:
                check_scalar_type(self.path, scalar, found.field(self._columns[scalar.name]).type)

    def ids(self) -> Iterator[pa.Array]:
        """Read the primary keys alone."""
        for first_row, batch in self._read([ID_COLUMN]):
            yield to_ids(self.path, first_row, batch.column(ID_COLUMN), self._schema.primary_key)

    def batches(self) -> Iterator[Batch]:
        """Read whole rows."""
        for first_row, batch in self._read(list(self._columns.values())):
            ids = to_ids(self.path, first_row, batch.column(ID_COLUMN), self._schema.primary_key)
            vectors = {
                field.name: self._to_matrix(first_row, batch.column(self._columns[field.name]), field)
                for field in self._schema.vector_fields
            }
            scalars = {field.name: self._to_column(first_row, batch, field) for field in self._schema.scalar_fields}
            yield Batch(ids, vectors, scalars)

    def _read(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield each batch with the number of its first row."""
        first_row = 0
        with _translated(self._reader):
            for batch in self._reader.read(columns, self._rows):
                yield first_row, batch
                first_row += batch.num_rows

    def _check_vectors(self, field: VectorField, found: pa.DataType) -> None:
        if pa.types.is_fixed_size_list(found):
            if found.list_size != field.dim:
                raise wrong_dim(self.path, None, field, found.list_size)
        elif not (pa.types.is_list(found) or pa.types.is_large_list(found)):
            raise InvalidArgument(
                f"{self.path}: field {field.name!r}: expected FixedSizeList<float32>[{field.dim}], got {found}",
                field=field.name,
            )
        check_value_type(self.path, field, found.value_type)

    def _to_matrix(self, first_row: int, column: pa.Array, field: VectorField) -> FloatMatrix:
        if column.null_count:
            row = first_row + pc.index(pc.is_null(column), value=True).as_py()
            raise bad_value(self.path, row, field.name, f"{field.dim} numbers", "null")
        if not pa.types.is_fixed_size_list(column.type):
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            if (lengths != field.dim).any():
                row = int(np.argmax(lengths != field.dim))
                raise wrong_dim(self.path, first_row + row, field, int(lengths[row]))
        values = column.flatten()
        if values.null_count:
            row = first_row + pc.index(pc.is_null(values), value=True).as_py() // field.dim
            raise bad_value(self.path, row, field.name, "finite float32", "null")
        return to_matrix(self.path, first_row, values.to_numpy(zero_copy_only=False).reshape(-1, field.dim), field)

    def _to_column(self, first_row: int, batch: pa.RecordBatch, field: ScalarField) -> pa.Array:
        if field.name not in self._columns:
            return no_scalars(field, batch.num_rows)
        return to_column(self.path, first_row, batch.column(self._columns[field.name]), field)


def read_columns(reader: TableReader) -> pa.Schema:
    """Return the columns of a file.

    Raises:
        InvalidArgument: the file cannot be read.
    """
    with _translated(reader):
        return reader.schema()


@contextmanager
def _translated(reader: TableReader) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        message = f"{reader.file.shown}: cannot be read as {reader.kind}: {error}"
        raise InvalidArgument(message, field="file") from error
