"""Rows on stdout or in a file: a table for people, JSON Lines for programs; and progress on stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

#: Between two lines of progress where stderr is no terminal.
_LINE_EVERY_S = 10.0


class Printer:
    """Writes rows as they come: JSON Lines to a file or stdout, or one table to stdout at the end.

    Args:
        output: the file for JSON Lines; None for stdout.
        as_json: JSON Lines on stdout, not a table.
        columns: those of a table that got no row.
    """

    def __init__(self, output: Path | None, *, as_json: bool, columns: Sequence[str]) -> None:
        self._file: TextIO | None = output.open("w") if output is not None else sys.stdout if as_json else None
        self._owned = output is not None
        self._columns = columns
        self._table: Table | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, failed: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._owned and self._file is not None:
            self._file.close()
        elif self._file is None and failed is None:
            Console().print(self._table or Table(*self._columns))

    def write(self, line: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> None:
        """Write one line of JSON, or what it holds as rows of the table."""
        if self._file is not None:
            self._file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
            return
        for row in rows:
            self._table = self._table or Table(*row)
            self._table.add_row(*map(_cell, row.values()))


def progress_bar() -> Progress:
    """Return a progress bar on stderr, shown on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


@contextmanager
def counting(stage: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function to tell how many are done, and of how many: a bar on a terminal, else a line every 10 s."""
    began_s = line_s = time.monotonic()
    with progress_bar() as progress:
        bar = progress.add_task(stage)

        def show(done: int, total: int) -> None:
            nonlocal line_s
            now_s = time.monotonic()
            rate = done / max(now_s - began_s, 1e-3)
            progress.update(bar, description=f"{stage}, {rate:,.0f} {unit}/s", completed=done, total=total)
            if progress.disable and now_s - line_s >= _LINE_EVERY_S:
                line_s = now_s
                left_s = (total - done) / max(rate, 1e-3)
                sys.stderr.write(f"{stage}: {done:,} of {total:,} {unit}, {rate:,.0f} {unit}/s, {left_s:,.0f} s left\n")

        yield show


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
