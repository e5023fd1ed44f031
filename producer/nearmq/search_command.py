"""`nearmq search COLLECTION QUERIES`: a file of queries in, a table, JSON Lines or Parquet of hits out."""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from io import BytesIO
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nearmq.cli import ExitCode
from nearmq.collection import DEFAULT_LIMIT, Collection, SearchOptions
from nearmq.command_options import (
    DEFAULT_URL,
    AsJsonLines,
    Expr,
    OutputFields,
    Partitions,
    Timeout,
    Url,
    connected,
)
from nearmq.errors import InvalidArgument, NearmqError
from nearmq.jobs import FloatMatrix
from nearmq.printing import progress_bar
from nearmq.results import SearchResults
from nearmq.search_output import hits_writer

#: Jobs published ahead of the one whose hits are written next.
_JOBS_AHEAD = 16


def search(
    collection: Annotated[str, typer.Argument(help="The collection to search.")],
    queries: Annotated[Path, typer.Argument(help="A .npy matrix of shape (queries, dim); - reads it from stdin.")],
    *,
    url: Url = DEFAULT_URL,
    limit: Annotated[int, typer.Option("--limit", "-k", min=1, help="Neighbours a query.")] = DEFAULT_LIMIT,
    field: Annotated[str | None, typer.Option(help="The vector field, where there are several.")] = None,
    metric_type: Annotated[
        str | None, typer.Option(help="L2, IP or COSINE; an error unless it is the field's.")
    ] = None,
    param: Annotated[list[str] | None, typer.Option(help="A search parameter, such as ef=128 or nprobe=32.")] = None,
    partition: Partitions = None,
    expr: Expr = None,
    output_field: OutputFields = None,
    job_queries: Annotated[int, typer.Option(min=1, max=16_384, help="Queries a job.")] = 256,
    timeout: Timeout = 30.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to this file: Parquet where it ends in .parquet, else JSON Lines."),
    ] = None,
    as_json: AsJsonLines = False,
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
        connected(url, collection, timeout_s=timeout) as client,
        hits_writer(client.collection(collection), options, output, as_json=as_json) as write,
        progress_bar() as progress,
    ):
        bar = progress.add_task("searching", total=len(matrix))
        for start, size, outcome in _outcomes(client.collection(collection), matrix, job_queries, options):
            if isinstance(outcome, SearchResults):
                for number, hits in enumerate(outcome, start):
                    write(number, hits, outcome.version)
            else:
                failures.append((start, size, outcome))
            progress.advance(bar, size)
        if failures and sum(size for _, size, _ in failures) == len(matrix):
            raise failures[0][2]
    for start, size, error in failures:
        sys.stderr.write(f"error: queries {start} to {start + size - 1}: {error.code}: {error.message}\n")
    if failures:
        raise typer.Exit(ExitCode.PART_FAILED)


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
