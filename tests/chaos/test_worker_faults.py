"""Workers that are killed, stopped, frozen, and ended by a job."""

import signal
import time

import numpy as np
import pytest

from nearmq.errors import Internal
from nearmq.jobs import SearchJob
from tests.chaos.conftest import START_S, SceneOf
from tests.chaos.load import DIM

pytestmark = [pytest.mark.broker, pytest.mark.redis]


def test_a_random_worker_is_killed_five_times(scene: SceneOf, broker_url: str):
    with scene(broker_url, workers=3, jobs=600) as stage:
        for kill in range(5):
            stage.load.await_burst(100 * (kill + 1))
            stage.hesitate()
            with stage.fault("SIGKILL"):
                stage.end(stage.rng.choice(stage.workers), signal.SIGKILL)
            stage.start_worker()


def test_workers_are_replaced_one_by_one_without_a_second_answer(scene: SceneOf, broker_url: str):
    with scene(broker_url, workers=3, jobs=600, writes=0.5, duplicates=0) as stage:
        for worker in list(stage.workers):
            stage.start_worker()
            stage.load.await_burst()
            stage.hesitate()
            with stage.fault("SIGTERM"):
                stage.end(worker, signal.SIGTERM)


def test_a_worker_is_frozen_for_over_two_heartbeats(scene: SceneOf, broker_url: str):
    with scene(broker_url, jobs=200, ways={"worker_url": f"{broker_url}?heartbeat=2"}) as stage:
        frozen = stage.rng.choice(stage.workers)
        stage.load.await_burst()
        stage.hesitate()
        seen = len(stage.history.entries())
        with stage.fault("SIGSTOP"):
            frozen.send(signal.SIGSTOP)
            time.sleep(7)  # the broker gives a connection up after two to three heartbeats
            frozen.send(signal.SIGCONT)
        for phase in ("lost", "connected"):
            stage.await_entries(
                f"both connections {phase}",
                lambda entry, phase=phase: (entry.proc, entry.phase) == (frozen.name, phase),
                2,
                since=seen,
            )
        stage.await_answers(40)
        # A stale acknowledgement would name an unknown tag, for which the broker closes the channel.
        assert "PRECONDITION_FAILED" not in frozen.log.read_text()


@pytest.mark.long
def test_a_job_takes_longer_than_heartbeats(scene: SceneOf, broker_url: str):
    ways = {"worker_url": f"{broker_url}?heartbeat=2", "worker_options": ("--threads", "1")}
    with scene(broker_url, workers=1, jobs=100, ways=ways) as stage:
        seen = len(stage.history.entries())
        query = np.full((1, DIM), 777, np.float32)
        slow = stage.load.submit(SearchJob(collection="still", vectors=query, limit=1))
        assert stage.load.futures[slow].result(60).attempt == 1
        assert not [entry for entry in stage.history.entries()[seen:] if entry.phase == "lost"]


@pytest.mark.long
def test_a_second_signal_ends_a_worker_at_once_and_its_jobs_are_done_by_others(scene: SceneOf, broker_url: str):
    with scene(broker_url, workers=1, jobs=100, recovery_s=START_S) as stage:
        query = np.full((1, DIM), 777, np.float32)
        stage.load.submit(SearchJob(collection="still", vectors=query, limit=1))
        stage.hesitate()
        with stage.fault("SIGTERM twice"):
            worker = stage.workers.pop()
            worker.send(signal.SIGTERM)
            stage.wait_for(lambda: "worker stopping" in worker.log.read_text(), "the first one heard")
            worker.send(signal.SIGTERM)
            assert worker.process.wait(5) == 128 + signal.SIGTERM
        stage.start_worker()


def test_a_job_ends_its_process(scene: SceneOf, broker_url: str):
    with scene(broker_url, workers=2, jobs=100, writes=0.1, recovery_s=START_S) as stage:
        query = np.full((1, DIM), 666, np.float32)
        poison = stage.load.submit(SearchJob(collection="still", vectors=query, limit=1))
        with stage.fault("SIGSEGV"):
            for _ in range(2):
                stage.await_death(signal.SIGSEGV)
        for _ in range(2):
            stage.start_worker()
        stage.await_dead_letter()
        error = stage.load.futures[poison].exception(60)
        assert isinstance(error, Internal)
        assert "SIGSEGV" in error.message
