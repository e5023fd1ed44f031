"""A short run of every fuzz target, the same each time; `make fuzz` runs them for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz.target import Target

RUNS = 400


def test_a_short_run_of_every_target_finds_nothing():
    command = [sys.executable, "-m", "tests.fuzz", "--runs", str(RUNS), "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0].rstrip(":") for line in lines] == list(fuzz.targets())
    assert all(int(line[1].replace(",", "")) > RUNS for line in lines)


def test_a_finding_is_raised_and_its_input_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(data: bytes) -> None:
        assert b"[[" not in data, "a finding"

    monkeypatch.setattr(fuzz, "GROWN", tmp_path)
    target = Target("bad", lambda: [b'{"a": [1, 2], "b": "c"}'], lambda: run)
    with pytest.raises(AssertionError, match="a finding"):
        fuzz.mutate(target, runs=100_000, seconds=60, seed=1)
    assert b"[[" in (tmp_path / "bad" / "last").read_bytes()
