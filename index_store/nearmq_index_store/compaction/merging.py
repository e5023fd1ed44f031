"""The live rows of several segments as the files of one.

Vectors go through a file, never whole through this process's own memory, and each input is closed before the next is
opened. So merging takes the bytes of the inputs' rows in mapped pages, and then the larger of a copy of them in another
order (for IVF_FLAT) and one index.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.distances import FloatMatrix, RowNumbers, row_blocks
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.rows import Rows
from nearmq_index_store.scalars import ScalarColumn
from nearmq_index_store.schema import Schema
from nearmq_index_store.segment import WrittenRows, write_sorted_rows

#: Gives the rows of a segment, deleted ones too, in the columns of a schema.
OpenRows = Callable[[SegmentEntry], AbstractContextManager[Rows]]


def merge_rows(
    inputs: Sequence[SegmentEntry],
    deleted: Mapping[str, DeletedRows],
    schema: Schema,
    folder: Path,
    *,
    open_rows_of: OpenRows,
    threads: int,
    on_rows: Callable[[int], None],
) -> WrittenRows:
    """Write the live rows of segments, in the order of the segments, as the rows and keys of one.

    Args:
        inputs: that have a live row between them.
        deleted: by segment id.
        folder: empty, on a disk with room for the rows twice; one copy is gone in the end.
        on_rows: told after each input how many rows were read.
    """
    with ExitStack() as stack:
        gathered = _Gathered(schema, folder, stack)
        for entry in inputs:
            with open_rows_of(entry) as rows:
                gathered.add(rows, np.flatnonzero(~deleted[entry.id].mask(len(rows))))
            on_rows(gathered.rows)
    try:
        return write_sorted_rows(gathered.as_rows(), schema, folder, threads=threads)
    finally:
        gathered.remove()


class _Gathered:
    """Rows on their way: the vectors in a file a field, keys and scalars in memory."""

    def __init__(self, schema: Schema, folder: Path, stack: ExitStack) -> None:
        self.rows = 0
        self._schema = schema
        self._paths = {field.name: folder / f"{field.name}.gathered" for field in schema.vector_fields}
        self._files: dict[str, BinaryIO] = {
            name: stack.enter_context(path.open("wb")) for name, path in self._paths.items()
        }
        self._keys: list[pa.Array] = []
        self._scalars: dict[str, list[pa.Array]] = {field.name: [] for field in schema.scalar_fields}

    def add(self, rows: Rows, live: RowNumbers) -> None:
        """Copy some rows, given by their numbers."""
        taken = pa.array(live)
        self._keys.append(rows.keys.take(taken))
        for name, columns in self._scalars.items():
            columns.append(rows.column(name).take(taken))
        for name, file in self._files.items():
            _write_vectors(file, rows.vectors(name), live)
        self.rows += len(live)

    def as_rows(self) -> Rows:
        """View them; no more may be added."""
        return Rows(
            pa.concat_arrays(self._keys),
            {field.name: self._map(field.name, field.dim) for field in self._schema.vector_fields},
            {
                field.name: ScalarColumn(field, pa.concat_arrays(self._scalars[field.name]))
                for field in self._schema.scalar_fields
            },
        )

    def remove(self) -> None:
        """Remove the files; what was mapped stays readable as long as somebody has it."""
        for path in self._paths.values():
            path.unlink()

    def _map(self, name: str, dim: int) -> FloatMatrix:
        return np.asarray(np.memmap(self._paths[name], dtype=np.float32, mode="r", shape=(self.rows, dim)))


def _write_vectors(file: BinaryIO, vectors: FloatMatrix, live: RowNumbers) -> None:
    is_all = len(live) == len(vectors)
    for block in row_blocks(vectors):
        vectors[block if is_all else live[block]].tofile(file)
