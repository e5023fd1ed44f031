"""The spelling of Milvus's Python clients, of both generations, over nearmq.

    from nearmq.milvus import Collection, connections      # 2.x
    connections.connect(uri="amqp://guest:guest@localhost/")
    collection = Collection("books")
    collection.upsert([{"id": 7, "vector": vectors[0], "year": 1999}])
    results = collection.search(vectors[:5], "vector", param={"metric_type": "L2", "params": {"ef": 64}}, limit=10)

    from nearmq.milvus import MilvusClient                  # 2.x too
    client = MilvusClient(uri="amqp://guest:guest@localhost/")
    client.search("books", vectors[:5], filter="year > 1990", limit=10, output_fields=["year"])

    from nearmq.milvus import Milvus                        # 1.x
    milvus = Milvus(uri="amqp://guest:guest@localhost/")
    milvus.search(collection_name="books", query_records=vectors, top_k=2, params={"nprobe": 16})

Rows and searches are spelled here; collections are made by nearmq's own client and commands. The primary key is the
field `id`. Errors are nearmq's own exceptions, in both generations.
"""

from nearmq.milvus.client import MilvusClient
from nearmq.milvus.collection import CONSISTENCY_LEVELS, Collection
from nearmq.milvus.connections import DEFAULT_ALIAS, Connections, connections
from nearmq.milvus.results import Hit, Hits, MutationResult, QueryIterator, SearchFuture, SearchResult
from nearmq.milvus.version_1 import Milvus

__all__ = [
    "CONSISTENCY_LEVELS",
    "DEFAULT_ALIAS",
    "Collection",
    "Connections",
    "Hit",
    "Hits",
    "Milvus",
    "MilvusClient",
    "MutationResult",
    "QueryIterator",
    "SearchFuture",
    "SearchResult",
    "connections",
]
