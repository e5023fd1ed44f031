"""`nearmq store tune`: measure again what recall the indexes of a collection reach, and draw it."""

import os
import tempfile
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from ulid import ULID

from nearmq_index_store.command_options import (
    DEFAULT_STORE,
    AsJson,
    Cache,
    CollectionName,
    DryRun,
    SigningKey,
    Store,
    hinting,
    open_catalog,
    print_answer,
)
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.errors import InvalidArgument
from nearmq_index_store.indexes.recall_table import find_point
from nearmq_index_store.progress import ProgressDisplay
from nearmq_index_store.schema import VectorField
from nearmq_index_store.search import check_queries
from nearmq_index_store.tuning import Tuned, take_over, tunable, tune

#: More of a file are passed over, evenly: they would take longer and hardly say more.
_MOST_QUERIES = 1_000

_SHOWN_RECALLS = (0.8, 0.9, 0.95, 0.99)


def tune_collection(
    collection: CollectionName,
    *,
    field: Annotated[str | None, typer.Option(help="The vector field.", show_default="the only one")] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="A .npy matrix of queries like those to come, which need not be like the rows.",
            show_default="rows that are held out; builds HNSW graphs again",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png file for the curves. Needs matplotlib.")] = None,
    threads: Annotated[
        int | None, typer.Option(envvar="NEARMQ_THREADS", min=1, help="To measure on.", show_default="cores")
    ] = None,
    workdir: Annotated[
        Path | None,
        typer.Option(help="Where a segment is fetched to, on a disk with room.", show_default="the temporary folder"),
    ] = None,
    store: Store = DEFAULT_STORE,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Measure the recall that each index reaches, and let searches that ask for a recall go by it from now on.

    Builds do the same with rows of their own; queries that differ from the rows are worth measuring with.
    """
    started_s = time.monotonic()
    catalog = open_catalog(store, cache, signing_key_file, for_writing=not dry_run)
    with hinting(catalog, collection):
        snapshot = catalog.snapshot(collection)
    vector_field = snapshot.manifest.schema.field(field)
    given = None if queries is None else _read_queries(queries, vector_field)
    drawing = None if plot is None else _pyplot()
    segments, tuned, rows = tunable(snapshot, vector_field), [], 0
    with ProgressDisplay("rows") as display:
        total = sum(entry.rows for entry in segments)
        display.show("measuring", 0, total)
        for one in tune(
            catalog,
            snapshot,
            vector_field,
            queries=given,
            folder=workdir or Path(tempfile.gettempdir()),
            threads=threads or os.cpu_count() or 1,
        ):
            tuned.append(one)
            rows += one.segment.rows
            display.show("measuring", rows, total)
    version = snapshot.manifest.version
    if tuned and not dry_run:
        intent = take_over(vector_field, {one.segment.id: one.recalls for one in tuned})
        version = catalog.commit(snapshot.manifest.collection_id, intent, job_id=str(ULID())).version
    if plot is not None:
        _draw(drawing, plot, collection, vector_field, tuned)
    answer = {
        "collection": collection,
        "field": vector_field.name,
        "index": vector_field.index.kind,
        "version": version,
        "dry_run": dry_run,
        "plot": None if plot is None else str(plot),
        "seconds": round(time.monotonic() - started_s, 3),
        "segments": [_facts(one) for one in tuned],
    }
    print_answer(answer, _text(answer, vector_field, tuned), as_json=as_json)


def _read_queries(path: Path, field: VectorField) -> FloatMatrix:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"cannot read queries from {str(path)!r} as .npy: {error}", field="queries") from None
    check_queries(field, loaded)
    chosen = loaded[:: -(-len(loaded) // _MOST_QUERIES) or 1].astype(np.float32)
    if not len(chosen) or not np.isfinite(chosen).all():
        raise InvalidArgument(f"{path}: expected at least one query, without NaN and infinity", field="queries")
    return np.ascontiguousarray(chosen)


def _facts(tuned: Tuned) -> dict[str, Any]:
    entry = tuned.segment
    curves = {
        str(limit): [{"width": point.width, "refine": point.refine, "recall": point.recall} for point in points]
        for limit, points in tuned.recalls.items()
    }
    return {"segment": entry.id, "partition": entry.partition, "rows": entry.rows, "recalls": curves}


def _text(answer: dict[str, Any], field: VectorField, tuned: Sequence[Tuned]) -> str:
    if not tuned:
        return f"nothing to measure: no segment of {answer['collection']} has an index and rows enough"
    width = _width_name(field)
    table = Table(title=f"{field.index.kind}: {width} that reaches a recall")
    for title in ("segment", "rows", "limit", *(f"{recall:g}" for recall in _SHOWN_RECALLS)):
        table.add_column(title, justify="right", no_wrap=True)
    for one in tuned:
        for limit in one.recalls:
            points = [find_point(one.recalls, recall, limit) for recall in _SHOWN_RECALLS]
            shown = [
                "exact" if point is None else f"{point.width}{f', refine {point.refine}' if point.refine else ''}"
                for point in points
            ]
            table.add_row(one.segment.id, f"{one.segment.rows:,}", f"{limit:,}", *shown)
    written = StringIO()
    Console(file=written, width=120).print(table)
    done = "measured" if answer["dry_run"] else f"version {answer['version']} goes by this"
    return f"{written.getvalue()}{done}, {answer['seconds']:,.1f} s"


def _width_name(field: VectorField) -> str:
    return "ef" if field.index.kind == "HNSW" else "nprobe"


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415  takes a second to import, and is not always there
    except ImportError:
        raise typer.BadParameter("--plot needs matplotlib: pip install matplotlib") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    return plt


def _draw(plt: Any, path: Path, collection: str, field: VectorField, tuned: Sequence[Tuned]) -> None:
    """Draw the recall of each segment over ef or nprobe, a colour a limit."""
    figure, axis = plt.subplots(figsize=(7, 4.5))
    limits = sorted({limit for one in tuned for limit in one.recalls})
    for number, limit in enumerate(limits):
        for nth, one in enumerate(tuned):
            points = sorted(one.recalls.get(limit, ()), key=lambda point: (point.refine, point.width))
            for refine in dict.fromkeys(point.refine for point in points):
                line = [point for point in points if point.refine == refine]
                label = f"limit {limit:,}{f', refine {refine}' if refine else ''}" if nth == 0 else None
                axis.plot(
                    [point.width for point in line],
                    [point.recall for point in line],
                    color=f"C{number}",
                    marker="os^Dv*"[refine.bit_length() % 6],
                    alpha=0.8,
                    label=label,
                )
    axis.set_xscale("log", base=2)
    axis.set_xlabel(_width_name(field))
    axis.set_ylabel("recall")
    axis.grid(visible=True, alpha=0.3)
    if limits:
        axis.legend()
    axis.set_title(f"{collection}, {field.name}: {field.index.kind}, {sum(one.segment.rows for one in tuned):,} rows")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
