"""The frame of a fault test: a scene to break things in, judged at its end; and the table of all of them."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import servers
from tests.chaos.checker import Verdict
from tests.chaos.scene import Outcome, Scene

#: Where the histories of failed runs are kept.
KEPT = Path(__file__).parents[2] / "out" / "chaos"

#: A healed connection is in use again so soon after its loss was noticed.
RECOVERY_S = 5.0
#: Where no worker is left, the first answer waits for a new process, which imports its libraries first.
START_S = 10.0

_OUTCOMES = pytest.StashKey[list[Outcome]]()

SceneOf = Callable[..., contextlib.AbstractContextManager[Scene]]
TakeDown = Callable[[str, Verdict], None]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_OUTCOMES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--seeds")))


@pytest.fixture
def scene(request: pytest.FixtureRequest, seed: int, redis_url: str) -> SceneOf:
    """`scene(broker_url, workers=3, jobs=600)`: workers and load run within; at the end everything is judged.

    Nothing may be lost, unexpected, wrong or given up, and every write took effect once. The history of a run that
    fails is kept.

    Args of the scene:
        recovery_s: within which a connection and an answer have to be there after a fault.
        expired: whether clients may have given jobs up.
        duplicates: the most second answers; None for any number.
    """

    @contextlib.contextmanager
    def run(
        broker_url: str,
        *,
        workers: int = 2,
        recovery_s: float = RECOVERY_S,
        expired: bool = False,
        duplicates: int | None = None,
        store_url: str = redis_url,
        ways: dict[str, object] | None = None,
        **load: object,
    ) -> Iterator[Scene]:
        KEPT.mkdir(parents=True, exist_ok=True)
        fault = re.sub(r"\[.*", "", request.node.name.removeprefix("test_"))
        path = KEPT / f"{fault}-{seed}-{os.getpid()}.jsonl"
        scene = Scene(path, broker_url, store_url, seed=seed, **(ways or {}))
        try:
            scene.open(workers=workers, **load)
            yield scene
            outcome = scene.close(fault.replace("_", " "), seed)
            request.config.stash[_OUTCOMES].append(outcome)
            verdict = outcome.verdict
            assert not verdict.faults, "\n".join([f"history: {path}", *verdict.faults[:20]])
            assert expired or not verdict.expired, f"{verdict.expired} jobs were given up; history: {path}"
            assert duplicates is None or verdict.duplicates <= duplicates, f"history: {path}"
            assert (verdict.recovery_s or 0) <= recovery_s, f"recovered in {verdict.recovery_s} s; history: {path}"
        except BaseException:
            scene.abandon()
            raise
        scene.abandon()
        for file in KEPT.glob(f"{path.stem}.*"):
            file.unlink()

    return run


@pytest.fixture
def take_down(request: pytest.FixtureRequest, seed: int) -> TakeDown:
    """Puts a verdict that no scene has made into the table."""

    def take(fault: str, verdict: Verdict) -> None:
        outcome = Outcome(fault=fault, seed=seed, verdict=verdict, leaked=0)
        request.config.stash[_OUTCOMES].append(outcome)

    return take


@pytest.fixture(scope="session")
def breakable_broker() -> Iterator[servers.Broker]:
    """One broker for all tests that break it: running at the start of each test, and to be left so."""
    with contextlib.closing(servers.private_broker()) as broker:
        broker.start()
        yield broker


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print a row for each fault: over all seeds, the sums and the longest recovery."""
    outcomes = config.stash[_OUTCOMES]
    if not outcomes:
        return
    columns = (
        *("runs", "jobs", "lost", "unexpected", "wrong", "duplicates", "dead", "expired", "unavailable"),
        *("recovery s", "leaked fds"),
    )
    terminalreporter.section("faults")
    width = max(len(outcome.fault) for outcome in outcomes)
    terminalreporter.write_line("  ".join(["fault".ljust(width), *columns]))
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        cells = _cells([outcome for outcome in outcomes if outcome.fault == fault])
        aligned = (str(cell).rjust(len(column)) for cell, column in zip(cells, columns, strict=True))
        terminalreporter.write_line("  ".join([fault.ljust(width), *aligned]))


def _cells(outcomes: list[Outcome]) -> list[object]:
    verdicts = [outcome.verdict for outcome in outcomes]
    return [
        len(outcomes),
        sum(verdict.jobs for verdict in verdicts),
        sum(len(verdict.lost) for verdict in verdicts),
        sum(len(verdict.unexpected) for verdict in verdicts),
        sum(len(verdict.wrong) + len(verdict.effects) for verdict in verdicts),
        sum(verdict.duplicates for verdict in verdicts),
        sum(verdict.dead for verdict in verdicts),
        sum(verdict.expired for verdict in verdicts),
        sum(verdict.unavailable for verdict in verdicts),
        f"{max(verdict.recovery_s or 0.0 for verdict in verdicts):.1f}",
        max(outcome.leaked for outcome in outcomes),
    ]
