"""The spelling of Milvus 2.x's `MilvusClient`: calls that name their collection, and answers of dicts and lists."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from nearmq import client as nearmq_client
from nearmq.arguments import Vectors
from nearmq.errors import InvalidArgument
from nearmq.jobs import ExprValue, Metric
from nearmq.milvus.collection import Collection
from nearmq.milvus.results import QueryIterator, SearchResult, as_dicts
from nearmq.milvus.rows import Data
from nearmq.schema import Schema

_Id = int | str
_Ids = Sequence[int] | Sequence[str] | _Id


class MilvusClient:
    """A connection in the spelling of Milvus 2.x's client."""

    def __init__(self, uri: str | None = None) -> None:
        self._client = nearmq_client.connect(uri)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def create_collection(
        self,
        collection_name: str,
        dimension: int | None = None,
        *,
        metric_type: Metric = "COSINE",
        schema: Schema | None = None,
        timeout: float | None = None,
    ) -> None:
        """Create a collection with one vector field named `vector`, or with the fields of a nearmq schema."""
        self._client.create_collection(
            collection_name, dim=dimension, metric=metric_type, schema=schema, timeout_s=timeout
        )

    def drop_collection(self, collection_name: str, timeout: float | None = None) -> None:
        """Drop a collection and its rows."""
        self._client.drop_collection(collection_name, timeout_s=timeout)

    def rename_collection(self, old_name: str, new_name: str, timeout: float | None = None) -> None:
        """Give a collection a new name."""
        self._client.rename_collection(old_name, new_name, timeout_s=timeout)

    def list_collections(self, timeout: float | None = None) -> list[str]:
        """Return the collections' names."""
        return self._client.list_collections(timeout_s=timeout)

    def has_collection(self, collection_name: str, timeout: float | None = None) -> bool:
        """Say whether there is a collection of this name."""
        return collection_name in self.list_collections(timeout)

    def describe_collection(self, collection_name: str, timeout: float | None = None) -> dict[str, Any]:
        """Return schema, partitions and rows, as nearmq describes a collection."""
        return self._client.collection(collection_name).describe(timeout_s=timeout)

    def get_collection_stats(self, collection_name: str, timeout: float | None = None) -> dict[str, int]:
        """Return the number of rows as `row_count`."""
        return {"row_count": self._client.collection(collection_name).count(timeout_s=timeout)}

    def load_collection(self, collection_name: str, timeout: float | None = None) -> None:
        """Load the collection on every live worker."""
        self._client.collection(collection_name).load(timeout_s=timeout)

    def release_collection(self, collection_name: str, timeout: float | None = None) -> None:
        """Free the collection's memory on every live worker."""
        self._client.collection(collection_name).release(timeout_s=timeout)

    def flush(self, collection_name: str, timeout: float | None = None) -> None:
        """Do nothing: a write that was answered is committed."""

    def insert(
        self, collection_name: str, data: Data, timeout: float | None = None, partition_name: str | None = None
    ) -> dict[str, Any]:
        """Add rows, dicts by field name with the primary key as `id`; return `insert_count` and `ids`."""
        result = self._spelled(collection_name).insert(data, partition_name or None, timeout)
        return {"insert_count": result.insert_count, "ids": list(result.primary_keys)}

    def upsert(
        self, collection_name: str, data: Data, timeout: float | None = None, partition_name: str | None = None
    ) -> dict[str, Any]:
        """Write rows as `insert` takes them, replacing those whose id is there; return `upsert_count` and `ids`."""
        result = self._spelled(collection_name).upsert(data, partition_name or None, timeout)
        return {"upsert_count": result.upsert_count, "ids": list(result.primary_keys)}

    def delete(
        self,
        collection_name: str,
        ids: _Ids | None = None,
        timeout: float | None = None,
        filter: str | None = None,  # noqa: A002  Milvus's own name
        partition_name: str | None = None,
        *,
        filter_params: Mapping[str, ExprValue] | None = None,
    ) -> dict[str, int]:
        """Delete rows by their ids or by an expression; return `delete_count`."""
        written = self._client.collection(collection_name).delete(
            _listed(ids),
            expr=filter or None,
            expr_params=filter_params,
            partition_name=partition_name or None,
            timeout_s=timeout,
        )
        return {"delete_count": written.deleted}

    def get(
        self,
        collection_name: str,
        ids: _Ids,
        output_fields: Sequence[str] | None = None,
        timeout: float | None = None,
        partition_names: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the rows of these ids as dicts, with all fields unless some are named."""
        fields = self._spelled(collection_name).all_fields(output_fields or ["*"])
        rows = self._client.collection(collection_name).get(
            _listed(ids) or [], output_fields=fields, partition_names=partition_names or None, timeout_s=timeout
        )
        return as_dicts(rows)

    def query(
        self,
        collection_name: str,
        filter: str | None = None,  # noqa: A002  Milvus's own name
        output_fields: Sequence[str] | None = None,
        timeout: float | None = None,
        ids: _Ids | None = None,
        *,
        filter_params: Mapping[str, ExprValue] | None = None,
        partition_names: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[dict[str, Any]]:
        """Return rows by an expression, or by their ids, as dicts with all fields unless some are named."""
        if ids is not None:
            if filter:
                raise InvalidArgument("give either filter or ids", field="ids")
            return self.get(collection_name, ids, output_fields, timeout, partition_names)
        return self._spelled(collection_name).query(
            filter,
            output_fields or ["*"],
            partition_names,
            timeout,
            limit=limit,
            offset=offset,
            expr_params=filter_params,
        )

    def query_iterator(
        self,
        collection_name: str,
        batch_size: int = 1_000,
        limit: int | None = -1,
        filter: str | None = None,  # noqa: A002  Milvus's own name
        output_fields: Sequence[str] | None = None,
        *,
        partition_names: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> QueryIterator:
        """Return an iterator over rows as dicts, in batches and of one version throughout; limit -1 is none."""
        return self._spelled(collection_name).query_iterator(
            batch_size, limit, filter, output_fields or ["*"], partition_names, timeout
        )

    def search(
        self,
        collection_name: str,
        data: Vectors,
        filter: str | None = None,  # noqa: A002  Milvus's own name
        limit: int = 10,
        output_fields: Sequence[str] | None = None,
        *,
        search_params: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        partition_names: Sequence[str] | None = None,
        anns_field: str | None = None,
        filter_params: Mapping[str, ExprValue] | None = None,
        offset: int = 0,
        round_decimal: int = -1,
        group_by_field: str | None = None,
        group_size: int = 1,
    ) -> list[list[dict[str, Any]]]:
        """Search; a list a query, of dicts with `id`, `distance` and `entity`, the output fields.

        `search_params` is as `param` of `Collection.search`.
        """
        result = self._spelled(collection_name).search(
            data,
            anns_field,
            search_params,
            limit,
            filter,
            partition_names,
            output_fields,
            timeout,
            round_decimal,
            offset=offset,
            group_by_field=group_by_field,
            group_size=group_size,
            expr_params=filter_params,
        )
        assert isinstance(result, SearchResult)  # since it is not asynchronous
        return [
            [{"id": hit.id, "distance": hit.distance, "entity": dict(hit.entity)} for hit in hits] for hits in result
        ]

    def _spelled(self, name: str) -> Collection:
        return Collection.of(self._client.collection(name))


def _listed(ids: _Ids | None) -> Sequence[Any] | None:
    return [ids] if isinstance(ids, int | str) else ids
