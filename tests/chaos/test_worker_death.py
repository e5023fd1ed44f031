"""What becomes of jobs whose worker dies."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pika
import pytest

import nearmq
from nearmq.amqp import apply_topology
from nearmq.topology import declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from tests.worker_process import worker_process
from tests.world import fill

pytestmark = [pytest.mark.broker, pytest.mark.redis]

JOBS = 10_000
POISON = Path(__file__).with_name("poisonous_worker.py")


def fill_collection(store_url: str, vectors: np.ndarray) -> None:
    """Make collection `c` without any worker."""
    field = VectorField(name="vector", dim=vectors.shape[1], metric="L2", index=IndexSpec(kind="FLAT"))
    store = open_store(store_url)
    Catalog(store).create("c", Schema(vector_fields=(field,)), job_id="fill")
    fill(store, "c", range(len(vectors)), vectors)


def dead_letters(broker_url: str) -> list[dict[str, object]]:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    headers = []
    while True:
        method, properties, _ = channel.basic_get("nearmq.dead", auto_ack=True)
        if method is None:
            connection.close()
            return headers
        headers.append({**properties.headers, "message_id": properties.message_id})


def test_every_one_of_10_000_jobs_is_answered_though_workers_are_killed(broker_url: str, redis_url: str):
    apply_topology(broker_url, declarations())
    vectors = np.random.default_rng(1).normal(size=(1_000, 8)).astype(np.float32)
    fill_collection(redis_url, vectors)
    with nearmq.connect(broker_url, timeout_s=240, max_pending=JOBS) as client:
        collection = client.collection("c")
        futures = [collection.submit(vectors[number % 1_000], limit=1) for number in range(JOBS)]
        for answered in (1_000, 2_500):
            with worker_process(broker_url, redis_url) as worker:
                while sum(future.done() for future in futures) < answered:
                    time.sleep(0.01)
                kill(worker)
            assert not all(future.done() for future in futures), "the worker was killed too late to prove anything"
        with worker_process(broker_url, redis_url):
            results = [future.result() for future in futures]
    assert [results[number][0].ids.tolist() for number in range(JOBS)] == [[number % 1_000] for number in range(JOBS)]
    assert max(result.attempt for result in results) > 1, "no job was taken up again after its worker died"
    assert dead_letters(broker_url) == []


def test_a_worker_that_is_told_to_stop_under_load_finishes_and_leaves_the_rest_to_others(
    broker_url: str, redis_url: str
):
    apply_topology(broker_url, declarations())
    vectors = np.random.default_rng(1).normal(size=(1_000, 8)).astype(np.float32)
    fill_collection(redis_url, vectors)
    with nearmq.connect(broker_url, timeout_s=120) as client:
        collection = client.collection("c")
        futures = [collection.submit(vectors[number % 1_000], limit=1) for number in range(5_000)]
        with worker_process(broker_url, redis_url) as worker:
            futures[100].result()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
        assert not all(future.done() for future in futures), "the worker was stopped too late to prove anything"
        with worker_process(broker_url, redis_url):
            results = [future.result() for future in futures]
    assert [results[number][0].ids.tolist() for number in range(5_000)] == [[number % 1_000] for number in range(5_000)]
    assert dead_letters(broker_url) == []


def kill(worker: "subprocess.Popen[bytes]") -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()


def test_a_job_that_ends_its_process_is_dead_lettered_and_its_neighbours_are_answered(broker_url: str, redis_url: str):
    apply_topology(broker_url, declarations())
    vectors = np.random.default_rng(1).normal(size=(100, 8)).astype(np.float32)
    program = (sys.executable, str(POISON))
    fill_collection(redis_url, vectors)
    with nearmq.connect(broker_url, timeout_s=120) as client:
        collection = client.collection("c")
        good = [collection.submit(vectors[number], limit=1) for number in range(50)]
        poison = collection.submit(np.full((1, 8), 666), limit=1, timeout_s=90)
        good += [collection.submit(vectors[number], limit=1) for number in range(50, 100)]
        deaths = 0
        deadline = time.monotonic() + 120
        letters: list[dict[str, object]] = []
        while not letters:
            assert time.monotonic() < deadline, "the poison job is not set aside"
            with worker_process(broker_url, redis_url, program=program) as worker:
                while worker.poll() is None and not letters and time.monotonic() < deadline:
                    time.sleep(0.2)
                    letters = dead_letters(broker_url)
                deaths += worker.poll() == -signal.SIGSEGV
        with worker_process(broker_url, redis_url, program=program):
            assert [future.result()[0].ids.tolist() for future in good] == [[number] for number in range(100)]
        assert deaths == 2
        assert ["SIGSEGV" in str(letter["nearmq-reason"]) for letter in letters] == [True]
        assert not poison.done()
