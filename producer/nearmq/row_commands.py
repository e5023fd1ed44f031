"""`nearmq query | get | count | delete COLLECTION`: the stored rows of a collection, read and deleted."""

import sys
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from nearmq.cli import ExitCode
from nearmq.collection import Collection
from nearmq.command_options import (
    DEFAULT_URL,
    AsJson,
    AsJsonLines,
    CollectionName,
    DryRun,
    Expr,
    Force,
    NoInput,
    Output,
    OutputFields,
    Partitions,
    Timeout,
    Url,
    confirm,
    connected,
    print_answer,
)
from nearmq.errors import InvalidArgument
from nearmq.printing import Printer, progress_bar
from nearmq.row_arguments import MAX_ROWS
from nearmq.row_results import ID, Row

#: Rows of one job of a query, and of one page of ids.
_PAGE = 1_000

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Primary keys; - reads one a line from stdin.")]


def query(
    collection: CollectionName,
    *,
    url: Url = DEFAULT_URL,
    expr: Expr = None,
    limit: Annotated[int, typer.Option("--limit", "-k", min=0, help="Rows at most; 0 is no limit.")] = 10,
    partition: Partitions = None,
    output_field: OutputFields = None,
    timeout: Timeout = 30.0,
    output: Output = None,
    as_json: AsJsonLines = False,
) -> None:
    """Show the rows for which an expression is true, ascending by id and of one version."""
    with (
        connected(url, collection, timeout_s=timeout) as client,
        Printer(output, as_json=as_json, columns=(ID,)) as printer,
        progress_bar() as progress,
    ):
        bar = progress.add_task("reading", total=limit or None)
        pages = client.collection(collection).iterate(
            expr, batch_size=_PAGE, limit=limit or None, partition_names=partition, output_fields=output_field
        )
        for rows in pages:
            for row in rows:
                printer.write(row, [row])
            progress.advance(bar, len(rows))


def get(
    collection: CollectionName,
    ids: Ids = None,
    *,
    url: Url = DEFAULT_URL,
    partition: Partitions = None,
    output_field: OutputFields = None,
    timeout: Timeout = 30.0,
    output: Output = None,
    as_json: AsJsonLines = False,
) -> None:
    """Show the rows of these ids, in their order; exits 4 when some are not there, 1 when all are not."""
    with (
        connected(url, collection, timeout_s=timeout) as client,
        Printer(output, as_json=as_json, columns=(ID,)) as printer,
    ):
        stored = client.collection(collection)
        wanted, missing = _read_ids(stored, ids or []), 0
        if not wanted:
            raise InvalidArgument("give one or more ids", field="ids")
        for page in _pages(wanted, _PAGE):
            rows = stored.get(page, output_fields=output_field, partition_names=partition)
            for row in rows:
                printer.write(row, [row])
            missing += _report_missing(page, list(rows))
    if missing:
        raise typer.Exit(ExitCode.PART_FAILED if missing < len(wanted) else ExitCode.FAILED)


def count(
    collection: CollectionName,
    *,
    url: Url = DEFAULT_URL,
    expr: Expr = None,
    partition: Partitions = None,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Count the rows, or those for which an expression is true."""
    with connected(url, collection, timeout_s=timeout) as client:
        rows = client.collection(collection).count(expr, partition_names=partition)
    print_answer({"collection": collection, "count": rows}, str(rows), as_json=as_json)


def delete(
    collection: CollectionName,
    ids: Ids = None,
    *,
    url: Url = DEFAULT_URL,
    expr: Annotated[str | None, typer.Option(help="In place of ids: the rows for which this is true.")] = None,
    partition: Annotated[str | None, typer.Option(help="From this partition only.", show_default="all")] = None,
    force: Force = False,
    no_input: NoInput = False,
    dry_run: DryRun = False,
    timeout: Timeout = 30.0,
    as_json: AsJson = False,
) -> None:
    """Delete rows, by their ids or by an expression; says how many first, and asks."""
    with connected(url, collection, timeout_s=timeout) as client:
        stored = client.collection(collection)
        wanted = _read_ids(stored, ids or [])
        if (not wanted) == (expr is None):
            raise InvalidArgument("give either ids or --expr", field="ids")
        answer: dict[str, Any] = {"collection": collection, "dry_run": dry_run}
        matching = _matching(stored, wanted, expr, partition)
        if dry_run:
            answer |= {"version": None, "deleted": matching}
        else:
            confirm(f"delete {matching:,} rows of {collection}", force=force, no_input=no_input)
            answer |= _delete(stored, wanted, expr, partition)
    verb = "would delete" if dry_run else "deleted"
    print_answer(answer, f"{verb} {answer['deleted']:,} rows of {collection}", as_json=as_json)


def _matching(stored: Collection, ids: list[Any], expr: str | None, partition: str | None) -> int:
    partitions = None if partition is None else [partition]
    if expr is not None:
        return stored.count(expr, partition_names=partitions)
    return sum(len(stored.get(page, partition_names=partitions)) for page in _pages(ids, MAX_ROWS))


def _delete(stored: Collection, ids: list[Any], expr: str | None, partition: str | None) -> dict[str, Any]:
    if expr is not None:
        results = [stored.delete(expr=expr, partition_name=partition)]
    else:
        results = [stored.delete(page, partition_name=partition) for page in _pages(ids, MAX_ROWS)]
    return {"version": results[-1].version, "deleted": sum(result.deleted for result in results)}


def _read_ids(stored: Collection, texts: list[str]) -> list[Any]:
    """Return ids as the collection has them, integers or strings."""
    ids: list[Any] = []
    for text in texts:
        ids += [line for line in sys.stdin.read().splitlines() if line] if text == "-" else [text]
    if not ids or stored.describe()["primary_key"] == "string":
        return ids
    return [_read_integer(text) for text in ids]


def _read_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidArgument(f"id {text!r:.80} is no integer, as the ids of the collection are", field="ids") from None


def _report_missing(ids: list[Any], rows: list[Row]) -> int:
    """Say on stderr which ids have no row, and return how many."""
    found = {row[ID] for row in rows}
    missing = [str(id_) for id_ in ids if id_ not in found]
    if missing:
        sys.stderr.write(f"not found: {', '.join(missing)}\n")
    return len(missing)


def _pages(ids: list[Any], size: int) -> Iterator[list[Any]]:
    source = iter(ids)
    while page := list(islice(source, size)):
        yield page
