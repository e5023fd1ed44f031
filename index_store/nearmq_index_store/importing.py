"""Rows from a file into a collection: segments one at a time, then one commit that makes all of them visible.

So memory is bounded by the size of a segment and 16 bytes a row. A kill leaves nothing but blobs that no version names;
garbage collection removes them, unless the import has a job id and the same job goes on from them (`import_job.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.import_job import ImportJob
from nearmq_index_store.import_run import ImportOptions, ImportRun, Progress, check_ids
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources import Source, copy_table, open_source
from nearmq_index_store.staging import staging_folder

__all__ = ["ImportOptions", "Imported", "Progress", "check_ids", "import_rows", "import_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did.

    Attributes:
        version: that took the rows in.
        segments: that it added; none where the job was done before.
        kept: how many of them an earlier run of the same job had stored.
        is_repeat: whether an earlier run of the same job had done all.
    """

    version: int
    rows: int
    segments: tuple[SegmentEntry, ...] = ()
    kept: int = 0
    is_repeat: bool = False


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
        InvalidArgument, DimensionMismatch: the source has a bad row, or a primary key twice; or the job id belongs to
            an import of another source or with other options.
        AlreadyExists: the collection has a primary key of the source.
        StoreUnavailable: it stayed so for a minute; whether the rows are there is unknown when it was the commit.
    """
    snapshot = catalog.snapshot(collection)
    manifest = snapshot.manifest
    source = open_file(manifest.schema)
    job = None
    if options.job_id is not None:
        job = ImportJob(catalog, manifest.collection_id, options.job_id, source.identity)
        done = job.taken()
        if done is not None:
            job.end()
            return _repeated(done)
    run = ImportRun(catalog, snapshot, source, options, job=job, on_progress=on_progress)
    keys = run.begin()
    try:
        outcome = run.commit(keys)
    except BaseException as error:
        run.give_up(error)
        raise
    if job is not None:
        job.end()
    return Imported(version=outcome.version, rows=run.rows, segments=tuple(run.entries), kept=run.kept)


def import_table(
    catalog: Catalog,
    collection: str,
    table: Any,
    options: ImportOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Imported:
    """Add all rows of a table in memory, or of a stream of record batches, to a collection.

    It is copied to a file in `options.folder` first, since rows are read twice; raises as `import_rows` does.

    Args:
        table: any object of the Arrow PyCapsule interface, such as a frame of polars or pandas (`copy_table`).
    """
    with staging_folder(options.folder) as folder:
        file = copy_table(table, folder)
        return import_rows(
            catalog, collection, lambda schema: open_source(file, schema), options, on_progress=on_progress
        )


def _repeated(done: Outcome) -> Imported:
    if done.error is not None:
        raise done.error
    return Imported(version=done.version, rows=done.counts["rows"], is_repeat=True)
