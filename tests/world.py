"""A whole nearmq for a test: a client, a worker and a store, embedded or through a real broker and Redis."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from ulid import ULID

import nearmq
from nearmq.amqp import apply_topology
from nearmq.client import Client
from nearmq.job_message import job_message
from nearmq.jobs import Job, Reply
from nearmq.requests import final
from nearmq.topology import declarations
from nearmq.transport import Message
from nearmq_index_store import intents
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_worker.cache import CacheStats
from nearmq_worker.config import WorkerConfig
from nearmq_worker.embedded import EmbeddedTransport
from nearmq_worker.engine import Engine
from nearmq_worker.service import Worker


@dataclass(frozen=True)
class World:
    client: Client
    store: BlobStore
    engine: Engine

    def add(
        self,
        collection: str,
        ids: Sequence[int] | Sequence[str],
        vectors: np.ndarray | Mapping[str, np.ndarray],
        *,
        scalars: Mapping[str, Sequence[object]] | None = None,
        partition: str = "_default",
        segments: int = 1,
    ) -> None:
        """Append rows to a collection, cut into segments, as one version."""
        fill(self.store, collection, ids, vectors, scalars=scalars, partition=partition, segments=segments)

    def reply_to(self, job: Job, **properties: object) -> Reply:
        """Publish a job with other properties than the client's own, and return its reply; raises its error."""
        message = job_message(job, reply_to=self.client._transport.reply_to)
        changed = Message(**{name: getattr(message, name) for name in Message.__struct_fields__} | properties)
        return self.client._requests.submit(changed, timeout_s=30, gather=final).result()

    @property
    def catalog(self) -> Catalog:
        """The store as it is, past all that the worker remembers."""
        return Catalog(self.store)

    def cache(self) -> CacheStats:
        return self.engine._cache.stats()


def fill(
    store: BlobStore,
    collection: str,
    ids: Sequence[int] | Sequence[str],
    vectors: np.ndarray | Mapping[str, np.ndarray],
    *,
    scalars: Mapping[str, Sequence[object]] | None = None,
    partition: str = "_default",
    segments: int = 1,
) -> None:
    """Append rows to a collection, cut into segments, as one version; JSON of scalars is given as text."""
    catalog = Catalog(store)
    manifest = catalog.snapshot(collection).manifest
    by_field = vectors if isinstance(vectors, Mapping) else {manifest.schema.vector_fields[0].name: vectors}
    columns = {"id": pa.array(ids)} | {
        name: pa.FixedSizeListArray.from_arrays(pa.array(rows.astype(np.float32).ravel()), rows.shape[1])
        for name, rows in by_field.items()
    }
    columns |= {name: pa.array(values) for name, values in (scalars or {}).items()}
    table = pa.table(columns)
    entries = []
    for part in np.array_split(np.arange(len(ids)), segments):
        with tempfile.TemporaryDirectory() as folder:
            built = build_segment(table.take(pa.array(part)), manifest.schema, Path(folder), threads=1)
            entries.append(store_segment(store, manifest.collection_id, partition, built))
    catalog.append(manifest.collection_id, entries, job_id=str(ULID()), create_partitions=True)


def delete(store: BlobStore, collection: str, ids: Sequence[int] | Sequence[str]) -> None:
    """Delete the rows of a collection that have these ids, as one version."""
    Catalog(store).write(collection, [Write(job_id=str(ULID()), intent=intents.delete(ids), keys=ids)])


@contextmanager
def embedded_world(store_url: str, **settings: object) -> Iterator[World]:
    transport = EmbeddedTransport(WorkerConfig(store=store_url, name="embedded", **settings))
    with Client(transport) as client:
        client.start()
        assert transport._engine is not None
        yield World(client, open_store(store_url), transport._engine)


@contextmanager
def amqp_world(broker_url: str, store_url: str, **settings: object) -> Iterator[World]:
    apply_topology(broker_url, declarations())
    worker = Worker(WorkerConfig(url=broker_url, store=store_url, name="one", **settings))
    worker.start()
    try:
        with nearmq.connect(broker_url) as client:
            yield World(client, open_store(store_url), worker._engine)
    finally:
        worker.stop()
