"""`python -m tests.fuzz [TARGET …]`: look for inputs that end in anything but the error that is promised.

Each target has its time in a process of its own, since a native crash is a finding too. Where atheris is installed it
chooses the inputs, guided by coverage; else, or with --runs, they are mutants of the seeds. What atheris found worth
keeping stays in .fuzz/TARGET, and so does the input of a finding: put that into tests/fuzz/seeds/TARGET, beside the
fix and its unit test.
"""

import argparse
import importlib.util
import random
import subprocess
import sys
import time
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutating import TOKENS, mutants

if TYPE_CHECKING:
    from tests.fuzz.target import Target

GROWN = Path(__file__).parents[2] / ".fuzz"
#: A finding as well: a job must not make a worker hold more, nor take longer, by itself.
_MOST_MIB = 2_048
_MOST_S = 20

#: Until the time is over.
_WITHOUT_END = 1 << 40


def targets() -> "dict[str, Target]":
    """All targets by name; imported late, so that atheris can instrument what they import."""
    from tests.fuzz import expressions, index_files, stored, wire  # noqa: PLC0415

    all_targets = (*wire.TARGETS, *expressions.TARGETS, *stored.TARGETS, *index_files.TARGETS)
    return {target.name: target for target in all_targets}


def mutate(target: "Target", *, runs: int, seconds: float, seed: int) -> int:
    """Call a target with its seeds, then with mutants of them, and return how often it was called."""
    run, seeds, rng = target.prepare(), target.seeds(), random.Random(seed)
    last = GROWN / target.name / "last"
    last.parent.mkdir(parents=True, exist_ok=True)
    end_s, done = time.monotonic() + seconds, 0
    for data in islice(chain(seeds, mutants(seeds, rng)), len(seeds) + runs):
        if time.monotonic() > end_s:
            break
        done += 1
        last.write_bytes(data)
        run(data)
    last.unlink(missing_ok=True)
    return done


def explore(name: str, seconds: int) -> None:
    """Let atheris call a target; ends the process."""
    import atheris  # type: ignore[import-not-found]  # noqa: PLC0415  no wheel for every Python

    with atheris.instrument_imports(include=["nearmq", "nearmq_index_store", "nearmq_worker"]):
        target = targets()[name]
    grown, given = GROWN / name / "corpus", GROWN / name / "given"
    for folder in (grown, given):
        folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (given / f"seed-{number}").write_bytes(data)
    tokens = GROWN / name / "tokens"
    tokens.write_text("".join(f"{_quoted(token)}\n" for token in TOKENS))
    run = target.prepare()
    options = [
        f"-dict={tokens}",
        f"-max_total_time={seconds}",
        f"-artifact_prefix={GROWN / name}/",
        f"-rss_limit_mb={_MOST_MIB}",
        f"-timeout={_MOST_S}",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(grown), str(given)], run)
    atheris.Fuzz()


def _quoted(token: bytes) -> str:
    return '"' + "".join(rf"\x{byte:02x}" for byte in token) + '"'


def main() -> None:
    """Run targets one after the other; exits 1 when one had a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="TARGET", help="all, if none is given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, help="mutants of the seeds at most, the same each time; without atheris")
    parser.add_argument("--seed", type=int, default=0, help="of the mutants")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(targets())
    if options.inside:
        _run_inside(names, options)
        return
    own = [f"--seconds={options.seconds}", f"--seed={options.seed}"]
    own += [] if options.runs is None else [f"--runs={options.runs}"]
    # A short run saves the imports.
    failed = [each for each in ([names] if options.runs else [[name] for name in names]) if not _succeed(each, own)]
    if failed:
        sys.exit(f"findings in {', '.join(chain.from_iterable(failed))}: see above, and .fuzz/")


def _run_inside(names: list[str], options: argparse.Namespace) -> None:
    if options.runs is None and importlib.util.find_spec("atheris"):
        explore(names[0], options.seconds)
    runs = _WITHOUT_END if options.runs is None else options.runs
    for name in names:
        done = mutate(targets()[name], runs=runs, seconds=options.seconds, seed=options.seed)
        print(f"{name}: {done:,} inputs, no finding", flush=True)  # noqa: T201


def _succeed(names: list[str], options: list[str]) -> bool:
    command = [sys.executable, "-m", "tests.fuzz", *names, "--inside", *options]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    main()
