"""Rows of a .npy matrix: alone, or with a table of their scalars beside it."""

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.scalars import no_scalars
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.checks import check_id_type, check_value_type, to_ids, to_matrix, wrong_dim
from nearmq_index_store.sources.files import SourceFile
from nearmq_index_store.sources.protocol import Batch, rows_a_batch
from nearmq_index_store.sources.table import TableReader, TableSource, read_columns


class Matrix:
    """The vectors of a .npy file of shape (rows, dim), and the primary keys that they are given."""

    def __init__(
        self, file: SourceFile, schema: Schema, *, ids_file: SourceFile | None = None, first_id: int | None = None
    ) -> None:
        """Map the files and check what their headers say.

        Args:
            schema: with one vector field.
            ids_file: a vector of shape (rows,) of integers, or of text for string keys; None numbers the rows.
            first_id: the primary key of row 0 where the rows are numbered; None is 0.

        Raises:
            InvalidArgument: a file cannot be read, or is of another shape or type.
            DimensionMismatch: the matrix has another dim than the field.
        """
        if len(schema.vector_fields) != 1:
            raise InvalidArgument(
                f"{file.shown}: a .npy file holds one vector field, the collection has {len(schema.vector_fields)}: "
                "expected another kind of file",
                field="file",
            )
        self.path = file.shown
        self.numbered = ids_file is None and first_id is None
        self.identity = f"{file.identity}; ids {first_id or 0 if ids_file is None else ids_file.identity}"
        self._field = schema.vector_fields[0]
        self._primary_key = schema.primary_key
        self._first_id = first_id or 0
        self._vectors = _map(file, dimensions=2)
        if self._vectors.shape[1] != self._field.dim:
            raise wrong_dim(self.path, None, self._field, self._vectors.shape[1])
        check_value_type(self.path, self._field, self._vectors.dtype)
        self._ids_path = self.path if ids_file is None else ids_file.shown
        self._ids = None if ids_file is None else self._map_ids(ids_file)

    def __len__(self) -> int:
        return len(self._vectors)

    def vectors(self, start: int, stop: int) -> dict[str, Any]:
        """Read the vectors of some rows by field name; valid until the next are read."""
        # What was read is in the page cache; mapped on, it would count as this process's memory.
        self._vectors.base.madvise(mmap.MADV_DONTNEED)
        return {self._field.name: to_matrix(self.path, start, self._vectors[start:stop], self._field)}

    def ids(self, start: int, stop: int) -> pa.Array:
        """Read the primary keys of some rows.

        Raises:
            InvalidArgument: they would be numbers where the collection's are strings.
        """
        if self._ids is None:
            if self._primary_key == "string":
                raise InvalidArgument(
                    f"{self.path}: the primary keys are strings: expected a file of ids (--ids)", field="ids"
                )
            return pa.array(np.arange(self._first_id + start, self._first_id + stop, dtype=np.int64))
        ids = self._ids[start:stop].astype(self._ids.dtype.newbyteorder("="))
        return to_ids(self._ids_path, start, pa.array(ids), self._primary_key)

    def _map_ids(self, file: SourceFile) -> Any:
        ids = _map(file, dimensions=1)
        if len(ids) != len(self):
            raise InvalidArgument(f"{file.shown}: expected {len(self)} ids, got {len(ids)}", field="ids")
        check_id_type(file.shown, ID_COLUMN, pa.array(ids[:1]).type, self._primary_key)
        return ids


class MatrixSource:
    """A Source over a matrix alone; the scalars of its rows are null."""

    def __init__(self, matrix: Matrix, schema: Schema) -> None:
        """Check that the schema needs nothing else.

        Raises:
            InvalidArgument: it has a scalar field that cannot be null.
        """
        needed = [field.name for field in schema.scalar_fields if not field.nullable]
        if needed:
            raise InvalidArgument(
                f"{matrix.path}: a .npy file holds no scalars, the collection needs {', '.join(map(repr, needed))}: "
                "expected a table of them (--fields), or another kind of file",
                field="file",
            )
        matrix.ids(0, 1)
        self.path = matrix.path
        self.identity = matrix.identity
        self._matrix = matrix
        self._schema = schema

    def ids(self) -> Iterator[pa.Array]:
        """Read the primary keys alone."""
        return (self._matrix.ids(start, stop) for start, stop in self._ranges())

    def batches(self) -> Iterator[Batch]:
        """Read whole rows."""
        for start, stop in self._ranges():
            scalars = {field.name: no_scalars(field, stop - start) for field in self._schema.scalar_fields}
            yield Batch(self._matrix.ids(start, stop), self._matrix.vectors(start, stop), scalars)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        rows, step = len(self._matrix), rows_a_batch(self._schema)
        return ((start, min(start + step, rows)) for start in range(0, rows, step))


