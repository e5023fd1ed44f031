"""Findings as tables on a terminal."""

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.findings import Findings, Measure, Run, Table, figure

_WIDTH = 150


def show(findings: Findings) -> None:
    """Print the tables of a part."""
    for table in findings.tables:
        _print(table)


def show_measures(run: Run) -> None:
    """Print what has to hold."""
    _print(measures_table(run))


def measures_table(run: Run) -> Table:
    """Return what has to hold, with what was measured."""
    title = f"What has to hold; {run.circumstances.scale}, {run.circumstances.date}"
    columns = ["measure", "measured", "spread", "bound", "holds", "of what"]
    return Table(
        name="measures",
        title=title,
        columns=columns,
        rows=[_row(measure, is_full=run.circumstances.is_full) for measure in run.measures],
    )


def _row(measure: Measure, *, is_full: bool) -> list[str]:
    bound = measure.bound if is_full else measure.guard
    limit = "" if bound is None else f"{measure.side} {bound:g} {measure.unit}".rstrip()
    verdict = {True: "yes", False: "no", None: "not judged"}[measure.holds(is_full=is_full)]
    if measure.spread is None:
        return [measure.name, "not measured", "", limit, verdict, measure.note]
    measured = [_write(value) for value in (measure.spread.median, measure.spread.low, measure.spread.high)]
    value = f"{measured[0]} {measure.unit}".rstrip()
    return [measure.name, value, f"{measured[1]} to {measured[2]}", limit, verdict, measure.note]


def _write(value: float) -> str:
    return f"{value:.4f}" if value and abs(value) < 0.01 else figure(value)


def _print(table: Table) -> None:
    printed = RichTable(title=table.title, title_justify="left")
    for number, column in enumerate(table.columns):
        printed.add_column(column, justify="left" if number == 0 or column == "of what" else "right")
    for row in table.rows:
        printed.add_row(*row)
    Console(width=_WIDTH).print(printed)
