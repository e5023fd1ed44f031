"""Rows carry scalar fields, and searches return them."""

import json
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.client import Client
from nearmq.collection import Collection
from nearmq.errors import FieldNotFound, InvalidArgument, NearmqError
from nearmq.jobs import SearchJob
from tests.world import World

ROWS = 60
SCALARS: dict[str, list[Any]] = {
    "read": [number % 2 == 0 for number in range(ROWS)],
    "year": [2**63 - 1 - number for number in range(ROWS)],
    "price": [number / 7 for number in range(ROWS)],
    "title": [f"é {number}" for number in range(ROWS)],
    "notes": [None if number % 5 == 0 else {"a": [number, None], "b": {}} for number in range(ROWS)],
    "tags": [None if number % 3 == 0 else ["x", str(number)] for number in range(ROWS)],
    "marks": [[number % 2 == 0] for number in range(ROWS)],
    "pages": [[] if number % 4 == 0 else [number, -(2**63)] for number in range(ROWS)],
    "ratings": [[0.5, number / 3] for number in range(ROWS)],
}
TYPES = {
    "read": "bool",
    "year": "int64",
    "price": "float64",
    "title": "string",
    "notes": "json",
    "tags": "array<string>",
    "marks": "array<bool>",
    "pages": "array<int64>",
    "ratings": "array<float64>",
}
SPECS = [
    nearmq.ScalarFieldSpec(name=name, type=kind, nullable=name in {"notes", "tags"}) for name, kind in TYPES.items()
]
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 4), dtype=np.float32)
QUERIES = VECTORS[::7] + np.float32(0.01)


def create(client: Client, index: str = "FLAT", primary_key: Any = "int64") -> Collection:
    vector = nearmq.VectorFieldSpec(name="vector", dim=4, index=index)
    schema = nearmq.Schema(vector_fields=[vector], scalar_fields=SPECS, primary_key=primary_key)
    return client.create_collection("books", schema=schema)


def columns() -> dict[str, list[Any]]:
    notes = [None if note is None else json.dumps(note) for note in SCALARS["notes"]]
    return SCALARS | {"notes": notes}


@pytest.fixture
def books(world: World) -> Collection:
    """A collection of several segments, in each of which rows are in another place than in the whole."""
    books = create(world.client)
    world.add("books", range(ROWS), VECTORS, scalars=columns(), segments=3)
    return books


def test_a_collection_says_what_scalar_fields_it_has(world: World):
    assert create(world.client).describe()["scalar_fields"] == [
        {"name": name, "type": kind, "nullable": name in {"notes", "tags"}} for name, kind in TYPES.items()
    ]


@pytest.mark.parametrize("index", ["FLAT", "HNSW", "IVF_FLAT"])
def test_the_values_of_each_hit_come_with_it(world: World, index: str):
    books = create(world.client, index, primary_key="string")
    world.add("books", [str(number) for number in range(ROWS)], VECTORS, scalars=columns(), segments=3)

    results = books.search(QUERIES, limit=20, output_fields=["*"])

    assert len(results) == len(QUERIES)
    for hits in results:
        assert len(hits) == 20
        assert hits.fields == {name: [values[int(key)] for key in hits.ids] for name, values in SCALARS.items()}


def test_only_the_fields_that_are_asked_for_come(books: Collection):
    [hits] = books.search(QUERIES[0], limit=3, output_fields=["title", "year", "title"])
    assert list(hits.fields) == ["title", "year"]
    assert hits.fields["year"] == [SCALARS["year"][key] for key in hits.ids]
    assert books.search(QUERIES[0], limit=3)[0].fields == {}


def test_fields_change_no_hit(books: Collection):
    for limit in (1, 7, ROWS + 10):
        plain, full = books.search(QUERIES, limit=limit), books.search(QUERIES, limit=limit, output_fields=["tags"])
        for without, with_fields in zip(plain, full, strict=True):
            assert without.ids.tolist() == with_fields.ids.tolist()
            assert without.distances.tolist() == with_fields.distances.tolist()


def test_searches_of_one_batch_each_get_the_fields_they_ask_for(books: Collection):
    asked = [["year"], None, ["*"], ["title", "notes"], ["yaer"], None] * 5
    futures = [
        books.submit(QUERIES[: 1 + number % 4], limit=1 + number, output_fields=names)
        for number, names in enumerate(asked)
    ]
    for number, (names, future) in enumerate(zip(asked, futures, strict=True)):
        if names == ["yaer"]:
            with pytest.raises(FieldNotFound):
                future.result()
            continue
        expected = list(SCALARS) if names == ["*"] else names or []
        for hits in future.result():
            assert len(hits) == 1 + number
            assert hits.fields == {name: [SCALARS[name][key] for key in hits.ids] for name in expected}


def test_a_page_of_hits_has_the_fields_of_that_page(books: Collection):
    whole = books.search(QUERIES, limit=30, output_fields=["title"])
    page = books.search(QUERIES, limit=10, offset=15, output_fields=["title"])
    assert [hits.fields["title"] for hits in page] == [hits.fields["title"][15:25] for hits in whole]


def test_both_encodings_of_a_reply_carry_the_fields(world: World, books: Collection):
    for encoding in ("json", "base64"):
        job = SearchJob(
            collection=books.name, vectors=QUERIES[:2], limit=4, output_fields=["notes", "year"], encoding=encoding
        )
        for hits in world.client.submit(job).result().hits or []:
            assert hits.fields == {name: [SCALARS[name][key] for key in hits.ids] for name in ("notes", "year")}


def test_a_search_without_hits_has_empty_fields(world: World):
    books = create(world.client)
    assert books.search(QUERIES[:2], output_fields=["year"])[1].fields == {"year": []}
    books.create_partition("2024")
    world.add("books", range(ROWS), VECTORS, scalars=columns())
    [hits] = books.search(QUERIES[0], output_fields=["*"], partition_names=["2024"])
    assert hits.fields == {name: [] for name in SCALARS}
    assert len(books.search(np.zeros((0, 4)), output_fields=["*"])) == 0


def test_a_collection_without_scalar_fields_has_none_to_return(world: World):
    plain = world.client.create_collection("plain", dim=4, index="FLAT")
    world.add("plain", range(ROWS), VECTORS)
    assert plain.search(QUERIES[0], output_fields=["*"])[0].fields == {}
    with pytest.raises(FieldNotFound, match="no scalar field 'year', the collection has none"):
        plain.search(QUERIES[0], output_fields=["year"])


@pytest.mark.parametrize(
    ("names", "kind", "message"),
    [
        (["year", "titel"], FieldNotFound, "no scalar field 'titel', did you mean 'title'"),
        (["id"], FieldNotFound, "no scalar field 'id', ids are in every answer"),
        (["vector"], InvalidArgument, "'vector' is a vector field, output_fields takes scalar fields only"),
    ],
)
def test_what_cannot_be_returned_is_refused_by_name(
    books: Collection, names: list[str], kind: type[NearmqError], message: str
):
    with pytest.raises(kind, match=message) as caught:
        books.search(QUERIES[0], output_fields=names)
    assert caught.value.field == "output_fields"
