"""`nearmq store export`: a version of a collection, or some of its partitions, to Parquet."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from nearmq_index_store.command_options import (
    DEFAULT_STORE,
    AsJson,
    Cache,
    CollectionName,
    SigningKey,
    Store,
    hinting,
    open_catalog,
    print_answer,
    read_size,
)
from nearmq_index_store.errors import Incomplete
from nearmq_index_store.exporting import ExportOptions, export_rows
from nearmq_index_store.progress import ProgressDisplay

#: Of a command of which a part failed.
_PART_FAILED = 4


def export(
    collection: CollectionName,
    out: Annotated[Path, typer.Argument(help="A file that ends in .parquet, or a folder for several.")],
    *,
    partition: Annotated[list[str] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="The version.", show_default="the newest")] = None,
    part_size: Annotated[str, typer.Option(help="Vectors of one file of a folder.")] = "1GiB",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")] = False,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Write the rows of one version to Parquet, for `nearmq store import` and all that reads Parquet.

    A file is written whole or not at all. An export to a folder that was stopped goes on where it was, when it is
    called again: with the version that it began with, and with the files that it finished. In the end the rows of the
    files are counted; another number than the version has exits 4.
    """
    options = ExportOptions(
        partitions=tuple(sorted(set(partition))) if partition else None,
        version=version,
        part_bytes=read_size(part_size),
        replace=force,
    )
    started_s = time.monotonic()
    catalog = open_catalog(store, cache, signing_key_file)
    try:
        with hinting(catalog, collection), ProgressDisplay("rows") as display:
            exported = export_rows(
                catalog, collection, out, options, on_rows=lambda done, total: display.show("exporting", done, total)
            )
    except Incomplete as error:
        sys.stderr.write(f"error: {error.message}\n")
        raise typer.Exit(_PART_FAILED) from None
    elapsed_s = time.monotonic() - started_s
    size = sum(path.stat().st_size for path in exported.files)
    summary = {
        "collection": collection,
        "version": exported.version,
        "partitions": options.partitions,
        "out": str(out),
        "rows": exported.rows,
        "files": len(exported.files),
        "kept_files": exported.kept,
        "bytes": size,
        "seconds": round(elapsed_s, 3),
        "rows_per_s": round(exported.rows / elapsed_s, 1),
    }
    text = (
        f"exported {exported.rows:,} rows of {collection}, version {exported.version}, to {out}: "
        f"{len(exported.files)} files, {size:,} bytes, {elapsed_s:,.1f} s"
    )
    print_answer(summary, text, as_json=as_json)
