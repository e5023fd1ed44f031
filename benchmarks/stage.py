"""What the parts of a run share: servers, data, built segments, collections, and worker processes.

Each is made when a part first asks for it and lasts until the run ends. Servers are found or started as for the tests.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pika
import pyarrow as pa
import redis
from threadpoolctl import threadpool_limits
from ulid import ULID

import nearmq
from benchmarks import data
from benchmarks.data import Data
from benchmarks.measuring import say
from nearmq.amqp import apply_topology
from nearmq.client import Client
from nearmq.errors import BrokerUnavailable
from nearmq.topology import declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.blobs.chunks import chunked
from nearmq_index_store.catalog import Catalog, check_schema
from nearmq_index_store.digest import RANGE_BYTES
from nearmq_index_store.indexes.hnsw import HnswIndex
from nearmq_index_store.schema import ID_COLUMN, IndexSpec, ScalarField, Schema, VectorField
from nearmq_index_store.segment import BuiltSegment, Segment, build_segment, store_segment
from nearmq_worker.config import WorkerConfig
from nearmq_worker.embedded import EmbeddedTransport
from tests import servers
from tests.segments import open_built

#: Of every graph that is compared.
GRAPH = {"M": 16, "efConstruction": 200}

_NEARMQ = str(Path(sys.executable).parent / "nearmq")
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is measured.

    Attributes:
        is_full: whether the sizes are those that the bounds are meant for.
        rows: of the synthetic data.
        rounds: of every comparison.
        seconds: that each run of a round lasts, about.
    """

    name: str
    is_full: bool
    rows: int
    rounds: int
    seconds: float


FULL = Scale(name="full", is_full=True, rows=200_000, rounds=5, seconds=1.2)
QUICK = Scale(name="quick", is_full=False, rows=20_000, rounds=3, seconds=0.5)
#: Of the test that CI runs.
GUARD = Scale(name="guard", is_full=False, rows=10_000, rounds=3, seconds=0.5)


@dataclass(frozen=True, eq=False)
class Built:
    """A segment of all rows of some data, in a folder."""

    data: Data
    schema: Schema
    files: BuiltSegment

    @property
    def graph_path(self) -> Path:
        """The same graph as hnswlib saves it, with its vectors; written when it is first asked for."""
        path = self.files.rows_path.with_name("graph.hnswlib")
        if not path.exists():
            index = self.open().index
            assert isinstance(index, HnswIndex)
            index.save(path)
        return path

    @property
    def index_bytes(self) -> int:
        """What the index takes in memory beside the mapped rows, as the manifest says."""
        return self.files.indexes["vector"].memory_bytes

    def open(self) -> Segment:
        """Open it as a worker does; ids are the numbers of the data's rows."""
        return open_built(self.files, self.schema, self.schema.vector_fields[0])


