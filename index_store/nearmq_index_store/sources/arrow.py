"""Rows of an Arrow table: of a .parquet file, or of an .arrow file in the IPC file or stream format."""

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.scalars import no_scalars
from nearmq_index_store.schema import ID_COLUMN, ScalarField, Schema, VectorField
from nearmq_index_store.sources.checks import (
    check_id_type,
    check_scalar_type,
    check_value_type,
    map_columns,
    to_column,
    to_ids,
    to_matrix,
    wrong_dim,
)
from nearmq_index_store.sources.protocol import Batch, rows_a_batch

_IPC_FILE_MAGIC = b"ARROW1"


class ArrowSource:
    """A Source over the record batches of a file; vectors are FixedSizeList or List of numbers."""

    def __init__(self, path: Path, schema: Schema) -> None:
        """Read the file's schema and check it.

        Raises:
            InvalidArgument: the file cannot be read, a column is missing or unknown, or of another type.
            DimensionMismatch: a column has another dim than its field.
        """
        self.path = path
        self._schema = schema
        self._is_parquet = path.suffix == ".parquet"
        with self._translated():
            found = pq.read_schema(path) if self._is_parquet else _open_ipc(_map(path)).schema
        self._columns = map_columns(path, found.names, schema)
        check_id_type(path, ID_COLUMN, found.field(ID_COLUMN).type, schema.primary_key)
        for field in schema.vector_fields:
            self._check_vectors(field, found.field(self._columns[field.name]).type)
        for scalar in schema.scalar_fields:
            if scalar.name in self._columns:
                check_scalar_type(path, scalar, found.field(scalar.name).type)

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
        rows = rows_a_batch(self._schema)
        first_row = 0
        read = _read_parquet if self._is_parquet else _read_ipc
        with self._translated():
            for batch in read(self.path, columns, rows):
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
            raise self._null(row, field, f"{field.dim} numbers")
        if not pa.types.is_fixed_size_list(column.type):
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            if (lengths != field.dim).any():
                row = int(np.argmax(lengths != field.dim))
                raise wrong_dim(self.path, first_row + row, field, int(lengths[row]))
        values = column.flatten()
        if values.null_count:
            row = first_row + pc.index(pc.is_null(values), value=True).as_py() // field.dim
            raise self._null(row, field, "finite float32")
        return to_matrix(self.path, first_row, values.to_numpy(zero_copy_only=False).reshape(-1, field.dim), field)

    def _to_column(self, first_row: int, batch: pa.RecordBatch, field: ScalarField) -> pa.Array:
        if field.name not in self._columns:
            return no_scalars(field, batch.num_rows)
        return to_column(self.path, first_row, batch.column(field.name), field)

    def _null(self, row: int, field: VectorField, expected: str) -> InvalidArgument:
        return InvalidArgument(
            f"{self.path}: row {row}: field {field.name!r}: expected {expected}, got null", field=field.name
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except pa.ArrowException as error:
            kind = "Parquet" if self._is_parquet else "Arrow IPC"
            raise InvalidArgument(f"{self.path}: cannot be read as {kind}: {error}", field="file") from error


def _read_parquet(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    # Buffered and not read ahead, so that a large row group is streamed too.
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)


def _read_ipc(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    mapped = _map(path)
    for batch in _ipc_batches(_open_ipc(mapped)):
        wanted = batch.select(list(columns))
        for start in range(0, batch.num_rows, rows):
            yield wanted.slice(start, rows)
            # What was read is in the page cache; mapped on, it would count as this process's memory.
            mapped.madvise(mmap.MADV_DONTNEED)


def _ipc_batches(reader: pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.ipc.RecordBatchStreamReader):
        yield from reader
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _open_ipc(mapped: mmap.mmap) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    buffer = pa.BufferReader(pa.py_buffer(mapped))
    is_file = mapped[: len(_IPC_FILE_MAGIC)] == _IPC_FILE_MAGIC
    return pa.ipc.open_file(buffer) if is_file else pa.ipc.open_stream(buffer)


def _map(path: Path) -> mmap.mmap:
    """Map a file; unmapped when the last array over it is gone."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise pa.ArrowInvalid("the file is empty")
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
