"""A blob that is gone makes a reader look for the newest version again: the one that it reads may have been removed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ulid import ULID

from nearmq.amqp import Delivery
from nearmq.jobs import TYPE_OF, CountJob, GetJob, Job, QueryJob, Reply, SearchJob
from nearmq.transport import Message
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import BlobNotFound
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_worker.awaited import CancelledJobs
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.execute import Executor
from nearmq_worker.spool import Spool

SCHEMA = Schema(
    vector_fields=(VectorField(name="vector", dim=2, metric="L2", index=IndexSpec(kind="FLAT")),),
    scalar_fields=(ScalarField(name="year", type="int64"),),
)


class Removing:
    """A store before another, in which a blob is gone once it is asked for."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.removed: str | None = None
        self.before: Callable[[], None] = lambda: None

    def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        if key == self.removed:
            before, self.before = self.before, lambda: None
            before()
            raise BlobNotFound(key)
        return self._store.get(key, *arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path: Path) -> Removing:
    """A store with a collection of two partitions, `old` and `new`, one row each."""
    store = Removing(open_store("memory:"))
    catalog = Catalog(store)
    catalog.create("books", SCHEMA, job_id=str(ULID()))
    collection_id = catalog.snapshot("books").manifest.collection_id
    for number, partition in enumerate(("old", "new")):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array([number, 0], pa.float32()), 2)
        table = pa.table({"id": [number], "vector": vectors, "year": [2000]})
        (tmp_path / partition).mkdir()
        built = build_segment(table, SCHEMA, tmp_path / partition, threads=1)
        entry = store_segment(store, collection_id, partition, built)
        catalog.append(collection_id, [entry], job_id=str(ULID()), create_partitions=True)
        if partition == "old":
            store.removed = entry.rows_blob.key
    return store


def reply_to(store: BlobStore, folder: Path, job: Job) -> Reply:
    config = WorkerConfig(spool=folder)
    spool = Spool(store, folder, config.memory_bytes)
    executor = Executor(Catalog(store), SegmentCache(spool, config.memory_bytes), config, CancelledJobs())
    message = Message(routing_key="", type=TYPE_OF[type(job)], message_id=str(ULID()), body=b"")
    delivery = Delivery(message=message, generation=1, tag=1, queue="q")
    try:
        return executor.run([Task(delivery=delivery, job=job, deadline_ms=None, taken_at=time.monotonic())])[0]
    finally:
        executor.close()
        spool.close()


JOBS: list[Job] = [
    SearchJob(collection="books", vectors=np.zeros((1, 2), np.float32), limit=5),
    GetJob(collection="books", ids=[0, 1], output_fields=["year"]),
    QueryJob(collection="books", limit=5, output_fields=["year"]),
    CountJob(collection="books", expr="year == 2000"),
]


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_read_of_a_removed_version_is_answered_from_the_newest(store: Removing, tmp_path: Path, job: Job):
    store.before = lambda: Catalog(store).drop_partition("books", "old", job_id=str(ULID()))
    reply = reply_to(store, tmp_path, job)
    assert reply.error is None
    assert reply.version == Catalog(store).snapshot("books").manifest.version
    if isinstance(job, SearchJob):
        assert [hits.ids.tolist() for hits in reply.hits or []] == [[1]]
    else:
        assert reply.result in ({"ids": [1], "fields": {"year": [2000]}}, {"count": 1})


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_a_blob_of_the_newest_version_that_is_gone_is_corruption(store: Removing, tmp_path: Path, job: Job):
    reply = reply_to(store, tmp_path, job)
    assert reply.error is not None
    assert reply.error.code == "INDEX_CORRUPT"


def test_a_read_that_is_pinned_to_a_removed_version_is_expired(store: Removing, tmp_path: Path):
    catalog = Catalog(store)
    manifest = catalog.snapshot("books").manifest
    catalog.create_partition("books", "newer", job_id=str(ULID()))
    store.before = lambda: store.delete(f"{manifest.collection_id}/m/{manifest.version:020d}")
    job = QueryJob(collection="books", limit=5, version=manifest.version)
    reply = reply_to(store, tmp_path, job)
    assert reply.error is not None
    assert (reply.error.code, reply.error.retryable) == ("VERSION_EXPIRED", False)
