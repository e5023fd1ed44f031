"""The spelling of Milvus 1.x."""

from collections.abc import Mapping, Sequence

from nearmq import client as nearmq_client
from nearmq.arguments import Vectors
from nearmq.milvus.results import SearchResult


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
