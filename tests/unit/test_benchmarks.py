"""What the benchmarks say of what they measured, and how the documentation is filled with it."""

from collections.abc import Callable

import msgspec

from benchmarks.findings import Circumstances, Findings, Measure, Run, Spread, Table
from benchmarks.measuring import in_turns
from benchmarks.report import filled, texts_of


def measure(median: float, *, side: str = "at least") -> Measure:
    spread = Spread(median=median, low=median, high=median)
    return Measure(name="of the echo", bound=0.6, guard=0.1, side=side, spread=spread)


def test_a_measure_on_the_wrong_side_of_its_bound_does_not_hold():
    assert measure(0.61).holds(is_full=True) is True
    assert measure(0.59).holds(is_full=True) is False
    assert measure(0.59).holds(is_full=False) is True
    assert measure(0.59, side="at most").holds(is_full=True) is True
    assert measure(0.61, side="at most").holds(is_full=True) is False


def test_a_measure_that_was_not_taken_or_has_no_bound_is_not_judged():
    assert Measure(name="of a peer that is missing", bound=9).holds(is_full=True) is None
    assert msgspec.structs.replace(measure(0.5), guard=None).holds(is_full=False) is None


def test_runs_take_turns_in_alternating_order_and_ratios_are_those_within_a_round():
    turns = []

    def run(name: str, figures: list[float]) -> Callable[[], dict[str, float]]:
        def measured() -> dict[str, float]:
            turns.append(name)
            return {"jobs/s": figures.pop(0)}

        return measured

    samples = in_turns(3, {"ours": run("ours", [10, 40, 9]), "theirs": run("theirs", [20, 40, 10])})
    assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert samples.ratio("jobs/s", "ours", "theirs") == Spread(median=0.9, low=0.5, high=1.0)


def test_a_page_is_filled_with_the_tables_that_a_run_has_and_keeps_the_others():
    table = Table(name="jobs", title="Jobs", columns=["system", "jobs a second"], rows=[["nearmq", "6,906"]])
    circumstances = Circumstances(
        date="2026-11-26", commit="abc", machine="2 cores", versions={"pika": "1.4"}, scale="full", is_full=True
    )
    run = Run(circumstances=circumstances, parts={"jobs": Findings(tables=[table], measures=[measure(0.5)])})
    page = "Before.\n<!-- bench: jobs -->\nold\n<!-- end -->\nafter\n<!-- bench: memory -->\nkept\n<!-- end -->\n"
    once = filled(page, texts_of(run))
    assert "| nearmq | 6,906 |" in once
    assert "old" not in once
    assert once.startswith("Before.\n<!-- bench: jobs -->\n")
    assert once.endswith("<!-- end -->\nafter\n<!-- bench: memory -->\nkept\n<!-- end -->\n")
    assert filled(once, texts_of(run)) == once
    assert "| of the echo | 0.50 | 0.50 to 0.50 | at least 0.6 | no |" in texts_of(run)["measures"]
