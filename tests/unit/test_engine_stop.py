"""What becomes of a job that still runs when its worker's time to stop is over."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearmq.amqp import Delivery
from nearmq.job_message import job_message
from nearmq.jobs import SearchJob
from nearmq.transport import Message
from nearmq_index_store import digest
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_worker.config import WorkerConfig
from nearmq_worker.engine import Engine
from tests.world import fill

ROWS, DIM = 8_192, 128


class Ends:
    """A settler that notes how each delivery ends."""

    def __init__(self) -> None:
        self.answered: list[Delivery] = []
        self.given_back: list[Delivery] = []
        self.is_any = threading.Event()

    def is_lost(self, delivery: Delivery) -> bool:
        del delivery
        return False

    def answer_all(self, answers: Iterable[tuple[Delivery, bytes]]) -> None:
        self.answered += [delivery for delivery, _ in answers]
        self.is_any.set()

    def submit(self, message: Message) -> None:
        """Nothing is to be maintained."""

    def give_back(self, delivery: Delivery) -> None:
        self.given_back.append(delivery)
        self.is_any.set()


class Slow:
    """A store whose blobs do not come until they may."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.is_asked = threading.Event()
        self.may_answer = threading.Event()

    def get(self, *arguments: Any, **options: Any) -> Any:
        if threading.current_thread().name.startswith("nearmq-fetch"):
            self.is_asked.set()
            assert self.may_answer.wait(30)
        return self._store.get(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("segments", [1, 3])  # searched by the compute thread itself, and by search threads
def test_a_job_that_outlasts_the_grace_is_left_to_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segments: int
):
    monkeypatch.setattr(digest, "RANGE_BYTES", digest.PAGE_BYTES)  # so that the rows are fetched in several ranges
    store = open_store(f"file:{tmp_path / 'store'}")
    field = VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="FLAT"))
    Catalog(store).create("books", Schema(primary_key="int64", vector_fields=(field,)), job_id="create")
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM), dtype=np.float32)
    fill(store, "books", range(ROWS), vectors, segments=segments)
    ends = Ends()
    config = WorkerConfig(store=f"file:{tmp_path / 'store'}", spool=tmp_path / "spool", name="one", grace_s=0.2)
    engine = Engine(config, ends)  # type: ignore[arg-type]  # it ends no delivery otherwise
    slow = Slow(engine._spool._files._store)
    engine._spool._files._store = slow
    job = SearchJob(collection="books", limit=1, vectors=vectors[:1])
    delivery = Delivery(message=job_message(job, reply_to="me"), generation=1, tag=1, queue="nearmq.search")
    engine.start()
    engine.take([delivery])
    assert slow.is_asked.wait(30)
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 10
    slow.may_answer.set()
    assert ends.is_any.wait(30)
    assert (ends.answered, ends.given_back) == ([], [delivery])
