"""Rows of a .npy matrix, whose primary keys are row numbers or come from a second .npy file."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.scalars import no_scalars
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.checks import check_id_type, check_value_type, to_ids, to_matrix, wrong_dim
from nearmq_index_store.sources.protocol import Batch, rows_a_batch


class NpySource:
    """A Source over a mapped matrix of shape (rows, dim), for a schema with one vector field."""

    def __init__(self, path: Path, schema: Schema, *, ids_path: Path | None = None, first_id: int = 0) -> None:
        """Map the files and check what their headers say.

        Args:
            ids_path: a vector of shape (rows,) of integers, or of text for string keys; None numbers the rows.
            first_id: the primary key of row 0 where the rows are numbered.

        Raises:
            InvalidArgument: a file cannot be read, or is of another shape or type.
            DimensionMismatch: the matrix has another dim than the field.
        """
        if len(schema.vector_fields) != 1:
            raise InvalidArgument(
                f"{path}: a .npy file holds one vector field, the collection has {len(schema.vector_fields)}: "
                "expected .parquet or .arrow",
                field="file",
            )
        needed = [field.name for field in schema.scalar_fields if not field.nullable]
        if needed:
            raise InvalidArgument(
                f"{path}: a .npy file holds no scalars, the collection needs {', '.join(map(repr, needed))}: "
                "expected .parquet or .arrow",
                field="file",
            )
        if ids_path is None and schema.primary_key == "string":
            raise InvalidArgument(f"{path}: the primary keys are strings: expected a file of ids (--ids)", field="ids")
        self.path = path
        self._schema = schema
        self._field = schema.vector_fields[0]
        self._first_id = first_id
        self._matrix = _map(path, dimensions=2)
        if self._matrix.shape[1] != self._field.dim:
            raise wrong_dim(path, None, self._field, self._matrix.shape[1])
        check_value_type(path, self._field, self._matrix.dtype)
        self._ids_path = ids_path
        self._ids = None if ids_path is None else self._map_ids(ids_path)

    def ids(self) -> Iterator[pa.Array]:
        """Read the primary keys alone."""
        for start, stop in self._ranges():
            yield self._ids_of(start, stop)

    def batches(self) -> Iterator[Batch]:
        """Read whole rows."""
        for start, stop in self._ranges():
            matrix = to_matrix(self.path, start, self._matrix[start:stop], self._field)
            scalars = {field.name: no_scalars(field, stop - start) for field in self._schema.scalar_fields}
            yield Batch(self._ids_of(start, stop), {self._field.name: matrix}, scalars)
            # What was read is in the page cache; mapped on, it would count as this process's memory.
            self._matrix.base.madvise(mmap.MADV_DONTNEED)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        rows, step = len(self._matrix), rows_a_batch(self._schema)
        return ((start, min(start + step, rows)) for start in range(0, rows, step))

    def _ids_of(self, start: int, stop: int) -> pa.Array:
        if self._ids is None or self._ids_path is None:
            return pa.array(np.arange(self._first_id + start, self._first_id + stop, dtype=np.int64))
        ids = self._ids[start:stop].astype(self._ids.dtype.newbyteorder("="))
        return to_ids(self._ids_path, start, pa.array(ids), self._schema.primary_key)

    def _map_ids(self, path: Path) -> Any:
        ids = _map(path, dimensions=1)
        if len(ids) != len(self._matrix):
            raise InvalidArgument(f"{path}: expected {len(self._matrix)} ids, got {len(ids)}", field="ids")
        check_id_type(path, ID_COLUMN, pa.array(ids[:1]).type, self._schema.primary_key)
        return ids


def _map(path: Path, *, dimensions: int) -> Any:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidArgument(f"{path}: cannot be read as .npy: {error}", field="file") from error
    if array.ndim != dimensions or 0 in array.shape:
        raise InvalidArgument(
            f"{path}: expected an array of {dimensions} dimensions with rows, got shape {array.shape}", field="file"
        )
    return array
