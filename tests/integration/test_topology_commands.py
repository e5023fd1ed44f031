"""`nearmq topology` against a real broker."""

import json

import pytest

from nearmq.amqp import check_topology
from nearmq.cli import run
from nearmq.topology import QueueLimits, declarations

pytestmark = pytest.mark.broker


def test_apply_makes_what_check_misses_and_a_dry_run_makes_nothing(broker_url: str, capsys: pytest.CaptureFixture[str]):
    assert run(["topology", "check", "--url", broker_url]) == 1
    assert "queue 'nearmq.search' is missing" in capsys.readouterr().out

    assert run(["topology", "apply", "--dry-run", "--url", broker_url]) == 0
    assert "queue 'nearmq.search' is missing" in capsys.readouterr().out
    assert len(check_topology(broker_url, declarations())) == 9

    assert run(["topology", "apply", "--url", broker_url]) == 0
    assert "in place: 5 exchanges, 4 queues, 20 bindings" in capsys.readouterr().out

    assert run(["topology", "check", "--json", "--url", broker_url]) == 0
    assert json.loads(capsys.readouterr().out) == {"problems": []}


def test_the_options_reach_the_broker(broker_url: str):
    options = ["--prefix", "acme", "--delivery-limit", "7", "--queue-bytes", "2097152", "--dead-bytes", "3145728"]
    assert run(["topology", "apply", "--url", broker_url, *options]) == 0
    limits = QueueLimits(deliveries=7, queue_bytes=2 << 20, dead_bytes=3 << 20)
    assert check_topology(broker_url, declarations("acme", limits)) == []


def test_a_limit_out_of_its_range_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert run(["topology", "show", "--delivery-limit", "2"]) == 2
    assert "deliveries is 2, allowed is 3 or more" in capsys.readouterr().err
