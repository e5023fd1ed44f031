"""A segment, immutable rows of one partition with an index a vector field: how it is built, stored and opened."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import pyarrow as pa
from ulid import ULID

from nearmq_index_store.blobs.protocol import BlobStore, Buffer
from nearmq_index_store.deletes import NONE_DELETED, DeletedRows
from nearmq_index_store.digest import put_blob
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.indexes.allowed import AllowedRows, Mask
from nearmq_index_store.indexes.cells import Cells, train_cells
from nearmq_index_store.indexes.flat import Flat
from nearmq_index_store.indexes.ivf_flat import IvfFlat, build_on_cells
from nearmq_index_store.indexes.measuring import FEWEST_ROWS, Queries, held_out, measure
from nearmq_index_store.indexes.protocol import BuiltIndex, SearchParams, VectorIndex, no_report
from nearmq_index_store.indexes.recall_table import RecallTable, find_point
from nearmq_index_store.manifest import BlobRef, IndexEntry, KeysEntry, SegmentEntry
from nearmq_index_store.mapped import map_file
from nearmq_index_store.narrowed import Kept, Narrowed, Whole
from nearmq_index_store.rows import Rows, map_rows, open_rows, take_columns, write_keys, write_rows
from nearmq_index_store.schema import IndexSpec, Schema, VectorField

__all__ = [
    "BuiltSegment",
    "Rows",
    "Segment",
    "WrittenRows",
    "build_indexes",
    "build_segment",
    "measure_index",
    "open_rows",
    "open_segment",
    "store_segment",
    "write_sorted_rows",
]

#: Where k-means and the levels of HNSW start from, so that the same rows give the same index (on one thread).
_SEED = 20_260_101

#: An opened segment keeps masks and copies of allowed rows up to the size of its vectors and so many bytes a row.
_KEPT_BYTES_A_ROW = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltSegment:
    """What `build_segment` left in its folder: the files, and the facts that the manifest will carry."""

    rows: int
    rows_path: Path
    keys_path: Path
    key_min: int | str
    key_max: int | str
    indexes: dict[str, BuiltIndex]


class Segment:
    """A segment opened for the search of one field; shared by all versions that have it, whatever they deleted of it.

    Attributes:
        whole: its rows of this field, with the index.
    """

    def __init__(self, *, entry: SegmentEntry, field: VectorField, rows: Rows, index: VectorIndex) -> None:
        self.entry = entry
        self.field = field
        self.rows = rows
        self.index = index
        vectors = rows.vectors(field.name)
        self.whole = Whole(vectors, field.metric, index)
        self._kept = Kept(self.whole, vectors.nbytes + _KEPT_BYTES_A_ROW * len(vectors))

    @property
    def kind(self) -> str:
        """The kind of the index that was built."""
        return self.entry.indexes[self.field.name].kind

    def renew(self, entry: SegmentEntry) -> None:
        """Go by what a version's entry says of the same rows and indexes; it may have been measured again."""
        self.entry = entry

    def chosen(self, params: SearchParams) -> SearchParams | None:
        """Return the params of a search here; of one that asks for a recall, those that reached it when measured.

        Returns:
            None where none that were measured reached it, so that only an exact scan does.
        """
        if not params.recall or self.kind == Flat.name:
            return params
        index = self.entry.indexes[self.field.name]
        point = find_point(index.recalls, params.recall, params.candidates)
        return None if point is None else index_kind(index.kind).at(point, params.candidates, index.params)

    def allowed(self, deleted: DeletedRows, condition: Filter | None = None) -> AllowedRows:
        """Return the rows that are not deleted and that a filter allows; those of the last filters are kept.

        Raises:
            IndexCorrupt: as the filter raised.
        """
        return self.narrowed(deleted, condition).allowed

    def narrowed(self, deleted: DeletedRows, condition: Filter | None) -> Narrowed:
        """Return the segment narrowed to the rows that are not deleted and that a filter allows.

        Raises:
            IndexCorrupt: as the filter raised.
        """
        narrowed = self._kept.get(_key(deleted, condition))
        narrowed.evaluate(lambda: self._mask(deleted, condition))
        return narrowed

    def keeps(self, deleted: DeletedRows, condition: Filter | None) -> bool:
        """Say whether the mask of these rows was kept from an earlier search."""
        return _key(deleted, condition) in self._kept

    @property
    def kept_bytes(self) -> int:
        """What it keeps in memory of past filters and deletes, beside rows and index; at most about its rows' size."""
        return self._kept.nbytes + self.whole.nbytes

    def trim(self) -> None:
        """Forget filters and deletes used long ago, as far as they exceed their budget."""
        self._kept.trim()

    def forget(self) -> None:
        """Forget all filters and deletes; searches that use them go on."""
        self._kept.clear()
        self.whole.forget()

    def _mask(self, deleted: DeletedRows, condition: Filter | None) -> Mask:
        if condition is None:
            return ~deleted.mask(len(self.rows))
        if len(deleted):
            # The filter's own mask is kept apart: it stays right when the next version deletes further rows.
            return self.allowed(NONE_DELETED, condition).mask & ~deleted.mask(len(self.rows))
        return condition.mask(self.rows.filtered_column, len(self.rows))


