"""Ratios to what the machine does beside it: a bound that fails here means several times slower, on any machine."""

import pytest

from benchmarks.parts import guard
from benchmarks.stage import GUARD, Stage

pytestmark = [pytest.mark.broker, pytest.mark.redis]


def test_jobs_keep_up_with_an_echo_of_the_same_promises_and_with_raw_hnswlib(broker_url: str, redis_url: str):
    with Stage(GUARD, broker_url=broker_url, store_url=redis_url) as stage:
        measures = guard.run(stage).measures
    assert {measure.name: measure.spread for measure in measures if not measure.holds(is_full=False)} == {}
