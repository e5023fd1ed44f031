"""Queues that are deleted under workers and clients, or take no more."""

import numpy as np
import pytest

from nearmq.amqp import apply_topology
from nearmq.jobs import SearchJob
from nearmq.topology import Names, declarations
from tests.chaos.conftest import SceneOf
from tests.chaos.load import DIM
from tests.integration.peer import peer

pytestmark = [pytest.mark.broker, pytest.mark.redis]

SEARCH = Names().queue("search")


@pytest.mark.long
def test_the_search_queue_is_deleted_and_made_again(scene: SceneOf, broker_url: str):
    # The jobs in it are gone, and their clients are told by a timeout: then nothing is lost without a word.
    with scene(broker_url, jobs=400, timeout_s=15, expired=True) as stage:
        stage.load.await_burst()
        seen = len(stage.history.entries())
        with stage.fault("queue deleted"):
            with peer(broker_url) as other:
                other.channel.queue_delete(SEARCH)
            stage.await_entries("both workers told", lambda entry: entry.phase == "lost", 2, since=seen)
            apply_topology(broker_url, declarations())
        stage.await_answers(100)


@pytest.mark.long
def test_the_clients_reply_queue_is_deleted_under_it(scene: SceneOf, broker_url: str):
    with scene(broker_url, jobs=400) as stage:
        for _ in range(3):
            stage.load.await_burst()
            stage.hesitate(0.02)
            seen = len(stage.history.entries())
            with stage.fault("reply queue deleted"), peer(broker_url) as other:
                other.channel.queue_delete(stage.reply_to)
            stage.await_entries("the client back", lambda entry: entry.phase == "connected", since=seen)
            stage.await_answers(40)


@pytest.mark.long
def test_a_reply_queue_is_full(scene: SceneOf, broker_url: str):
    with scene(broker_url, jobs=400) as stage:
        with peer(broker_url) as other:
            arguments = {"x-max-length": 0, "x-overflow": "reject-publish"}
            other.channel.queue_declare("full", arguments=arguments, durable=True)
        with stage.fault("full"):
            for _ in range(50):
                vectors = stage.rng.choices(range(100), k=DIM)
                job = SearchJob(collection="still", vectors=np.array([vectors], np.float32), limit=1)
                stage.publish(job, reply_to="full")
        stage.await_answers(40)
