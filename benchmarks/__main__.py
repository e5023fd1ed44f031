"""The command of `make bench`: measures, prints, and writes out/bench.json and a plot a part.

    python -m benchmarks                     # everything that has a bound or a plot; some 15 minutes
    python -m benchmarks --quick             # small sizes and generous bounds; 2 minutes, fails where one does not hold
    python -m benchmarks jobs cold_start     # these parts
    python -m benchmarks writes              # run by name only, as compaction, bulk and filtered_kinds are

Servers are found as for the tests: NEARMQ_TEST_URL and NEARMQ_TEST_REDIS_URL, else this machine's, else private ones.
"""

import argparse
import importlib
import logging
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks import circumstances, plots, printing
from benchmarks.data import ROOT
from benchmarks.findings import Findings, Run
from benchmarks.measuring import say
from benchmarks.stage import FULL, QUICK, Stage

QUICK_PARTS = ("jobs", "batches", "scaling", "cold_start", "indexes", "imports")
PARTS = ("jobs", "batches", "scaling", "cold_start", "indexes", "filters", "imports", "memory", "questions")
LONG_PARTS = ("writes", "compaction", "bulk", "filtered_kinds", "guard")


def main() -> int:
    """Run the parts; return 1 where a quick run's bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS + LONG_PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer parts, small sizes, generous bounds")
    parser.add_argument("--rounds", type=int, help="of every comparison; fewer take less time")
    parser.add_argument("--rows", type=int, help="of the synthetic data; the bounds are meant for 200,000")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for bench.json and the plots")
    options = parser.parse_args()
    names = options.parts or (QUICK_PARTS if options.quick else PARTS)
    for name in names:
        if name not in PARTS + LONG_PARTS:
            parser.error(f"no part {name!r}; there are {', '.join(PARTS + LONG_PARTS)}")
    logging.basicConfig(level=logging.CRITICAL)  # neither the embedded workers nor the peers have to tell anything
    scale = QUICK if options.quick else FULL
    scale = replace(scale, rounds=options.rounds or scale.rounds, rows=options.rows or scale.rows)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that servers are ended, too
    began = time.monotonic()
    parts: dict[str, Findings] = {}
    with Stage(scale) as stage:
        for name in names:
            parts[name] = measured(name, stage)
            made = circumstances.describe(
                f"{scale.name} run, {scale.rows:,} rows, {scale.rounds} rounds",
                is_full=scale.is_full and scale.rows >= FULL.rows,
                seconds=time.monotonic() - began,
                servers=stage.server_versions(),
            )
            run = Run(circumstances=made, parts=parts)
            write(run, options.out)  # after each part, so that a run that is interrupted leaves what it found
    printing.show_measures(run)
    failed = [measure for measure in run.measures if measure.holds(is_full=scale.is_full) is False]
    return 1 if failed and not scale.is_full else 0


def measured(name: str, stage: Stage) -> Findings:
    """Run a part, and print what it found."""
    say(f"measuring {name}")
    findings: Findings = importlib.import_module(f"benchmarks.parts.{name}").run(stage)
    printing.show(findings)
    return findings


def write(run: Run, out: Path) -> None:
    """Write the run as JSON, and its plots."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")
    for findings in run.parts.values():
        for plot in findings.plots:
            plots.draw(plot, out)


if __name__ == "__main__":
    sys.exit(main())
