"""A segment, immutable rows of one partition with an index a vector field: how it is built, stored and opened."""

import mmap
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path

import numpy as np
import pyarrow as pa
from ulid import ULID

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import put_blob
from nearmq_index_store.distances import RowNumbers
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.indexes.cells import Cells, train_cells
from nearmq_index_store.indexes.ivf_flat import IvfFlat, build_on_cells
from nearmq_index_store.indexes.protocol import BuiltIndex, VectorIndex
from nearmq_index_store.manifest import BlobRef, IndexEntry, KeysEntry, SegmentEntry
from nearmq_index_store.recent import Recent
from nearmq_index_store.rows import Rows, open_rows, take_columns, write_keys, write_rows
from nearmq_index_store.schema import Schema, VectorField

__all__ = ["BuiltSegment", "Rows", "Segment", "build_segment", "open_rows", "open_segment", "store_segment"]

#: Where k-means and the levels of HNSW start from, so that the same rows give the same index (on one thread).
_SEED = 20_260_101

#: Filters of a segment whose rows are remembered, at most 8 bytes a row each.
FILTERS_KEPT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSegment:
    """What `build_segment` left in its folder: the files, and the facts that the manifest will carry."""

    rows: int
    rows_path: Path
    keys_path: Path
    key_min: int | str
    key_max: int | str
    indexes: dict[str, BuiltIndex]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment opened for the search of one field."""

    entry: SegmentEntry
    field: VectorField
    rows: Rows
    index: VectorIndex
    _allowed: Recent[str, RowNumbers] = dataclass_field(
        default_factory=lambda: Recent(FILTERS_KEPT), repr=False, compare=False
    )

    def allowed(self, condition: Filter) -> RowNumbers:
        """Return the numbers of the rows that a filter allows, ascending; the last few filters' are kept."""
        allowed = self._allowed.get(condition.key)
        if allowed is None:
            allowed = np.flatnonzero(condition.mask(self.rows.filtered_column, len(self.rows)))
            self._allowed.put(condition.key, allowed)
        return allowed


def build_segment(table: pa.Table, schema: Schema, folder: Path, *, threads: int) -> BuiltSegment:
    """Write the files of a segment into a folder: rows, keys, and the index of each vector field.

    The rows are sorted by the cells of the first IVF_FLAT field, which takes a copy of the table for a moment. Indexes
    are built one after the other over the rows as mapped from the file just written; so the peak is about the table
    and the larger of its copy and one index.

    Args:
        table: the columns `id` (int64 or string), every vector field (FixedSizeList<float32>[dim]) and every scalar
            field (a type that it can hold, `scalars.py`); others are left out.
        folder: empty, the caller's to remove.
        threads: of the index builds. HNSW differs from build to build with more than one.

    Raises:
        InvalidArgument: a column is missing or of another type; a null, NaN or infinity; a primary key is there twice.
    """
    rows_path, keys_path = folder / "rows.arrow", folder / "keys.arrow"
    columns = take_columns(table, schema)
    sorted_by, cells = _cells_to_sort_by(columns, schema, threads=threads)
    write_rows(rows_path, columns, None if cells is None else cells.order)
    rows = open_rows(rows_path, len(columns), schema)
    key_min, key_max = write_keys(keys_path, rows)
    indexes = {}
    for field in schema.vector_fields:
        if cells is not None and field.name == sorted_by:
            indexes[field.name] = build_on_cells(cells.of_sorted_rows(), field, folder)
        else:
            kind = index_kind(field.index.kind)
            indexes[field.name] = kind.build(rows.vectors(field.name), field, folder, threads=threads, seed=_SEED)
    return BuiltSegment(
        rows=len(rows),
        rows_path=rows_path,
        keys_path=keys_path,
        key_min=key_min,
        key_max=key_max,
        indexes=indexes,
    )


def store_segment(store: BlobStore, collection_id: str, partition: str, built: BuiltSegment) -> SegmentEntry:
    """Put the files of a built segment into the store, and return the entry that a commit makes visible."""
    return SegmentEntry(
        id=str(ULID()),
        partition=partition,
        rows=built.rows,
        rows_blob=_put_file(store, collection_id, built.rows_path),
        keys=KeysEntry(blob=_put_file(store, collection_id, built.keys_path), min=built.key_min, max=built.key_max),
        indexes={
            name: IndexEntry(
                kind=index.kind,
                params=index.params,
                blob=None if index.path is None else _put_file(store, collection_id, index.path),
                memory_bytes=index.memory_bytes,
            )
            for name, index in built.indexes.items()
        },
    )


def open_segment(entry: SegmentEntry, field: VectorField, rows: Rows, index_path: Path | None) -> Segment:
    """Open the index of one field over opened rows.

    Args:
        index_path: the verified copy of the index's blob; None when the entry names none.

    Raises:
        IndexCorrupt: the index contradicts the rows or the manifest.
    """
    index = entry.indexes[field.name]
    opened = index_kind(index.kind).open(index_path, index.params, rows.vectors(field.name), field.metric)
    return Segment(entry=entry, field=field, rows=rows, index=opened)


def _cells_to_sort_by(rows: Rows, schema: Schema, *, threads: int) -> tuple[str | None, Cells | None]:
    """Return the first IVF_FLAT field and its cells, None where the rows are too few to have any."""
    for field in schema.vector_fields:
        if field.index.kind == IvfFlat.name:
            nlist = field.index.params["nlist"]
            vectors = rows.vectors(field.name)
            return field.name, train_cells(vectors, field.metric, nlist, threads=threads, seed=_SEED)
    return None, None


def _put_file(store: BlobStore, collection_id: str, path: Path) -> BlobRef:
    with path.open("rb") as file:
        # Not closed here: a put that failed leaves views of it in its traceback, and closing would hide its error.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return put_blob(store, collection_id, memoryview(mapped))
