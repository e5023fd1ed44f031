"""`nearmq store compact`: merge a collection's segments and build its indexes, directly on the store."""

import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from ulid import ULID

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
from nearmq_index_store.compaction import CompactionLimits, CompactionProgress, Workplace, compact_all, rows_due
from nearmq_index_store.progress import ProgressDisplay
from nearmq_index_store.search import plan


def compact_collection(
    collection: CollectionName,
    *,
    build: Annotated[
        bool, typer.Option("--build", help="Merge all small segments, and build every index that is not built yet.")
    ] = False,
    partition: Annotated[
        list[str] | None, typer.Option(help="A partition to look at; may be repeated.", show_default="all")
    ] = None,
    segment_size: Annotated[
        str, typer.Option(help="Vectors of the largest segment; building it takes two to three times that in memory.")
    ] = "256MiB",
    threads: Threads = None,
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Where a segment is built, on a disk with room for three.", show_default="the temporary folder"
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Merge small segments where that pays, drop deleted rows from them, and build the declared indexes.

    Writes and searches go on meanwhile. Each merge is a version of its own, so what a kill interrupts is not lost.
    """
    limits = CompactionLimits(segment_bytes=read_size(segment_size))
    workplace = Workplace(folder=workdir or Path(tempfile.gettempdir()), threads=threads or os.cpu_count() or 1)
    started_s = time.monotonic()
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    summary: dict[str, Any] = {"collection": collection, "dry_run": dry_run}
    with hinting(catalog, collection), ProgressDisplay("rows") as display:

        def on_progress(progress: CompactionProgress) -> None:
            display.show(progress.stage, progress.rows, progress.total)

        if dry_run:
            snapshot = catalog.snapshot(collection)
            segments = plan(snapshot, partition)
            rows = rows_due(segments, snapshot.manifest.schema, limits, force=build)
            summary |= {"version": snapshot.manifest.version, "segments": len(segments), "rows": rows}
        else:
            done = compact_all(
                catalog,
                collection,
                limits,
                workplace,
                job_id=str(ULID()),
                partition_names=partition,
                force=build,
                on_progress=on_progress,
            )
            summary |= {
                "version": done.version,
                "segments_before": done.segments_before,
                "segments_after": done.segments_after,
                "rows": done.rows,
                "dropped": done.dropped,
                "seconds": round(time.monotonic() - started_s, 3),
            }
    print_answer(summary, _text(summary), as_json=as_json)


def _text(summary: dict[str, Any]) -> str:
    name = summary["collection"]
    if summary["dry_run"]:
        return f"would write {summary['rows']:,} rows of {name}, which has {summary['segments']:,} segments"
    segments = f"{summary['segments_before']:,} segments became {summary['segments_after']:,}"
    rows = f"{summary['rows']:,} rows written, {summary['dropped']:,} deleted rows dropped"
    return f"compacted {name}: version {summary['version']}, {segments}, {rows}, {summary['seconds']:,.1f} s"
