"""`nearmq store import`: a file of rows into a collection."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from nearmq_index_store.catalog import Catalog
from nearmq_index_store.command_options import (
    DEFAULT_STORE,
    AsJson,
    Cache,
    CollectionName,
    DryRun,
    SigningKey,
    Store,
    Threads,
    hinting,
    open_catalog,
    print_answer,
    read_size,
)
from nearmq_index_store.importing import ImportOptions, Progress, check_ids, import_rows
from nearmq_index_store.manifest import DEFAULT_PARTITION
from nearmq_index_store.progress import ProgressDisplay
from nearmq_index_store.schema import Schema
from nearmq_index_store.sources import Source, SourceFile, copy_pipe, open_source
from nearmq_index_store.staging import staging_folder


def import_file(
    collection: CollectionName,
    file: Annotated[
        Path,
        typer.Argument(
            help="A .parquet, .arrow, .csv, .jsonl or .npy file, a folder of .parquet files, or - for standard input."
        ),
    ],
    *,
    partition: Annotated[str, typer.Option(help="The partition that the rows go to.")] = DEFAULT_PARTITION,
    create_partition: Annotated[
        bool, typer.Option("--create-partition", help="Make the partition when it is missing.")
    ] = False,
    ids: Annotated[
        Path | None,
        typer.Option(help="For .npy: the primary keys, in a .npy file of their own.", exists=True, dir_okay=False),
    ] = None,
    first_id: Annotated[
        int | None,
        typer.Option(help="For .npy without --ids: the first primary key; the rows are numbered.", show_default="0"),
    ] = None,
    fields: Annotated[
        Path | None,
        typer.Option(
            help="For .npy: a table of the scalar fields of the same rows in the same order, and perhaps of their ids.",
            exists=True,
        ),
    ] = None,
    segment_size: Annotated[
        str, typer.Option(help="Vectors of one segment; building it takes two to three times that in memory.")
    ] = "256MiB",
    threads: Threads = None,
    job_id: Annotated[
        str | None,
        typer.Option(
            help="Any name of this import: the same command goes on after a kill, and does nothing once it is done."
        ),
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where a segment is built, on a disk with room for one.", show_default="the temporary folder"
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add all rows of a file to a collection, in one version, or none of them.

    A table has a column `id`, one for each vector field (lists of numbers), and one for each scalar field, which a
    nullable one may lack. A .npy file is a matrix of shape (rows, dim). A key that the collection has, or that is there
    twice, is an error. Standard input is told by its first bytes. docs/bulk.md says more.
    """
    options = ImportOptions(
        partition=partition,
        create_partition=create_partition,
        segment_bytes=read_size(segment_size),
        threads=threads or os.cpu_count() or 1,
        folder=workdir or Path(tempfile.gettempdir()),
        job_id=job_id,
    )

    started_s = time.monotonic()
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    with (
        hinting(catalog, collection),
        _readable(file, options.folder) as source_file,
        ProgressDisplay("rows") as display,
    ):

        def open_file(schema: Schema) -> Source:
            return open_source(source_file, schema, ids_path=ids, first_id=first_id, fields_path=fields)

        def on_progress(progress: Progress) -> None:
            display.show(progress.stage, progress.rows, progress.total)

        if dry_run:
            rows = _check(
                catalog, collection, open_file(catalog.snapshot(collection).manifest.schema), options, display
            )
            summary: dict[str, Any] = {"rows": rows}
        else:
            imported = import_rows(catalog, collection, open_file, options, on_progress=on_progress)
            rows = imported.rows
            summary = {
                "rows": rows,
                "segments": len(imported.segments),
                "kept_segments": imported.kept,
                "is_repeat": imported.is_repeat,
                "bytes": sum(blob.bytes for entry in imported.segments for blob in entry.blobs()),
                "version": imported.version,
            }
    elapsed_s = time.monotonic() - started_s
    summary = {
        "collection": collection,
        "partition": partition,
        "file": str(file),
        "dry_run": dry_run,
        **summary,
        "seconds": round(elapsed_s, 3),
        "rows_per_s": round(rows / elapsed_s, 1),
    }
    print_answer(summary, _text(summary), as_json=as_json)


@contextmanager
def _readable(file: Path, folder: Path) -> Iterator[SourceFile]:
    """Give a file that can be read more than once."""
    if str(file) != "-":
        yield SourceFile.at(file)
        return
    with staging_folder(folder) as own_folder:
        yield copy_pipe(sys.stdin.buffer, own_folder)


def _check(catalog: Catalog, collection: str, source: Source, options: ImportOptions, display: ProgressDisplay) -> int:
    """Read and check every row of the source, and return how many there are."""
    total = len(check_ids(catalog, catalog.snapshot(collection), source, options))
    rows = 0
    for batch in source.batches():
        rows += len(batch.ids)
        display.show("checking rows", rows, total)
    return rows


def _text(summary: dict[str, Any]) -> str:
    into = f"{summary['collection']}, partition {summary['partition']}"
    if summary["dry_run"]:
        return f"would import {summary['rows']:,} rows into {into}: all are good, nothing was changed"
    if summary["is_repeat"]:
        return (
            f"imported {summary['rows']:,} rows into {into} before: version {summary['version']}, nothing was changed"
        )
    return (
        f"imported {summary['rows']:,} rows into {into}: version {summary['version']}, {summary['segments']} segments, "
        f"{summary['bytes']:,} bytes, {summary['seconds']:,.1f} s"
    )