def _key(deleted: DeletedRows, condition: Filter | None) -> tuple[str, str | None]:
    return deleted.key, None if condition is None else condition.key


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRows:
    """The rows and keys of a segment in its folder, before its indexes.

    Attributes:
        cells: by which the rows are sorted; None where they are not.
        sorted_by: the field that the cells are of.
    """

    rows: int
    rows_path: Path
    keys_path: Path
    key_min: int | str
    key_max: int | str
    cells: Cells | None
    sorted_by: str | None


def build_segment(table: pa.Table, schema: Schema, folder: Path, *, threads: int, indexed: bool = True) -> BuiltSegment:
    """Write the files of a segment into a folder: rows, keys, and the index of each vector field.

    The rows are sorted by the cells of the first IVF_FLAT field, which takes a copy of the table for a moment. Indexes
    are built one after the other over the rows as mapped from the file just written; so the peak is about the table
    and the larger of its copy and one index.

    Args:
        table: the columns `id` (int64 or string), every vector field (FixedSizeList<float32>[dim]) and every scalar
            field (a type that it can hold, `scalars.py`); others are left out.
        folder: empty, the caller's to remove.
        threads: of the index builds. HNSW differs from build to build with more than one.
        indexed: False leaves all fields FLAT and the rows in their order, whatever the schema declares.

    Raises:
        InvalidArgument: a column is missing or of another type; a null, NaN or infinity; a primary key is there twice.
    """
    built = schema if indexed else _without_indexes(schema)
    written = write_sorted_rows(take_columns(table, schema), built, folder, threads=threads)
    return build_indexes(written, built, folder, threads=threads)


def write_sorted_rows(columns: Rows, schema: Schema, folder: Path, *, threads: int) -> WrittenRows:
    """Write the rows and keys of a segment, sorted by the cells of the first IVF_FLAT field.

    Raises:
        InvalidArgument: a primary key is there twice.
    """
    rows_path, keys_path = folder / "rows.arrow", folder / "keys.arrow"
    sorted_by, cells = _cells_to_sort_by(columns, schema, threads=threads)
    write_rows(rows_path, columns, None if cells is None else cells.order)
    key_min, key_max = write_keys(keys_path, open_rows(rows_path, len(columns), schema))
    return WrittenRows(
        rows=len(columns),
        rows_path=rows_path,
        keys_path=keys_path,
        key_min=key_min,
        key_max=key_max,
        cells=cells,
        sorted_by=sorted_by,
    )


