"""Alternating runs, their medians, and ratios within one round, so that a machine that drifts moves both sides."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from benchmarks.findings import Spread

_BEGAN = time.monotonic()

#: Figures by name, such as "jobs/s".
Figures = Mapping[str, float]


class Samples:
    """What the runs gave, a value a round."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, run: str, figures: Figures) -> None:
        """Add a round of a run."""
        for name, value in figures.items():
            self._values.setdefault((run, name), []).append(value)

    def __contains__(self, run: str) -> bool:
        return any(known == run for known, _ in self._values)

    def median(self, run: str, name: str) -> float:
        """Return the median of a figure."""
        return statistics.median(self._values[run, name])

    def spread(self, run: str, name: str) -> Spread:
        """Return the median of a figure and its ends."""
        return spread(self._values[run, name])

    def ratio(self, name: str, ours: str, theirs: str) -> Spread:
        """Return one run's figure as a multiple of another's in the same round."""
        pairs = zip(self._values[ours, name], self._values[theirs, name], strict=True)
        return spread([mine / other for mine, other in pairs])

    def values(self, run: str, name: str) -> list[float]:
        """Return a figure, round by round."""
        return self._values[run, name]


def in_turns(rounds: int, runs: Mapping[str, Callable[[], Figures]]) -> Samples:
    """Run each once a round, every other round in the opposite order."""
    samples = Samples()
    for number in range(rounds):
        say(f"  round {number + 1} of {rounds}: {', '.join(runs)}"[:160])
        names = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in names:
            samples.add(name, runs[name]())
    return samples


def spread(values: list[float]) -> Spread:
    """Return the median and the ends of what the rounds gave."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def at_once(size: int) -> str:
    """Return the name of the figure of searches of so many queries."""
    return f"{size:,} at once"


def say(text: str) -> None:
    """Tell how far the run is, with the seconds since the program's start."""
    sys.stderr.write(f"{time.monotonic() - _BEGAN:5.0f} s {text}\n")


class Timer:
    """Seconds that passed; what every measurement takes its time from."""

    def __init__(self) -> None:
        self.seconds = 0.0


@contextmanager
def timed() -> Iterator[Timer]:
    """Measure the time of a block."""
    timer = Timer()
    began = time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - began


def rate(work: Callable[[], object], *, least_s: float, amount: float = 1) -> float:
    """Repeat work for some time, and return how much of it is done in a second."""
    done, began = 0, time.perf_counter()
    while True:
        work()
        done += 1
        elapsed = time.perf_counter() - began
        if elapsed >= least_s:
            return done * amount / elapsed
