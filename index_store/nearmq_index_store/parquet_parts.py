"""Live rows of segments as a Parquet file.

The columns are `id` (int64 or string), each vector field as FixedSizeList<float32>[dim], and each scalar field as
`scalars.py` has it, JSON as text; compressed by zstd. The metadata key `nearmq` holds JSON that says what the rows are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.draft import Readers
from nearmq_index_store.manifest import Manifest, SegmentEntry
from nearmq_index_store.rows import Rows
from nearmq_index_store.scalars import arrow_type
from nearmq_index_store.schema import ID_COLUMN, Schema
from nearmq_index_store.sources.protocol import rows_a_batch
from nearmq_index_store.whole_files import whole_file

METADATA_KEY = b"nearmq"

#: Batches of 8 MiB in a row group.
_BATCHES_A_GROUP = 4


def write_part(
    path: Path,
    readers: Readers,
    manifest: Manifest,
    segments: Iterable[SegmentEntry],
    facts: Mapping[str, Any],
    *,
    on_rows: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the live rows of segments, durably, and return how many; a file that is there is replaced.

    Holds one row group in memory, and on disk the rows of one segment.

    Args:
        facts: what the metadata says.
        on_rows: told the number of rows of each row group when it was written.

    Raises:
        IndexCorrupt: a blob is missing or fails its digest.
    """
    columns = _columns(manifest.schema).with_metadata({METADATA_KEY: msgspec.json.encode(facts)})
    texts = [field.name for field in manifest.schema.scalar_fields]
    rows = 0
    with (
        whole_file(path) as partial,
        pq.ParquetWriter(partial, columns, compression="zstd", use_dictionary=texts) as writer,
    ):
        for group in _groups(readers, manifest, segments, columns):
            writer.write_table(group, row_group_size=len(group))
            rows += len(group)
            on_rows(len(group))
    return rows


def read_part(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Return how many rows a file has and what its metadata says; None when it is missing or cannot be read."""
    try:
        with pq.ParquetFile(path) as file:
            facts = (file.schema_arrow.metadata or {}).get(METADATA_KEY, b"{}")
            return file.metadata.num_rows, msgspec.json.decode(facts, type=dict[str, Any])
    except (OSError, pa.ArrowException, msgspec.MsgspecError):
        return None


def _columns(schema: Schema) -> pa.Schema:
    fields = [pa.field(ID_COLUMN, pa.int64() if schema.primary_key == "int64" else pa.string(), nullable=False)]
    for vectors in schema.vector_fields:
        numbers = pa.list_(pa.field("item", pa.float32(), nullable=False), vectors.dim)
        fields.append(pa.field(vectors.name, numbers, nullable=False))
    fields += [pa.field(field.name, arrow_type(field), nullable=field.nullable) for field in schema.scalar_fields]
    return pa.schema(fields)


def _groups(
    readers: Readers, manifest: Manifest, segments: Iterable[SegmentEntry], columns: pa.Schema
) -> Iterator[pa.Table]:
    """Gather the live rows of any number of segments, small ones too, into row groups of about the same size."""
    step = rows_a_batch(manifest.schema)
    gathered: list[pa.RecordBatch] = []
    held = 0
    for entry in segments:
        deleted = readers.deletes.deleted(entry)
        with readers.use_rows(manifest, entry) as rows:
            for start in range(0, len(rows), step):
                batch = _live_batch(rows, deleted, start, min(start + step, len(rows)), columns)
                gathered.append(batch)
                held += batch.num_rows
                if held >= _BATCHES_A_GROUP * step:
                    yield pa.Table.from_batches(gathered, columns)
                    gathered, held = [], 0
    if held:
        yield pa.Table.from_batches(gathered, columns)


def _live_batch(rows: Rows, deleted: DeletedRows, start: int, stop: int, columns: pa.Schema) -> pa.RecordBatch:
    arrays = [rows.keys[start:stop]]
    for name, vectors in rows.by_field.items():
        values = pa.array(vectors[start:stop].reshape(-1))
        arrays.append(pa.FixedSizeListArray.from_arrays(values, type=columns.field(name).type))
    arrays += [column.values[start:stop] for column in rows.scalars.values()]
    batch = pa.RecordBatch.from_arrays(arrays, schema=columns)
    if not len(deleted):
        return batch
    numbers = deleted.numbers()
    live = np.ones(stop - start, dtype=np.bool_)
    live[numbers[(numbers >= start) & (numbers < stop)] - start] = False
    return batch.filter(pa.array(live))
