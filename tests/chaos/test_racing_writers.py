"""Writers that race over one collection, and die at any step of a commit."""

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from nearmq_index_store.blobs import open_store
from tests.chaos.checker import check
from tests.chaos.conftest import TakeDown
from tests.chaos.effects import make_moving, write_down_effects
from tests.chaos.history import History, read_history
from tests.chaos.writer import DEATH

pytestmark = [pytest.mark.redis, pytest.mark.long]  # tests/unit/test_commit.py is quick

WRITERS = 8
WRITES = 20


def race(path: Path, store_url: str, seed: int) -> int:
    """Run all writers, each again whenever it died; return how often that was."""

    def start(number: int) -> "subprocess.Popen[bytes]":
        words = [str(path), store_url, *map(str, (number, WRITES, seed))]
        return subprocess.Popen([sys.executable, "-m", "tests.chaos.writer", *words])

    running = {number: start(number) for number in range(WRITERS)}
    deaths = 0
    while running:
        number, writer = running.popitem()
        code = writer.wait(60)
        assert code in (0, DEATH), f"writer {number} ended with {code}"
        if code == DEATH:
            deaths += 1
            running[number] = start(number)
    return deaths


def test_writers_race_and_die_at_any_step_of_a_commit(redis_url: str, tmp_path: Path, seed: int, take_down: TakeDown):
    path = tmp_path / "history.jsonl"
    job_ids = [f"writer {number} {step}" for number in range(WRITERS) for step in range(WRITES)]
    with closing(History(path, "test")) as history:
        make_moving(open_store(redis_url))
        deaths = race(path, redis_url, seed)
        write_down_effects(history, redis_url, job_ids)
    entries = list(read_history(path))
    verdict = check(entries)
    take_down("writers race and die at any step of a commit", verdict)
    assert verdict.faults == []
    assert verdict.jobs == len(job_ids)
    commits = [entry.version for entry in entries if entry.phase == "committed"]
    assert len(commits) == len(set(commits)) == len(job_ids), "one version for each write"
    assert deaths >= WRITERS, "the writers died too seldom to prove anything"
