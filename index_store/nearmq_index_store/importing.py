"""Rows from a file into a collection: segments one at a time, then one commit that makes all of them visible.

So memory is bounded by the size of a segment and 16 bytes a row, and a kill leaves nothing but blobs that no manifest
names, which garbage collection removes.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
from ulid import ULID

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import InvalidArgument, StoreError, StoreUnavailable
from nearmq_index_store.intents import no_partition
from nearmq_index_store.keys import NewKeys
from nearmq_index_store.manifest import DEFAULT_PARTITION, Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import MAX_ROWS
from nearmq_index_store.schema import ID_COLUMN, Schema, check_name
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_index_store.sources import Source, row_bytes
from nearmq_index_store.staging import staging_folder

Stage = Literal["checking ids", "reading", "building", "storing", "committing"]

#: Waits before a step that met an unavailable store is tried again: hours of work are not thrown away for a restart.
_PATIENCE_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

#: Arrow's offsets into the texts of a column have 32 bits.
_MOST_SCALAR_BYTES = 1 << 30

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import is: `rows` of `total` are stored, `rows_per_s` since the first was read."""

    stage: Stage
    rows: int
    total: int
    rows_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How rows are imported.

    Attributes:
        create_partition: make the partition, in the same commit, when the collection does not have it.
        segment_bytes: vectors of one segment, and scalars of one. Larger ones are searched faster and take more memory
            to build: some two to three times this.
        threads: of the index builds.
        folder: where segments are built before they are stored, on a disk: it holds one segment with its indexes.
    """

    partition: str = DEFAULT_PARTITION
    create_partition: bool = False
    segment_bytes: int = 256 << 20
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))

    def __post_init__(self) -> None:
        check_name("partition", self.partition)
        for name, value in (("segment_bytes", self.segment_bytes), ("threads", self.threads)):
            if value < 1:
                raise InvalidArgument(f"{name} must be at least 1, got {value}", field=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: the version that has the rows, and the segments that it added."""

    manifest: Manifest
    segments: tuple[SegmentEntry, ...]


def import_rows(
    catalog: Catalog,
    collection: str,
    open_file: Callable[[Schema], Source],
    options: ImportOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Imported:
    """Add all rows of a source to a collection, in one version, or none.

    Args:
        open_file: opens the source for the collection's schema.

    Raises:
        CollectionNotFound, PartitionNotFound: there is none of this name.
        InvalidArgument, DimensionMismatch: the source has a bad row, or a primary key twice.
        AlreadyExists: the collection has a primary key of the source.
        StoreUnavailable: it stayed so for a minute; whether the rows are there is unknown when it was the commit.
    """
    snapshot = catalog.snapshot(collection)
    source = open_file(snapshot.manifest.schema)
    keys = check_ids(catalog, snapshot, source, options, on_progress=on_progress)
    tally = _Tally(len(keys), on_progress)
    entries: list[SegmentEntry] = []
    try:
        for entry in _stored_segments(catalog, snapshot.manifest, source, options, tally):
            entries.append(entry)
            tally.count(entry.rows)
    except BaseException:
        _discard(catalog, entries)
        raise
    tally.report("committing")
    job_id = str(ULID())
    manifest = _patiently(
        lambda: catalog.append(
            snapshot.manifest.collection_id,
            entries,
            job_id=job_id,
            check_keys=lambda segments: keys.check_absent(
                catalog.store, segments, snapshot.manifest.schema.primary_key
            ),
            create_partitions=options.create_partition,
        )
    )
    return Imported(manifest=manifest, segments=tuple(entries))


def check_ids(
    catalog: Catalog,
    snapshot: Snapshot,
    source: Source,
    options: ImportOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> NewKeys:
    """Check before any work that the partition is there and each primary key is new; raises as `import_rows` does."""
    manifest = snapshot.manifest
    if options.partition not in manifest.partitions and not options.create_partition:
        raise no_partition(manifest, options.partition)
    on_progress(Progress(stage="checking ids", rows=0, total=0, rows_per_s=0.0))
    keys = NewKeys(source)
    keys.check_unique()
    keys.check_absent(catalog.store, snapshot.segments, manifest.schema.primary_key)
    return keys


class _Tally:
    """Counts rows and reports them."""

    def __init__(self, total: int, on_progress: Callable[[Progress], None]) -> None:
        self.total = total
        self._on_progress = on_progress
        self.rows = 0
        self._started_s = time.monotonic()

    def count(self, rows: int) -> None:
        self.rows += rows
        self.report("reading")

    def report(self, stage: Stage) -> None:
        elapsed_s = time.monotonic() - self._started_s
        rate = self.rows / elapsed_s if elapsed_s > 0 else 0.0
        self._on_progress(Progress(stage=stage, rows=self.rows, total=self.total, rows_per_s=rate))


def _stored_segments(
    catalog: Catalog, manifest: Manifest, source: Source, options: ImportOptions, tally: _Tally
) -> Iterator[SegmentEntry]:
    schema = manifest.schema
    with staging_folder(options.folder) as folder:
        tally.report("reading")
        rows = _rows_a_segment(tally.total, schema, options.segment_bytes)
        for table in _tables(source, schema, rows, min(options.segment_bytes, _MOST_SCALAR_BYTES)):
            with tempfile.TemporaryDirectory(dir=folder) as segment_folder:
                tally.report("building")
                built = build_segment(table, schema, Path(segment_folder), threads=options.threads)
                tally.report("storing")
                yield _patiently(
                    partial(store_segment, catalog.store, manifest.collection_id, options.partition, built)
                )
    if tally.rows != tally.total:
        raise InvalidArgument(f"{source.path}: expected {tally.total} rows, got {tally.rows}", field="file")


def _rows_a_segment(total: int, schema: Schema, segment_bytes: int) -> int:
    """As many rows as fit, in segments of about the same size, so that the last is not a small one."""
    most = min(max(1, segment_bytes // row_bytes(schema)), MAX_ROWS)
    segments = -(-total // most)
    return -(-total // segments)


def _tables(source: Source, schema: Schema, rows: int, scalar_bytes: int) -> Iterator[pa.Table]:
    """Gather batches into tables of this many rows, or of fewer that hold so many bytes of scalars.

    Each is valid until the next is asked for.
    """
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


def _patiently(step: Callable[[], T]) -> T:
    for wait_s in _PATIENCE_S:
        with suppress(StoreUnavailable):
            return step()
        time.sleep(wait_s)
    return step()


def _discard(catalog: Catalog, entries: list[SegmentEntry]) -> None:
    """Remove what was stored; no commit was tried, so nothing names it."""
    with suppress(StoreError):
        for entry in entries:
            for blob in entry.blobs():
                catalog.store.delete(blob.key)
