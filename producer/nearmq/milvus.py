"""The spelling of Milvus's Python clients, of both generations, over nearmq.

    from nearmq.milvus import Collection, connections      # 2.x
    connections.connect(uri="amqp://guest:guest@localhost/")
    collection = Collection("books")
    collection.load()
    results = collection.search(vectors[:5], "vector", param={"metric_type": "L2", "params": {"ef": 64}}, limit=10)

    from nearmq.milvus import Milvus                        # 1.x
    milvus = Milvus(uri="amqp://guest:guest@localhost/")
    milvus.search(collection_name="books", query_records=vectors, top_k=2, params={"nprobe": 16})

Only searching and what leads to it is spelled here; rows and collections are made by nearmq's own client and commands.
Errors are nearmq's own exceptions, in both generations.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from nearmq import client as nearmq_client
from nearmq.collection import SearchOptions, Vectors
from nearmq.errors import InvalidArgument
from nearmq.jobs import ExprValue
from nearmq.results import Hit, QueryHits, SearchResults

DEFAULT_ALIAS = "default"

#: Milvus's consistency levels; each is satisfied, since a search reads what was committed before it was taken up.
CONSISTENCY_LEVELS = ("Strong", "Session", "Bounded", "Eventually")


class Connections:
    """Clients by alias; `connections` is the one that collections look their client up in."""

    def __init__(self) -> None:
        self._clients: dict[str, nearmq_client.Client] = {}

    def connect(self, alias: str = DEFAULT_ALIAS, uri: str | None = None) -> None:
        """Connect under an alias, closing what had it before; `uri` as for `nearmq.connect`."""
        client = nearmq_client.connect(uri)
        self.disconnect(alias)
        self._clients[alias] = client

    def disconnect(self, alias: str) -> None:
        """Close the alias's connection, if there is one."""
        client = self._clients.pop(alias, None)
        if client is not None:
            client.close()

    def client(self, alias: str) -> nearmq_client.Client:
        """Return the client of an alias; InvalidArgument when nothing is connected under it."""
        try:
            return self._clients[alias]
        except KeyError:
            raise InvalidArgument(f"no connection {alias!r}, call connections.connect first", field="using") from None


connections = Connections()


class Hits(list[Hit]):
    """The hits of one query in Milvus's shape: `ids` and `distances` are lists, `fields` has the output fields."""

    def __init__(self, hits: QueryHits) -> None:
        super().__init__(hits)
        self.ids: list[int | str] = hits.ids.tolist()
        self.distances: list[float] = hits.distances.tolist()
        self.fields = hits.fields


class SearchResult(list[Hits]):
    """One `Hits` a query."""

    def __init__(self, results: SearchResults) -> None:
        super().__init__(map(Hits, results))


class SearchFuture:
    """A search under way, as `search(_async=True)` returns it."""

    def __init__(self, future: Future[SearchResults], callback: Callable[[SearchResult], None] | None) -> None:
        self._future = future
        if callback is not None:
            future.add_done_callback(lambda done: callback(SearchResult(done.result())))

    def result(self, timeout: float | None = None) -> SearchResult:
        """Wait for the result, at most `timeout` seconds."""
        return SearchResult(self._future.result(timeout))

    def done(self) -> bool:
        """Say whether the result is there."""
        return self._future.done()

    def cancel(self) -> None:
        """Stop waiting for it."""
        self._future.cancel()


class Collection:
    """A collection in Milvus 2.x's spelling."""

    def __init__(self, name: str, using: str = DEFAULT_ALIAS) -> None:
        self.name = name
        self._collection = connections.client(using).collection(name)

    def load(self, partition_names: Sequence[str] | None = None, timeout: float | None = None) -> None:
        """Load the collection, or these partitions, on every live worker."""
        self._collection.load(partition_names, timeout_s=timeout)

    def release(self, timeout: float | None = None) -> None:
        """Free the collection's memory on every live worker."""
        self._collection.release(timeout_s=timeout)

    def search(  # noqa: PLR0917  Milvus's own signature
        self,
        data: Vectors,
        anns_field: str | None = None,
        param: Mapping[str, Any] | None = None,
        limit: int = 10,
        expr: str | None = None,
        partition_names: Sequence[str] | None = None,
        output_fields: Sequence[str] | None = None,
        timeout: float | None = None,
        round_decimal: int = -1,
        *,
        offset: int = 0,
        expr_params: Mapping[str, ExprValue] | None = None,
        consistency_level: str | None = None,
        _async: bool = False,
        _callback: Callable[[SearchResult], None] | None = None,
    ) -> SearchResult | SearchFuture:
        """Search as `nearmq.Collection.search` does; `_async=True` returns a SearchFuture at once."""
        if consistency_level is not None and consistency_level not in CONSISTENCY_LEVELS:
            raise InvalidArgument(
                f"consistency_level is {consistency_level!r}, allowed are {', '.join(CONSISTENCY_LEVELS)}",
                field="consistency_level",
            )
        options: SearchOptions = {
            "field": anns_field or None,
            "param": param,
            "limit": limit,
            "offset": offset,
            "expr": expr,
            "expr_params": expr_params,
            "partition_names": partition_names or None,
            "output_fields": output_fields,
            "round_decimal": round_decimal,
            "timeout_s": timeout,
        }
        future = self._collection.submit(data, **options)
        if _async or _callback is not None:
            return SearchFuture(future, _callback)
        return SearchResult(future.result())


class Milvus:
    """A connection in Milvus 1.x's spelling."""

    def __init__(self, uri: str | None = None) -> None:
        self._client = nearmq_client.connect(uri)

    def search(  # noqa: PLR0917  Milvus's own signature
        self,
        collection_name: str,
        top_k: int,
        query_records: Vectors,
        partition_tags: Sequence[str] | None = None,
        params: Mapping[str, int | float] | None = None,
        timeout: float | None = None,
    ) -> SearchResult:
        """Search; rows hold fewer than `top_k` hits where there are no more, they are not padded."""
        results = self._client.search(collection_name, query_records, top_k, params, partition_tags, timeout_s=timeout)
        return SearchResult(results)

    def load_collection(self, collection_name: str, timeout: float | None = None) -> None:
        """Load the collection on every live worker."""
        self._client.collection(collection_name).load(timeout_s=timeout)

    def release_collection(self, collection_name: str, timeout: float | None = None) -> None:
        """Free the collection's memory on every live worker."""
        self._client.collection(collection_name).release(timeout_s=timeout)

    def list_collections(self, timeout: float | None = None) -> list[str]:
        """Return the collections' names."""
        return self._client.list_collections(timeout_s=timeout)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
