"""The rows of a source as tables, each to become a segment: the same source is always cut at the same rows."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from nearmq_index_store.rows import MAX_ROWS
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources import Source, row_bytes

#: Arrow's offsets into the texts of a column have 32 bits.
_MOST_SCALAR_BYTES = 1 << 30


def segment_tables(source: Source, rows: int, schema: Schema, segment_bytes: int) -> Iterator[pa.Table]:
    """Gather the batches of a source into tables of about the same size, so that the last is not a small one.

    Args:
        rows: of the source.
        segment_bytes: the most that the vectors of a table take, and its scalars but for the last batch of them.

    Yields:
        Tables with the columns that `build_segment` wants, each valid until the next is asked for.
    """
    most = min(max(1, segment_bytes // row_bytes(schema)), MAX_ROWS)
    segments = -(-rows // most)
    return _tables(source, schema, -(-rows // segments), min(segment_bytes, _MOST_SCALAR_BYTES))


def _tables(source: Source, schema: Schema, rows: int, scalar_bytes: int) -> Iterator[pa.Table]:
    """Gather batches into tables of this many rows, or of fewer that hold so many bytes of scalars."""
    buffers = {field.name: np.empty((rows, field.dim), dtype=np.float32) for field in schema.vector_fields}
    others: list[pa.Table] = []  # ids and scalars
    filled = held = 0
    for batch in source.batches():
        start = 0
        while start < len(batch.ids):
            taken = min(rows - filled, len(batch.ids) - start)
            for name, buffer in buffers.items():
                buffer[filled : filled + taken] = batch.vectors[name][start : start + taken]
            others.append(pa.table({ID_COLUMN: batch.ids, **batch.scalars}).slice(start, taken))
            held += others[-1].drop_columns(ID_COLUMN).nbytes
            start, filled = start + taken, filled + taken
            if filled == rows or held >= scalar_bytes:
                yield _table(others, buffers, filled)
                others, filled, held = [], 0, 0
    if filled:
        yield _table(others, buffers, filled)


def _table(others: list[pa.Table], buffers: dict[str, np.ndarray], rows: int) -> pa.Table:
    table = pa.concat_tables(others)
    for name, buffer in buffers.items():
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(buffer[:rows].reshape(-1)), buffer.shape[1])
        table = table.append_column(name, vectors)
    return table
