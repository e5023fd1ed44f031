"""Milvus 2.x's `MilvusClient` over nearmq, from an empty store to a dropped collection."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nearmq
from nearmq.errors import CollectionNotFound, InvalidArgument
from nearmq.milvus import MilvusClient

VECTORS = np.random.default_rng(1).standard_normal((20, 4), dtype=np.float32)
ROWS = [{"id": number, "vector": VECTORS[number].tolist(), "year": 2000 + number} for number in range(20)]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[MilvusClient]:
    with MilvusClient(f"local:{tmp_path}") as client:
        vector = nearmq.VectorFieldSpec(name="vector", dim=4, metric_type="L2", index="FLAT")
        year = nearmq.ScalarFieldSpec(name="year", type="int64")
        client.create_collection("books", schema=nearmq.Schema(vector_fields=[vector], scalar_fields=[year]))
        yield client


def test_rows_are_written_counted_and_deleted(client: MilvusClient):
    assert client.insert("books", ROWS[:10]) == {"insert_count": 10, "ids": list(range(10))}
    assert client.upsert("books", ROWS[5:]) == {"upsert_count": 15, "ids": list(range(5, 20))}
    client.flush("books")
    assert client.get_collection_stats("books") == {"row_count": 20}
    assert client.delete("books", ids=[1, 2, 99]) == {"delete_count": 2}
    assert client.delete("books", 3) == {"delete_count": 1}
    assert client.delete("books", filter="year > {year}", filter_params={"year": 2017}) == {"delete_count": 2}
    assert client.get_collection_stats("books") == {"row_count": 15}


def test_rows_are_read_by_id_and_by_filter_with_all_fields_unless_some_are_named(client: MilvusClient):
    client.insert("books", ROWS)
    assert client.get("books", [7, 5, 99]) == [ROWS[7], ROWS[5]]
    assert client.get("books", 7, ["year"]) == [{"id": 7, "year": 2007}]
    assert client.query("books", "year < 2002") == ROWS[:2]
    assert client.query("books", ids=[3], output_fields=["year"]) == [{"id": 3, "year": 2003}]
    assert client.query("books", "id > 3", ["year"], limit=1, offset=1) == [{"id": 5, "year": 2005}]
    assert client.query("books", "id > 3", ["count(*)"]) == [{"count(*)": 16}]
    iterator = client.query_iterator("books", batch_size=12, filter="id >= 4")
    assert [iterator.next(), iterator.next(), iterator.next()] == [ROWS[4:16], ROWS[16:], []]
    with pytest.raises(InvalidArgument, match="either filter or ids"):
        client.query("books", "id > 3", ids=[3])


def test_a_search_gives_dicts(client: MilvusClient):
    client.insert("books", ROWS)
    first, second = client.search(
        "books",
        VECTORS[[3, 8]],
        filter="year >= {first}",
        filter_params={"first": 2005},
        limit=3,
        output_fields=["year"],
        search_params={"metric_type": "L2", "params": {}},
    )
    assert [len(first), len(second)] == [3, 3]
    assert second[0] == {"id": 8, "distance": 0.0, "entity": {"year": 2008}}
    assert all(hit["entity"]["year"] >= 2005 for hit in first)


def test_collections_are_made_found_renamed_and_dropped(client: MilvusClient):
    client.create_collection("films", 3)
    assert client.describe_collection("films")["vector_fields"][0]["metric_type"] == "COSINE"
    assert (client.has_collection("films"), client.has_collection("songs")) == (True, False)
    client.rename_collection("films", "songs")
    assert client.list_collections() == ["books", "songs"]
    client.load_collection("songs")
    client.release_collection("songs")
    client.drop_collection("songs")
    with pytest.raises(CollectionNotFound):
        client.describe_collection("songs")
