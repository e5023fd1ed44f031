"""milvus-lite: Milvus's own client and its local server, an HNSW index of the same parameters."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from milvus_lite.server_manager import server_manager_instance
from pymilvus import DataType, MilvusClient

from benchmarks.data import LIMIT
from benchmarks.load import with_futures
from benchmarks.measuring import Figures
from benchmarks.peers import Drive
from benchmarks.peers.graph import EF
from benchmarks.stage import GRAPH, Built, Stage

NAME = f"milvus-lite {version('milvus-lite')}"
_INSERTED_AT_ONCE = 5_000


@contextmanager
def serving(stage: Stage, built: Built) -> Iterator[Drive]:
    """See `Peer`; it builds a graph of its own, since it takes none."""
    client = MilvusClient(str(stage.folder / "milvus.db"))
    _fill(client, built)
    queries = [query.tolist() for query in built.data.queries]

    def search(number: int) -> Any:
        found = client.search(
            "bench",
            [queries[number % len(queries)]],
            limit=LIMIT,
            search_params={"params": {"ef": EF}},
            output_fields=["id"],
        )
        return found[0]

    def drive(in_flight: int, seconds: float) -> Figures:
        with ThreadPoolExecutor(in_flight) as callers:
            return with_futures(lambda number: callers.submit(search, number), in_flight, seconds)

    drive(1, 0)
    yield drive
    client.close()
    server_manager_instance.release_all()


def _fill(client: MilvusClient, built: Built) -> None:
    schema = MilvusClient.create_schema()
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=built.data.dim)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="HNSW", metric_type=built.data.metric, params=GRAPH)
    client.create_collection("bench", schema=schema, index_params=index)
    rows = [{"id": number, "vector": row} for number, row in enumerate(built.data.rows)]
    for start in range(0, len(rows), _INSERTED_AT_ONCE):
        client.insert("bench", rows[start : start + _INSERTED_AT_ONCE])
    client.flush("bench")
    client.load_collection("bench")
