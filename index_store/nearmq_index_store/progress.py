"""How far a long run is: a bar on a terminal, else a line every 10 s; always on stderr."""

import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

#: Between two lines where stderr is no terminal.
_LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class _State:
    stage: str
    done: int
    total: int


class ProgressDisplay:
    """Shows the last state it was told, from entering to leaving; `unit` is what is counted, such as rows."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._state = _State("starting", 0, 0)
        self._started_s = time.monotonic()
        # Not the console's own idea of a terminal: FORCE_COLOR would make a bar of a log file.
        self._bar = _bar(unit) if sys.stderr.isatty() else None
        self._task = self._bar.add_task(self._state.stage, total=None, rate="") if self._bar is not None else None
        self._stop = threading.Event()
        self._lines = threading.Thread(target=self._write_lines, daemon=True, name="nearmq-progress")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        else:
            self._lines.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._bar is not None:
            self._bar.stop()
        else:
            self._lines.join()

    def show(self, stage: str, done: int, total: int) -> None:
        """Take the newest state; `total` 0 is not known yet."""
        self._state = _State(stage, done, total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=stage, completed=done, total=total or None, rate=self._rate())

    def _rate(self) -> str:
        elapsed_s = max(time.monotonic() - self._started_s, 1e-3)
        return f"{self._state.done / elapsed_s:,.0f} {self._unit}/s"

    def _write_lines(self) -> None:
        while not self._stop.wait(_LINE_EVERY_S):
            state = self._state
            sys.stderr.write(
                f"{state.stage}: {state.done:,} of {state.total:,} {self._unit}, {self._rate()}{self._left()}\n"
            )

    def _left(self) -> str:
        state = self._state
        if not 0 < state.done < state.total:
            return ""
        elapsed_s = time.monotonic() - self._started_s
        return f", {elapsed_s / state.done * (state.total - state.done):,.0f} s left"


def _bar(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, {{task.fields[rate]}}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
