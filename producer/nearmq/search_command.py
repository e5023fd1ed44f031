"""`nearmq search COLLECTION QUERIES`: a file of queries in, a table or JSON Lines of hits out."""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, TextIO

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from nearmq.client import Client, connect
from nearmq.collection import DEFAULT_LIMIT, Collection, SearchOptions
from nearmq.errors import CollectionNotFound, InvalidArgument, NearmqError
from nearmq.jobs import FloatMatrix
from nearmq.results import QueryHits, SearchResults

#: Jobs published ahead of the one whose hits are written next.
_JOBS_AHEAD = 16


def search(
    collection: Annotated[str, typer.Argument(help="The collection to search.")],
    queries: Annotated[Path, typer.Argument(help="A .npy matrix of shape (queries, dim); - reads it from stdin.")],
    *,
    url: Annotated[
        str, typer.Option(envvar="NEARMQ_URL", help="amqp://…, or local:DIRECTORY for an embedded worker.")
    ] = "local:./nearmq-data",
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, help="Neighbours a query.")] = DEFAULT_LIMIT,
    field: Annotated[str | None, typer.Option(help="The vector field, where there are several.")] = None,
    metric_type: Annotated[
        str | None, typer.Option(help="L2, IP or COSINE; an error unless it is the field's.")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="A search parameter, such as ef=128 or nprobe=32.")] = None,
    partition: Annotated[list[str] | None, typer.Option(help="Only this partition; may be repeated.")] = None,
    expr: Annotated[str | None, typer.Option(help="Only rows for which this is true, such as 'year > 1990'.")] = None,
    output_field: Annotated[
        list[str] | None, typer.Option(help="A scalar field to show with each hit, * for all; may be repeated.")
    ] = None,
    job_queries: Annotated[int, typer.Option(min=1, max=16_384, help="Queries a job.")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds to wait for each job's answer.")] = 30.0,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write JSON Lines to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, one a query, instead of a table.")] = False,
) -> None:
    """Search a collection for the neighbours of each row of a matrix."""
    matrix = _read_queries(queries)
    options: SearchOptions = {
        "limit": limit,
        "field": field,
        "metric_type": metric_type,  # type: ignore[typeddict-item]  # the worker names the allowed ones
        "params": _read_params(param or []),
        "partition_names": partition,
        "expr": expr,
        "output_fields": output_field,
        "timeout_s": timeout,
    }
    failures: list[tuple[int, int, NearmqError]] = []
    with (
        connect(url, timeout_s=timeout) as client,
        _writer(output, as_json=as_json) as write,
        _progress() as progress,
    ):
        bar = progress.add_task("searching", total=len(matrix))
        for start, size, outcome in _outcomes(client.collection(collection), matrix, job_queries, options):
            if isinstance(outcome, SearchResults):
                for number, hits in enumerate(outcome, start):
                    write(number, hits)
            else:
                failures.append((start, size, outcome))
            progress.advance(bar, size)
        if failures and sum(size for _, size, _ in failures) == len(matrix):
            raise _explained(failures[0][2], client, collection)
    for start, size, error in failures:
        sys.stderr.write(f"error: queries {start} to {start + size - 1}: {error.code}: {error.message}\n")
    if failures:
        raise typer.Exit(4)


def _explained(error: NearmqError, client: Client, collection: str) -> NearmqError:
    """Add the nearest name to the error of a collection that is not there."""
    nearest = (
        get_close_matches(collection, client.list_collections(), n=1) if error.code == CollectionNotFound.code else []
    )
    return CollectionNotFound(f"{error.message}, did you mean {nearest[0]!r}", field=error.field) if nearest else error


def _outcomes(
    collection: Collection, matrix: FloatMatrix, job_queries: int, options: SearchOptions
) -> Iterator[tuple[int, int, SearchResults | NearmqError]]:
    """Search in jobs, several ahead; yield each job's first query, its size, and results or error, in order."""
    ahead: deque[tuple[int, int, Future[SearchResults]]] = deque()
    for start in range(0, len(matrix), job_queries):
        part = matrix[start : start + job_queries]
        ahead.append((start, len(part), collection.submit(part, **options)))
        if len(ahead) >= _JOBS_AHEAD:
            yield _awaited(*ahead.popleft())
    while ahead:
        yield _awaited(*ahead.popleft())


def _awaited(start: int, size: int, future: Future[SearchResults]) -> tuple[int, int, SearchResults | NearmqError]:
    try:
        return start, size, future.result()
    except NearmqError as error:
        return start, size, error


def _read_queries(path: Path) -> FloatMatrix:
    try:
        # A pipe cannot seek, which numpy wants to.
        file = BytesIO(sys.stdin.buffer.read()) if str(path) == "-" else path
        matrix = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidArgument(f"cannot read queries from {str(path)!r} as .npy: {error}", field="queries") from None
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":  # noqa: PLR2004
        raise InvalidArgument(
            f"{str(path)!r} holds {matrix.dtype} of shape {matrix.shape}, expected numbers of shape (queries, dim)",
            field="queries",
        )
    return np.ascontiguousarray(matrix, dtype=np.float32)


def _read_params(pairs: list[str]) -> dict[str, int | float]:
    params: dict[str, int | float] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidArgument(f"--param {pair!r} is not of the form name=number", field="param")
        params[name] = int(number) if number.is_integer() else number
    return params


class _writer:  # noqa: N801  a context manager that reads as a function
    """Writes hits as they come: JSON Lines to a file or stdout, or one table to stdout at the end."""

    def __init__(self, output: Path | None, *, as_json: bool) -> None:
        self._file: TextIO | None = output.open("w") if output is not None else sys.stdout if as_json else None
        self._owned = output is not None
        self._table: Table | None = None

    def __enter__(self) -> Any:
        return self._write

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._owned and self._file is not None:
            self._file.close()
        elif self._file is None and failed is None:
            Console().print(self._table or Table("query", "rank", "id", "distance"))

    def _write(self, number: int, hits: QueryHits) -> None:
        if self._file is None:
            self._table = self._table or Table("query", "rank", "id", "distance", *hits.fields)
            for rank, hit in enumerate(hits, 1):
                fields = [str(values[rank - 1]) for values in hits.fields.values()]
                self._table.add_row(str(number), str(rank), str(hit.id), f"{hit.distance:.6g}", *fields)
        else:
            line = {"query": number, "ids": hits.ids.tolist(), "distances": hits.distances.tolist()}
            if hits.fields:
                line["fields"] = hits.fields
            self._file.write(orjson.dumps(line).decode() + "\n")


def _progress() -> Progress:
    """Return a progress bar of queries on stderr, shown on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