class Stage:
    """The surroundings of one run; a context manager.

    Args:
        broker_url, store_url: of an empty virtual host and an empty database; None finds them.
    """

    def __init__(self, scale: Scale, *, broker_url: str | None = None, store_url: str | None = None) -> None:
        self.scale = scale
        self._broker_url = broker_url
        self._store_url = store_url
        self._stack = ExitStack()
        self._built: dict[tuple[str, str, str], Built] = {}
        self._collections: dict[Built, str] = {}
        self._clients: dict[tuple[int, int], nearmq.Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """A folder of the run's own."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="nearmq-bench-")))

    @cached_property
    def broker_url(self) -> str:
        """An empty virtual host."""
        return self._broker_url or self._stack.enter_context(servers.shared_broker()).take()

    @cached_property
    def store_url(self) -> str:
        """An empty database of Redis."""
        return self._store_url or self._stack.enter_context(servers.shared_redis()).url

    @cached_property
    def synth(self) -> Data:
        """The synthetic data at this scale."""
        return data.synth(self.scale.rows)

    @cached_property
    def real(self) -> Data:
        """Real data, else synthetic data of its size."""
        return data.real() or data.synth(29_000)

    def built(self, of: Data, kind: str, params: Mapping[str, int] | None = None) -> Built:
        """Build a segment of some data, on all cores."""
        key = (of.name, kind, str(params))
        if key not in self._built:
            folder = self.folder / f"segment-{len(self._built)}"
            folder.mkdir()
            say(f"  building {kind} of {of.name}")
            schema = schema_of(of, kind, params)
            files = build_segment(table_of(of), schema, folder, threads=2)
            for path in folder.iterdir():
                _write_as_spooled(path)
            self._built[key] = Built(of, schema, files)
        return self._built[key]

    def graph(self, of: Data) -> Built:
        """Build the HNSW segment that all who are compared search."""
        return self.built(of, "HNSW", GRAPH)

    def stored(self, built: Built) -> str:
        """Put a segment into Redis as a collection, and return its name."""
        if built not in self._collections:
            name = f"bench{len(self._collections)}"
            catalog = Catalog(open_store(self.store_url))
            catalog.create(name, built.schema, job_id=str(ULID()))
            collection_id = catalog.snapshot(name).manifest.collection_id
            entry = store_segment(catalog.store, collection_id, "_default", built.files)
            catalog.append(collection_id, [entry], job_id=str(ULID()), create_partitions=True)
            self._collections[built] = name
        return self._collections[built]

    def served(self, built: Built, *, workers: int = 1, threads: int = 2) -> nearmq.Collection:
        """Return a stored segment as a collection that so many workers, of so many threads each, have loaded."""
        collection = self.client(workers=workers, threads=threads).collection(self.stored(built))
        loaded = collection.load(timeout_s=_START_S)
        assert len(loaded["workers"]) == workers
        return collection

    def client(self, *, workers: int = 1, threads: int = 2) -> nearmq.Client:
        """Return a client whose jobs go to worker processes of their own."""
        key = (workers, threads)
        if key not in self._clients:
            prefix = f"bench-{workers}x{threads}"
            apply_topology(self.broker_url, declarations(prefix))
            for _ in range(workers):
                options = ("--prefix", prefix, "--threads", str(threads))
                self._stack.enter_context(worker(self.broker_url, self.store_url, *options))
            client = self._stack.enter_context(nearmq.connect(self.broker_url, prefix=prefix, timeout_s=120))
            wait_for_workers(client, workers)
            self._clients[key] = client
        return self._clients[key]

    def server_versions(self) -> dict[str, str]:
        """Return the releases of the broker and of Redis."""
        with pika.BlockingConnection(pika.URLParameters(self.broker_url)) as connection:
            properties = connection._impl.server_properties  # noqa: SLF001 - nothing public has them
        with redis.Redis.from_url(self.store_url) as server:
            return {"RabbitMQ": properties["version"], "Redis": server.info("server")["redis_version"]}


def _write_as_spooled(path: Path) -> None:
    """Write a file again as a worker's spool does, in ranges, of which some kernels keep huge pages in their cache."""
    content = path.read_bytes()
    with path.open("wb", buffering=0) as file:
        for part in chunked((content,), RANGE_BYTES):
            file.write(part)


@contextmanager
def worker(url: str, store: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker process."""
    with tempfile.TemporaryDirectory(prefix="nearmq-bench-spool-") as spool:
        command = [_NEARMQ, "worker", "run", "--url", url, "--store", store, "--spool", spool, "--log-level", "error"]
        process = subprocess.Popen([*command, *options])
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


@contextmanager
def embedded(stage: Stage, *, spool: Path | None = None, **settings: Any) -> Iterator[nearmq.Client]:
    """Run a worker in this process over the run's store, with a spool of its own unless one is given.

    As a worker process does, it keeps numpy's products to the thread that asks for them: a pool of native threads
    beside those of the worker spins and waits.
    """
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="nearmq-bench-spool-") as own:
        config = WorkerConfig(store=stage.store_url, spool=spool or Path(own), name="embedded", **settings)
        with Client(EmbeddedTransport(config), timeout_s=120) as client:
            client.start()
            yield client


def wait_for_workers(client: nearmq.Client, workers: int) -> None:
    """Wait until so many workers answer."""
    give_up_at = time.monotonic() + _START_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(BrokerUnavailable):  # nobody is there yet
            if len(client.workers()) >= workers:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{workers} workers were to answer within {_START_S:g} s")


def schema_of(of: Data, kind: str, params: Mapping[str, int] | None, *, with_scalars: bool = True) -> Schema:
    """Return the schema of a collection for some data."""
    index = IndexSpec(kind=kind, params=dict(params or {}))
    field = VectorField(name="vector", dim=of.dim, metric=of.metric, index=index)
    scalars = tuple(ScalarField(name=name, type="int64") for name in of.scalars if with_scalars)
    return check_schema(Schema(primary_key="int64", vector_fields=(field,), scalar_fields=scalars))


def table_of(of: Data) -> pa.Table:
    """Return the rows, with their numbers as ids."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(of.rows.reshape(-1)), of.dim)
    return pa.table({ID_COLUMN: np.arange(len(of.rows)), "vector": vectors, **of.scalars})