class MatrixAndTableSource:
    """A Source over a matrix and a table of the scalars, and perhaps the primary keys, of the same rows in order."""

    def __init__(self, matrix: Matrix, table: TableReader, schema: Schema) -> None:
        """Check the table's columns.

        Raises:
            InvalidArgument: as for a TableSource; or the primary keys are in the table and somewhere else too.
        """
        self.path = matrix.path
        self.identity = f"{matrix.identity}; fields {table.file.identity}"
        self._matrix = matrix
        self._table_path = table.file.shown
        reader = table if self._has_ids(table) else _Numbered(table, matrix)
        scalars = msgspec.structs.replace(schema, vector_fields=())
        self._table = TableSource(reader, scalars, rows=rows_a_batch(schema))

    def ids(self) -> Iterator[pa.Array]:
        """Read the primary keys alone."""
        rows = 0
        for ids in self._table.ids():
            rows = self._counted(rows + len(ids))
            yield ids
        self._check_end(rows)

    def batches(self) -> Iterator[Batch]:
        """Read whole rows."""
        rows = 0
        for beside in self._table.batches():
            start, rows = rows, self._counted(rows + len(beside.ids))
            yield Batch(beside.ids, self._matrix.vectors(start, rows), beside.scalars)
        self._check_end(rows)

    def _has_ids(self, table: TableReader) -> bool:
        has_ids = ID_COLUMN in read_columns(table).names
        if has_ids and not self._matrix.numbered:
            raise InvalidArgument(
                f"{self._table_path}: the ids are its column {ID_COLUMN!r}, expected no other", field="ids"
            )
        return has_ids

    def _counted(self, rows: int) -> int:
        if rows > len(self._matrix):
            raise _another_count(self._table_path, self._matrix, "more")
        return rows

    def _check_end(self, rows: int) -> None:
        if rows != len(self._matrix):
            raise _another_count(self._table_path, self._matrix, str(rows))


class _Numbered:
    """A TableReader that gives the rows of a table the primary keys of a matrix."""

    def __init__(self, table: TableReader, matrix: Matrix) -> None:
        self.file = table.file
        self.kind = table.kind
        self._table = table
        self._matrix = matrix

    def schema(self) -> pa.Schema:
        return self._table.schema().insert(0, pa.field(ID_COLUMN, self._matrix.ids(0, 1).type))

    def read(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        others = [name for name in columns if name != ID_COLUMN] or self._table.schema().names[:1]
        start = 0
        for batch in self._table.read(others, rows):
            stop = start + batch.num_rows
            if stop > len(self._matrix):
                raise _another_count(self.file.shown, self._matrix, "more")
            with_ids = {name: batch.column(name) for name in others} | {ID_COLUMN: self._matrix.ids(start, stop)}
            yield pa.record_batch({name: with_ids[name] for name in columns})
            start = stop


def _another_count(table: Path, matrix: Matrix, got: str) -> InvalidArgument:
    return InvalidArgument(
        f"{table}: expected {len(matrix)} rows, as many as {matrix.path} has, got {got}", field="fields"
    )


def _map(file: SourceFile, *, dimensions: int) -> Any:
    try:
        array = np.load(file.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidArgument(f"{file.shown}: cannot be read as .npy: {error}", field="file") from error
    if array.ndim != dimensions or 0 in array.shape:
        raise InvalidArgument(
            f"{file.shown}: expected an array of {dimensions} dimensions with rows, got shape {array.shape}",
            field="file",
        )
    return array
