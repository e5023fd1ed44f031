"""Writes that come when nobody can tell any more whether they took effect."""

import time
from uuid import UUID

import numpy as np
import pytest

from nearmq.errors import JobExpired
from nearmq.jobs import UpsertJob
from nearmq_index_store.ledger import WINDOW_S
from tests.chaos.dead_letters import dead_letters
from tests.world import amqp_world

pytestmark = [pytest.mark.broker, pytest.mark.redis]


def test_a_write_that_is_older_than_the_ledger_is_refused_and_set_aside(broker_url: str, redis_url: str):
    week_old_ms = int((time.time() - WINDOW_S - 60) * 1_000)
    job_id = str(UUID(int=week_old_ms << 80 | 0x7 << 76 | 0x2 << 62))
    with amqp_world(broker_url, redis_url) as world:
        world.client.create_collection("books", dim=2)
        job = UpsertJob(collection="books", ids=[1], vectors=np.zeros((1, 2), np.float32))
        with pytest.raises(JobExpired):
            world.client.submit(job, job_id=job_id).result()
        assert world.client.collection("books").count() == 0
        [letter] = await_dead_letters(broker_url)
        assert (letter["message_id"], letter["nearmq-reason"]) == (job_id, "JOB_EXPIRED")


def await_dead_letters(broker_url: str) -> list[dict[str, object]]:
    deadline = time.monotonic() + 10
    while not (letters := dead_letters(broker_url)):
        assert time.monotonic() < deadline, "nothing is set aside"
        time.sleep(0.05)
    return letters