def build_indexes(
    written: WrittenRows,
    schema: Schema,
    folder: Path,
    *,
    threads: int,
    on_rows: Callable[[int], None] = no_report,
) -> BuiltSegment:
    """Build the index of each vector field over the rows as mapped from their file.

    Args:
        on_rows: told now and then how many rows are done; of several fields, on average.
    """
    rows, mapped = map_rows(written.rows_path, written.rows, schema)
    fields = len(schema.vector_fields)
    indexes = {}

    def release() -> None:
        mapped.madvise(mmap.MADV_DONTNEED)  # else the rows count as this process's memory beside the index

    def report(before: int, done: int) -> None:
        release()
        on_rows((before + done) // fields)

    for number, field in enumerate(schema.vector_fields):
        vectors = rows.vectors(field.name)
        if written.cells is not None and field.name == written.sorted_by:
            built = build_on_cells(written.cells.of_sorted_rows(), vectors, field, folder)
        else:
            built = index_kind(field.index.kind).build(
                vectors, field, folder, threads=threads, seed=_SEED, on_rows=partial(report, number * written.rows)
            )
        if len(vectors) >= FEWEST_ROWS and not index_kind(built.kind).measures_itself:
            recalls = measure_index(built, vectors, field, folder, threads=threads, on_read=release)
            built = replace(built, recalls=recalls)
        indexes[field.name] = built
        release()
    return BuiltSegment(
        rows=written.rows,
        rows_path=written.rows_path,
        keys_path=written.keys_path,
        key_min=written.key_min,
        key_max=written.key_max,
        indexes=indexes,
    )


def measure_index(
    index: BuiltIndex,
    vectors: FloatMatrix,
    field: VectorField,
    folder: Path,
    *,
    queries: FloatMatrix | None = None,
    threads: int,
    on_read: Callable[[], None] = lambda: None,
) -> RecallTable:
    """Measure the recall of a built index that is not FLAT.

    Args:
        vectors: all rows of the segment.
        folder: where an HNSW graph is built again, to hold rows out of it, unless there are queries.
        queries: None takes rows of the segment.
        on_read: as for `measure`.
    """
    kind = index_kind(index.kind)
    if queries is None and kind.measures_itself:
        return kind.build(vectors, field, folder, threads=threads, seed=_SEED).recalls
    held = held_out(len(vectors), seed=_SEED)
    asked = Queries(vectors=vectors[held], rows=held) if queries is None else Queries(vectors=queries)
    data = None if index.path is None else map_file(index.path)
    opened = kind.open(data, index.params, vectors, field.metric)
    return measure(kind, opened, vectors, field, asked, threads=threads, on_read=on_read)


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
                unbuildable=index.unbuildable,
                recalls=dict(index.recalls),
            )
            for name, index in built.indexes.items()
        },
    )


def open_segment(entry: SegmentEntry, field: VectorField, rows: Rows, index_file: Buffer | None) -> Segment:
    """Open the index of one field over opened rows.

    Args:
        index_file: the verified copy of the index's blob, mapped; None when the entry names none.

    Raises:
        IndexCorrupt: the index contradicts the rows or the manifest.
    """
    index = entry.indexes[field.name]
    opened = index_kind(index.kind).open(index_file, index.params, rows.vectors(field.name), field.metric)
    return Segment(entry=entry, field=field, rows=rows, index=opened)


def _without_indexes(schema: Schema) -> Schema:
    fields = (msgspec.structs.replace(field, index=IndexSpec(kind=Flat.name)) for field in schema.vector_fields)
    return msgspec.structs.replace(schema, vector_fields=tuple(fields))


def _cells_to_sort_by(rows: Rows, schema: Schema, *, threads: int) -> tuple[str | None, Cells | None]:
    """Return the first IVF_FLAT field and its cells, None where the rows are too few to have any."""
    for field in schema.vector_fields:
        if field.index.kind == IvfFlat.name:
            nlist = field.index.params["nlist"]
            vectors = rows.vectors(field.name)
            return field.name, train_cells(vectors, field.metric, nlist, threads=threads, seed=_SEED)
    return None, None


def _put_file(store: BlobStore, collection_id: str, path: Path) -> BlobRef:
    # Not closed here: a put that failed leaves views of it in its traceback, and closing would hide its error.
    return put_blob(store, collection_id, map_file(path))
