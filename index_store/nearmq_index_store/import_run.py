"""One run of an import: check the keys, build and store segments one at a time, commit."""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
import pyarrow as pa
from blake3 import blake3
from ulid import ULID

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument, StoreError, StoreUnavailable
from nearmq_index_store.holds import hold
from nearmq_index_store.import_job import ImportJob
from nearmq_index_store.intents import no_partition
from nearmq_index_store.keys import NewKeys
from nearmq_index_store.manifest import DEFAULT_PARTITION, Manifest, SegmentEntry, Snapshot
from nearmq_index_store.rows import take_columns
from nearmq_index_store.schema import Schema, check_name
from nearmq_index_store.segment import build_indexes, store_segment, write_sorted_rows
from nearmq_index_store.segmenting import segment_tables
from nearmq_index_store.sources import Source
from nearmq_index_store.staging import staging_folder

Stage = Literal["checking ids", "reading", "building", "storing", "committing"]

#: Waits before a step that met an unavailable store is tried again: hours of work are not thrown away for a restart.
_PATIENCE_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an import is: `rows` of `total` are indexed, `rows_per_s` since the first was read."""

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
        job_id: makes the import resumable: the same id with the same source and options goes on after a kill, and once
            done is done. None is another job each time.
    """

    partition: str = DEFAULT_PARTITION
    create_partition: bool = False
    segment_bytes: int = 256 << 20
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    job_id: str | None = None

    def __post_init__(self) -> None:
        check_name("partition", self.partition)
        for name, value in (("segment_bytes", self.segment_bytes), ("threads", self.threads)):
            if value < 1:
                raise InvalidArgument(f"{name} must be at least 1, got {value}", field=name)


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
    keys.check_absent(catalog.readers.deletes, snapshot.segments, manifest.schema.primary_key)
    return keys


class ImportRun:
    """One run of an import.

    Attributes:
        entries: the segments that are stored.
        rows: in these segments.
        kept: how many of them an earlier run had stored.
    """

    def __init__(
        self,
        catalog: Catalog,
        snapshot: Snapshot,
        source: Source,
        options: ImportOptions,
        *,
        job: ImportJob | None,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Nothing is read or written yet.

        Args:
            job: the state to go on from and to keep; None where nobody will go on.
        """
        self.entries: list[SegmentEntry] = []
        self.rows = self.kept = 0
        self._catalog = catalog
        self._snapshot = snapshot
        self._source = source
        self._options = options
        self._job = job
        self._on_progress = on_progress
        self._total = 0
        self._is_committing = False
        self._began: str | None = None
        self._started_s = time.monotonic()

    def begin(self) -> NewKeys:
        """Check the keys, and that what an earlier run stored is of the same rows."""
        keys = check_ids(self._catalog, self._snapshot, self._source, self._options, on_progress=self._on_progress)
        self._total = len(keys)
        if self._job is not None:
            facts = _facts(self._snapshot.manifest.schema, self._source, len(keys), self._options)
            self._began = self._job.begin(facts)
        return keys

    def commit(self, keys: NewKeys) -> Outcome:
        """Store all segments, and make them one version."""
        manifest = self._snapshot.manifest
        commit_id = str(ULID()) if self._job is None else self._job.commit_id
        self._started_s = time.monotonic()
        with hold(self._catalog.store, manifest.collection_id, since=self._began) as renew:
            _patiently(renew)
            self._store_segments(manifest, renew)
            self._report("committing", self.rows)
            self._is_committing = True
            return _patiently(
                lambda: self._catalog.append(
                    manifest.collection_id,
                    self.entries,
                    job_id=commit_id,
                    check_keys=lambda segments: keys.check_absent(
                        self._catalog.readers.deletes, segments, manifest.schema.primary_key
                    ),
                    create_partitions=self._options.create_partition,
                )
            )

    def give_up(self, error: BaseException) -> None:
        """Remove what was stored, unless the same job can go on from it, or a version may name it."""
        is_refused = isinstance(error, StoreError) and not isinstance(error, StoreUnavailable | IndexCorrupt)
        if is_refused or (self._job is None and not self._is_committing):
            with suppress(StoreError):
                for blob in [blob for entry in self.entries for blob in entry.blobs()]:
                    self._catalog.store.delete(blob.key)
                if self._job is not None:
                    self._job.end()

    def _store_segments(self, manifest: Manifest, renew: Callable[[], None]) -> None:
        self._report("reading", 0)
        tables = segment_tables(self._source, self._total, manifest.schema, self._options.segment_bytes)
        with staging_folder(self._options.folder) as folder:
            for number, table in enumerate(tables):
                entry = self._kept_or_stored(number, manifest, table, folder)
                self.entries.append(entry)
                self.rows += entry.rows
                self._report("reading", self.rows)
                _patiently(renew)
        if self.rows != self._total:
            raise InvalidArgument(f"{self._source.path}: expected {self._total} rows, got {self.rows}", field="file")

    def _kept_or_stored(self, number: int, manifest: Manifest, table: pa.Table, folder: Path) -> SegmentEntry:
        """Return the segment of a table: the one that an earlier run stored, or a new one."""
        job = self._job
        if job is None:
            return self._store_segment(manifest, table, folder)
        kept = _patiently(lambda: job.stored(number, self.rows, len(table)))
        if kept is not None:
            self.kept += 1
            return kept
        stored = self._store_segment(manifest, table, folder)
        return _patiently(lambda: job.keep(number, self.rows, stored))

    def _store_segment(self, manifest: Manifest, table: pa.Table, folder: Path) -> SegmentEntry:
        schema, threads = manifest.schema, self._options.threads
        with tempfile.TemporaryDirectory(dir=folder) as name:
            self._report("building", self.rows)
            written = write_sorted_rows(take_columns(table, schema), schema, Path(name), threads=threads)
            built = build_indexes(
                written,
                schema,
                Path(name),
                threads=threads,
                on_rows=lambda rows: self._report("building", self.rows + rows),
            )
            self._report("storing", self.rows + len(table))
            return _patiently(
                partial(store_segment, self._catalog.store, manifest.collection_id, self._options.partition, built)
            )

    def _report(self, stage: Stage, rows: int) -> None:
        elapsed_s = time.monotonic() - self._started_s
        rate = rows / elapsed_s if elapsed_s > 0 else 0.0
        self._on_progress(Progress(stage=stage, rows=rows, total=self._total, rows_per_s=rate))


def _facts(schema: Schema, source: Source, rows: int, options: ImportOptions) -> dict[str, str]:
    """All that decides the segments."""
    return {
        "source": source.identity,
        "rows": str(rows),
        "schema": blake3(msgspec.json.encode(schema)).hexdigest(length=8),
        "partition": options.partition,
        "segment size": str(options.segment_bytes),
    }


def _patiently(step: Callable[[], T]) -> T:
    for wait_s in _PATIENCE_S:
        with suppress(StoreUnavailable):
            return step()
        time.sleep(wait_s)
    return step()
