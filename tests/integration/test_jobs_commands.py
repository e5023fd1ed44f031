"""`nearmq jobs` and `nearmq cancel`, through a real broker."""

import json
from io import StringIO
from typing import Any

import numpy as np
import pytest

from nearmq.cli import run
from nearmq.errors import Cancelled
from nearmq.jobs import UpsertJob
from nearmq_index_store.catalog import Catalog
from tests.gate import Gate
from tests.integration.peer import PATIENCE_S, eventually
from tests.world import amqp_world

pytestmark = [pytest.mark.broker, pytest.mark.redis]


def test_jobs_are_shown_and_cancelled_from_the_command_line(
    broker_url: str, redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def printed(*arguments: str, code: int = 0) -> list[dict[str, Any]]:
        assert run([*arguments, "--url", broker_url, "--json"]) == code
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    gate = Gate.at(monkeypatch, Catalog, "write")
    with amqp_world(broker_url, redis_url) as world:
        world.client.create_collection("books", dim=2, index="FLAT")
        assert printed("jobs") == []
        write = UpsertJob(collection="books", ids=[1], vectors=np.ones((1, 2), np.float32))
        futures = [world.client.submit(write, job_id="first")]
        gate.reached()
        futures += [world.client.submit(write, job_id=job_id) for job_id in ("second", "third")]
        eventually(lambda: len(world.client.jobs()) == 3, "the worker has all three")
        shown = [(job["worker"], job["job_id"], job["type"], job["state"]) for job in printed("jobs")]
        assert shown == [
            ("one", "first", "upsert", "running"),
            ("one", "second", "upsert", "waiting"),
            ("one", "third", "upsert", "waiting"),
        ]
        assert printed("jobs", "--collection", "films") == []
        assert run(["jobs", "--url", broker_url]) == 0
        assert "second" in capsys.readouterr().out
        assert printed("cancel", "second") == [{"job_id": "second", "state": "waiting"}]
        monkeypatch.setattr("sys.stdin", StringIO("first\nthird\n"))
        assert printed("cancel", "-", code=4) == [
            {"job_id": "first", "state": "writing"},
            {"job_id": "third", "state": "waiting"},
        ]
        gate.open()
        futures[0].result(PATIENCE_S)
        for future in futures[1:]:
            with pytest.raises(Cancelled):
                future.result(PATIENCE_S)
    assert run(["cancel", "first", "--url", broker_url]) == 3  # no worker is live


def test_without_a_worker_there_is_nobody_to_ask(broker_url: str, capsys: pytest.CaptureFixture[str]):
    assert run(["jobs", "--url", broker_url]) == 3
    assert "nearmq topology apply" in capsys.readouterr().err
