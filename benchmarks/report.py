"""Fills the documentation from a run: `python -m benchmarks.report`, after `make bench`.

Several runs of some parts each may be named, the newest last.

In the pages of docs/ and in README.md here, the lines between `<!-- bench: NAME -->` and `<!-- end -->` become the
table of that name, or what the run was made with where NAME is `run`. What the run did not measure stays as it is. The
run's plots are drawn into docs/plots/.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks import plots, printing
from benchmarks.data import ROOT
from benchmarks.findings import Circumstances, Run, Table

_PLACE = re.compile(r"(<!-- bench: (?P<name>[a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL | re.IGNORECASE)


def main() -> int:
    """Fill every page that has a place for something of the run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, default=[ROOT / "out" / "bench.json"], metavar="RUN")
    parser.add_argument("--note", default="", help="a sentence on what the figures suffer from, put after the run's")
    options = parser.parse_args()
    runs = [msgspec.json.decode(path.read_bytes(), type=Run) for path in options.runs]
    run = Run(
        circumstances=runs[-1].circumstances,
        parts={name: findings for run in runs for name, findings in run.parts.items()},
    )
    texts = texts_of(run, options.note)
    for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]:
        before = page.read_text()
        after = filled(before, texts)
        if after != before:
            page.write_text(after)
            sys.stdout.write(f"filled {page.relative_to(ROOT)}\n")
    folder = ROOT / "docs" / "plots"
    folder.mkdir(exist_ok=True)
    for findings in run.parts.values():
        for plot in findings.plots:
            sys.stdout.write(f"drew {plots.draw(plot, folder).relative_to(ROOT)}\n")
    return 0


def texts_of(run: Run, note: str = "") -> dict[str, str]:
    """Return what each place is filled with, by its name."""
    tables = [table for findings in run.parts.values() for table in findings.tables]
    if run.circumstances.is_full:  # at other sizes the bounds say nothing
        tables.append(printing.measures_table(run))
    texts = {table.name.lower(): markdown(table) for table in tables}
    return texts | {"run": _sentence(run.circumstances, note)}


def filled(page: str, texts: Mapping[str, str]) -> str:
    """Return a page with its places filled."""

    def fill(place: re.Match[str]) -> str:
        text = texts.get(place["name"].lower())
        return place[0] if text is None else f"{place[1]}{text}{place[3]}"

    return _PLACE.sub(fill, page)


def markdown(table: Table) -> str:
    """Write a table with its title above it."""
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    rows = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    return f"\n{table.title}:\n\n{rows}\n"


def _sentence(run: Circumstances, note: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    minutes = run.seconds / 60
    made = f"{run.date}, {run.scale}, {minutes:.0f} minutes, at {run.commit}: {run.machine}; {versions}."
    return f"\n{made} {note}".rstrip() + "\n\n"


if __name__ == "__main__":
    sys.exit(main())
