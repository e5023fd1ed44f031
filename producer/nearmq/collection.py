"""One collection as a client sees it: searches and the other jobs that name it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from nearmq.errors import InvalidArgument
from nearmq.jobs import CreateJob, DescribeJob, DropJob, ExprValue, LoadJob, Metric, ReleaseJob, Reply, SearchJob
from nearmq.results import SearchResults

if TYPE_CHECKING:
    from nearmq.client import Client

Vectors = npt.ArrayLike | Sequence[Sequence[float]]


class SearchOptions(TypedDict, total=False):
    """What a search takes beside its vectors; docs/wire.md explains each field.

    `param` is Milvus's nesting of `metric_type` and `params`; give either it or the two.
    """

    field: str | None
    limit: int
    offset: int
    param: Mapping[str, Any] | None
    params: Mapping[str, int | float] | None
    metric_type: Metric | None
    expr: str | None
    expr_params: Mapping[str, ExprValue] | None
    partition_names: Sequence[str] | None
    output_fields: Sequence[str] | None
    radius: float | None
    range_filter: float | None
    round_decimal: int
    min_version: int | None
    explain: bool
    timeout_s: float | None


#: How many neighbours a search finds when it does not say.
DEFAULT_LIMIT = 10


class Collection:
    """A collection of the client's; made by `Client.collection`, which asks no worker whether it exists."""

    def __init__(self, client: "Client", name: str) -> None:
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    def search(self, vectors: Vectors, **options: Unpack[SearchOptions]) -> SearchResults:
        """Find the rows nearest to each query and wait for the answer.

        Args:
            vectors: shape (queries, dim), or (dim,) for one query; cast to float32.
            options: `limit` (default 10), `field` (needed where the collection has several), and the rest of
                SearchOptions; `timeout_s` defaults to the client's.

        Returns:
            One `QueryHits` a query, nearest first, ties by smaller id; fewer than `limit` where there are fewer rows.

        Raises:
            NearmqError: of the code that the worker answered, or ReplyTimeout, BrokerUnavailable, QueueFull.
        """
        return self.submit(vectors, **options).result()

    def submit(self, vectors: Vectors, **options: Unpack[SearchOptions]) -> "Future[SearchResults]":
        """Publish a search and return the future of its results; arguments and errors are those of `search`."""
        timeout_s = options.get("timeout_s")
        replies = self._client.submit(self._search_job(vectors, options), timeout_s=timeout_s)
        return _mapped(replies, SearchResults)

    async def search_async(self, vectors: Vectors, **options: Unpack[SearchOptions]) -> SearchResults:
        """Search without blocking the event loop; arguments and errors are those of `search`."""
        return await asyncio.wrap_future(self.submit(vectors, **options))

    def publish(self, vectors: Vectors, *, reply_to: str, **options: Unpack[SearchOptions]) -> str:
        """Publish a search whose reply goes to a queue of the caller's, and return its job id when it is confirmed.

        `timeout_s` bounds the wait for the confirm; the job itself has no deadline.

        Args:
            vectors: as for `search`.
            reply_to: the name of an existing queue; the reply's correlation id is the job id.
            options: as for `search`.
        """
        return self._client.publish(
            self._search_job(vectors, options), reply_to=reply_to, timeout_s=options.get("timeout_s")
        )

    def load(
        self,
        partition_names: Sequence[str] | None = None,
        *,
        field: str | None = None,
        timeout_s: float | None = None,
        on_progress: Callable[[float], None] | None = None,
    ) -> dict[str, Any]:
        """Load and pin what searches of these partitions open, on every live worker, and wait until all have.

        Args:
            partition_names: only these; None for all.
            field: only this vector field; None for all.
            timeout_s: how long to wait; None for the client's default.
            on_progress: called with the mean progress of the workers, 0 to 1.

        Returns:
            `{"workers": {name: {"segments": …, "bytes": …}}}`.

        Raises:
            BrokerUnavailable: no worker is alive.
            ResourceExhausted: it does not fit into a worker's memory budget.
        """
        job = LoadJob(collection=self.name, partition_names=_listed("partition_names", partition_names), field=field)
        return self._client.broadcast(job, timeout_s=timeout_s, on_progress=on_progress)

    def release(
        self, partition_names: Sequence[str] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Unpin and free on every live worker what `load` or searches brought into memory."""
        job = ReleaseJob(collection=self.name, partition_names=_listed("partition_names", partition_names))
        return self._client.broadcast(job, timeout_s=timeout_s)

    def describe(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the collection's schema, partitions, rows, bytes and version (docs/wire.md, describe)."""
        return self._result(DescribeJob(collection=self.name), timeout_s)

    def create_partition(self, partition_name: str, *, timeout_s: float | None = None) -> int:
        """Create a partition and return the version that has it."""
        return self._version(CreateJob(collection=self.name, partition_name=partition_name), timeout_s)

    def drop_partition(self, partition_name: str, *, timeout_s: float | None = None) -> int:
        """Drop a partition with its rows and return the version that lacks it."""
        return self._version(DropJob(collection=self.name, partition_name=partition_name), timeout_s)

    def list_partitions(self, *, timeout_s: float | None = None) -> list[str]:
        """Return the partitions' names, sorted."""
        return [partition["name"] for partition in self.describe(timeout_s=timeout_s)["partitions"]]

    def _search_job(self, vectors: Vectors, options: SearchOptions) -> SearchJob:
        metric_type, params = _search_params(options)
        return SearchJob(
            collection=self.name,
            vectors=_as_queries(vectors),
            limit=options.get("limit", DEFAULT_LIMIT),
            offset=options.get("offset", 0),
            field=options.get("field"),
            metric_type=metric_type,
            params=params,
            expr=options.get("expr"),
            expr_params=dict(options.get("expr_params") or {}),
            partition_names=_listed("partition_names", options.get("partition_names")),
            output_fields=_listed("output_fields", options.get("output_fields")),
            radius=options.get("radius"),
            range_filter=options.get("range_filter"),
            round_decimal=options.get("round_decimal", -1),
            min_version=options.get("min_version"),
            explain=options.get("explain", False),
            encoding="base64",
        )

    def _result(self, job: DescribeJob | CreateJob | DropJob, timeout_s: float | None) -> dict[str, Any]:
        return self._client.submit(job, timeout_s=timeout_s).result().result or {}

    def _version(self, job: CreateJob | DropJob, timeout_s: float | None) -> int:
        version: int = self._result(job, timeout_s)["version"]
        return version


def _search_params(options: SearchOptions) -> tuple[Metric | None, dict[str, int | float]]:
    """Return metric_type and params, given flat or in Milvus's nesting."""
    param = options.get("param")
    if param is None:
        return options.get("metric_type"), dict(options.get("params") or {})
    if options.get("params") is not None or options.get("metric_type") is not None:
        raise InvalidArgument("give either param, or params and metric_type", field="param")
    unknown = sorted(set(param) - {"metric_type", "params"})
    if unknown:
        raise InvalidArgument(
            f"param has unknown key {unknown[0]!r}, it takes 'metric_type' and 'params'", field="param"
        )
    return param.get("metric_type"), dict(param.get("params") or {})


def _as_queries(vectors: Vectors) -> npt.NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # what becomes infinite is refused when the job is encoded
            queries = np.ascontiguousarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"vectors are no matrix of numbers: {error}", field="vectors") from None
    if queries.ndim == 1 and queries.size:
        queries = queries[np.newaxis]
    if queries.ndim != 2 and queries.size:  # noqa: PLR2004
        raise InvalidArgument(f"vectors have {queries.ndim} axes, expected (queries, dim)", field="vectors")
    return queries


def _listed(argument: str, names: Sequence[str] | None) -> list[str] | None:
    if isinstance(names, str):
        raise InvalidArgument(f"{argument} is the string {names!r}, expected a list of names", field=argument)
    return None if names is None else list(names)


def _mapped(replies: Future[Reply], convert: Callable[[Reply], SearchResults]) -> Future[SearchResults]:
    """Return the future of the converted reply; cancelling it cancels the reply's."""
    results: Future[SearchResults] = Future()

    def settle(done: Future[Reply]) -> None:
        if done.cancelled() or not results.set_running_or_notify_cancel():
            return
        try:
            results.set_result(convert(done.result()))
        except Exception as error:
            results.set_exception(error)

    results.add_done_callback(lambda done: replies.cancel() if done.cancelled() else None)
    replies.add_done_callback(settle)
    return results
