"""The client: connects to a broker, or embeds a worker, and publishes jobs."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from importlib.metadata import entry_points
from types import TracebackType
from typing import Any, Self, TypeVar

from nearmq.collection import Collection, SearchOptions, Vectors
from nearmq.errors import InvalidArgument
from nearmq.gathering import Gathered
from nearmq.job_message import job_message
from nearmq.jobs import (
    CancelJob,
    CreateJob,
    DropJob,
    Job,
    ListJob,
    Metric,
    PingJob,
    RenameJob,
    Reply,
    VectorFieldSpec,
)
from nearmq.requests import Gather, Requests, final
from nearmq.results import SearchResults
from nearmq.schema import Schema
from nearmq.topology import DEFAULT_PREFIX
from nearmq.transport import Transport

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 30.0
DEFAULT_MAX_PENDING = 10_000

#: What a worker says of a job that is cancelled; of two states, the first decides what becomes of it.
_STATES = ("writing", "running", "waiting", "absent")


def connect(
    url: str | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_pending: int = DEFAULT_MAX_PENDING,
    prefix: str = DEFAULT_PREFIX,
) -> "Client":
    """Connect to a broker, or start an embedded worker.

    Args:
        url: `amqp://user:password@host:port/vhost`, with commas between several hosts of a cluster, `amqps://…`, or
            `local:DIRECTORY` for the embedded mode (needs nearmq-worker); None reads NEARMQ_URL.
        timeout_s: how long a call waits for its answer when it does not say.
        max_pending: how many jobs may await a reply; a further one waits for room.
        prefix: the first word of the exchanges' and queues' names.

    Raises:
        InvalidArgument: no url, or a scheme that no transport serves.
        BrokerUnavailable, PermissionDenied: the broker cannot be reached, or refuses; the message says why.
    """
    client = Client(
        _open_transport(url or os.environ.get("NEARMQ_URL"), prefix), timeout_s=timeout_s, max_pending=max_pending
    )
    client.start()
    return client


class Client:
    """Publishes jobs and hands out their answers; safe for many threads, closed by `close` or as a context manager."""

    def __init__(
        self, transport: Transport, *, timeout_s: float = DEFAULT_TIMEOUT_S, max_pending: int = DEFAULT_MAX_PENDING
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._requests = Requests(transport, max_pending=max_pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Connect; `connect` has done so already."""
        self._requests.start()

    def close(self) -> None:
        """Close the connection; jobs that await a reply fail with BrokerUnavailable. May come twice."""
        self._requests.stop()

    def collection(self, name: str) -> Collection:
        """Return the collection of this name, without asking whether it exists."""
        return Collection(self, name)

    def create_collection(
        self,
        name: str,
        *,
        dim: int | None = None,
        metric: Metric = "L2",
        index: str = "HNSW",
        index_params: Mapping[str, int] | None = None,
        schema: Schema | None = None,
        timeout_s: float | None = None,
    ) -> Collection:
        """Create a collection with one vector field named `vector`, or with the fields of a schema.

        Args:
            name: matches `^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$`.
            dim: dimensions of the vectors; needed unless a schema is given.
            metric: `L2`, `IP` or `COSINE`.
            index: `FLAT`, `HNSW`, `IVF_FLAT`, `IVF_SQ8` or `IVF_PQ`.
            index_params: as Milvus names them: M, efConstruction, nlist, m, nbits.
            schema: several fields, scalar fields, or string primary keys.
            timeout_s: how long to wait; None for the client's default.

        Raises:
            AlreadyExists: the name is taken.
            InvalidArgument: a name, dimension or parameter is out of its range.
        """
        if (schema is None) == (dim is None):
            raise InvalidArgument("give either dim or schema", field="dim")
        if schema is None:
            spec = VectorFieldSpec(
                name="vector", dim=dim or 0, metric_type=metric, index=index, index_params=dict(index_params or {})
            )
            schema = Schema(vector_fields=[spec])
        job = CreateJob(
            collection=name,
            vector_fields=list(schema.vector_fields),
            scalar_fields=list(schema.scalar_fields),
            primary_key=schema.primary_key,
        )
        self.submit(job, timeout_s=timeout_s).result()
        return self.collection(name)

    def drop_collection(self, name: str, *, timeout_s: float | None = None) -> None:
        """Drop a collection and its rows.

        Raises:
            CollectionNotFound: no collection has this name.
        """
        self.submit(DropJob(collection=name), timeout_s=timeout_s).result()

    def rename_collection(self, name: str, new_name: str, *, timeout_s: float | None = None) -> Collection:
        """Rename a collection and return it under its new name.

        Raises:
            CollectionNotFound, AlreadyExists: of the old name, of the new one.
        """
        self.submit(RenameJob(collection=name, new_name=new_name), timeout_s=timeout_s).result()
        return self.collection(new_name)

    def list_collections(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the collections' names, sorted."""
        reply = self.submit(ListJob(), timeout_s=timeout_s).result()
        return list((reply.result or {})["collections"])

    def workers(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return what every live worker answers to a ping: name, release, seconds since its start."""
        workers: dict[str, Any] = self.broadcast(PingJob(), timeout_s=timeout_s)["workers"]
        return workers

    def jobs(self, *, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """Return the jobs that live workers hold, running or waiting; those that wait in a queue are not among them.

        Returns:
            One dict a job, worker by worker and the oldest first: worker, job_id, type, collection (None where there is
            none), state (`running` or `waiting`), age_s since the worker took it, queries, attempt.
        """
        workers = self.broadcast(PingJob(jobs=True), timeout_s=timeout_s)["workers"]
        return [{"worker": worker, **job} for worker, told in workers.items() for job in told["jobs"]]

    def cancel(self, *job_ids: str, timeout_s: float | None = None) -> dict[str, str]:
        """Cancel jobs, whoever published them: their futures fail with `Cancelled`, unless they are done before.

        Live workers remember the ids for ten minutes: a job that still waits in a queue is answered so when one of them
        takes it.

        Returns:
            The state in which each job was: `waiting` or `running` with a worker, which ends it now; `writing`, a write
            that has begun, or a create, drop or rename, which goes on; `absent` from all live workers.

        Raises:
            BrokerUnavailable: no worker is live.
        """
        workers = self.broadcast(CancelJob(job_ids=list(job_ids)), timeout_s=timeout_s)["workers"]
        # A job that was published or delivered twice may be with several workers.
        return {
            job_id: min((told["states"][job_id] for told in workers.values()), key=_STATES.index) for job_id in job_ids
        }

    def search(
        self,
        collection_name: str,
        query_records: Vectors,
        top_k: int,
        params: Mapping[str, int | float] | None = None,
        partition_tags: Sequence[str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> SearchResults:
        """Search in Milvus 1.x's spelling; `Collection.search` says what the arguments mean."""
        options: SearchOptions = {
            "limit": top_k,
            "params": params,
            "partition_names": partition_tags,
            "timeout_s": timeout_s,
        }
        return self.collection(collection_name).search(query_records, **options)

    def submit(
        self,
        job: Job,
        *,
        timeout_s: float | None = None,
        job_id: str | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> Future[Reply]:
        """Publish any job of the wire contract and return the future of its reply, or of the exception of its code.

        Args:
            job: one of `nearmq.jobs`.
            timeout_s: the job's deadline and the future's; None for the client's default.
            job_id: the caller's, at most 128 characters, best a UUIDv7; the same id is the same job, whose effect takes
                place once.
            on_progress: called with the progress, 0 to 1, of a job that reports some; in a thread of the client's.
        """
        gather = partial(final, on_progress=on_progress)
        return self._submit(job, gather, timeout_s=timeout_s, job_id=job_id)

    def submit_as(
        self,
        convert: Callable[[Reply], T],
        job: Job,
        *,
        timeout_s: float | None = None,
        job_id: str | None = None,
    ) -> Future[T]:
        """As `submit`, with the future of what `convert` makes of the reply."""
        return self._submit(job, partial(_converted, convert), timeout_s=timeout_s, job_id=job_id)

    def publish(
        self, job: Job, *, reply_to: str | None, timeout_s: float | None = None, job_id: str | None = None
    ) -> str:
        """Publish any job whose reply goes to a queue of the caller's, and return its id once it is confirmed."""
        message = job_message(job, job_id=job_id, reply_to=reply_to)
        self._requests.publish(message, timeout_s=self._timeout_s if timeout_s is None else timeout_s)
        return message.message_id

    def broadcast(
        self, job: Job, *, timeout_s: float | None = None, on_progress: Callable[[float], None] | None = None
    ) -> dict[str, Any]:
        """Publish a job for every live worker and wait until all that answered have finished.

        Returns:
            `{"workers": {worker: its result}}`.
        """
        gathered = Gathered(on_progress)
        return gathered.wait(self._submit(job, gathered.add, timeout_s=timeout_s))

    def _submit(self, job: Job, gather: Gather[T], *, timeout_s: float | None, job_id: str | None = None) -> Future[T]:
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        message = job_message(
            job, job_id=job_id, reply_to=self._transport.reply_to, timeout_s=timeout_s, takes_bundles=True
        )
        return self._requests.submit(message, timeout_s=timeout_s, gather=gather)


def _converted(convert: Callable[[Reply], T], reply: Reply) -> T | None:
    last = final(reply)
    return None if last is None else convert(last)


def _open_transport(url: str | None, prefix: str) -> Transport:
    """Return the transport of a url's scheme, not yet started."""
    if not url:
        raise InvalidArgument(
            "no url given and NEARMQ_URL is not set, expected amqp://… or local:DIRECTORY", field="url"
        )
    scheme = url.partition(":")[0]
    if scheme in {"amqp", "amqps"}:
        from nearmq.amqp import AmqpTransport  # noqa: PLC0415  pika is not needed in embedded mode

        return AmqpTransport(url, prefix=prefix)
    adapters = {point.name: point for point in entry_points(group="nearmq.transports")}
    if scheme not in adapters:
        known = ", ".join(["amqp", "amqps", *sorted(adapters)])
        hint = "" if adapters else "; local: needs the distribution nearmq-worker"
        raise InvalidArgument(f"no transport for scheme {scheme!r}, known are {known}{hint}", field="url")
    transport: Transport = adapters[scheme].load()(url)
    return transport
