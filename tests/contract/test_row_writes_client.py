"""Rows that change, as a client sees it: writes and what they answer, through a worker and a store."""

import uuid
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import nearmq
from nearmq import WriteResult
from nearmq.collection import Collection
from nearmq.errors import (
    AlreadyExists,
    CollectionNotFound,
    DimensionMismatch,
    FieldNotFound,
    InvalidArgument,
    JobExpired,
    NearmqError,
    PartitionNotFound,
)
from nearmq.jobs import UpsertJob
from tests.world import World

VECTORS = np.random.default_rng(1).standard_normal((50, 4), dtype=np.float32)
VALUES: dict[str, list[Any]] = {
    "read": [number % 2 == 0 for number in range(50)],
    "year": [2**63 - 1 - number for number in range(50)],
    "price": [number / 7 for number in range(50)],
    "title": [f"é {number}" for number in range(50)],
    "notes": [None if number % 5 == 0 else {"a": [number, None], "b": {}} for number in range(50)],
    "tags": [None if number % 3 == 0 else ["x", str(number)] for number in range(50)],
    "pages": [[] if number % 4 == 0 else [number, -(2**63)] for number in range(50)],
}
TYPES = {
    "read": "bool",
    "year": "int64",
    "price": "float64",
    "title": "string",
    "notes": "json",
    "tags": "array<string>",
    "pages": "array<int64>",
}


@pytest.fixture
def books(world: World) -> Collection:
    return create(world, "books", **TYPES)


def create(world: World, name: str, primary_key: Any = "int64", **types: str) -> Collection:
    vector = nearmq.VectorFieldSpec(name="vector", dim=4, index="FLAT")
    scalars = [
        nearmq.ScalarFieldSpec(name=field, type=kind, nullable=field in {"notes", "tags"})
        for field, kind in types.items()
    ]
    schema = nearmq.Schema(vector_fields=[vector], scalar_fields=scalars, primary_key=primary_key)
    return world.client.create_collection(name, schema=schema)


def columns(rows: slice) -> dict[str, list[Any]]:
    return {name: values[rows] for name, values in VALUES.items()}


def nearest_ids(collection: Collection, written: WriteResult, rows: slice = slice(None), **options: Any) -> list[Any]:
    """Search for vectors of rows, once the write is there, and return the id nearest to each."""
    results = collection.search(VECTORS[rows], limit=1, min_version=written.version, **options)
    return [hits.ids.tolist()[0] if len(hits) else None for hits in results]


def test_upserted_rows_are_found_with_their_values(books: Collection):
    written = books.upsert(range(50), VECTORS, columns(slice(None)))

    assert written == WriteResult(version=written.version, job_id=written.job_id, inserted=50)
    results = books.search(VECTORS, limit=1, output_fields=["*"], min_version=written.version)
    assert [hits.ids.tolist() for hits in results] == [[number] for number in range(50)]
    assert {name: [hits.fields[name][0] for hits in results] for name in TYPES} == VALUES


def test_an_upsert_replaces_whole_rows_and_tells_how_many(books: Collection):
    books.upsert(range(30), VECTORS[:30], columns(slice(30)))
    changed = columns(slice(20, 50)) | {"notes": ["new"] * 30}
    del changed["tags"]  # nullable, so it may be left out, and is null then

    written = books.upsert(range(20, 50), -VECTORS[20:], changed)

    assert (written.inserted, written.replaced, written.deleted) == (20, 10, 0)
    hits = books.search(-VECTORS[25], limit=1, output_fields=["*"], min_version=written.version)[0]
    assert (hits.ids.tolist(), hits.fields["notes"], hits.fields["tags"]) == ([25], ["new"], [None])
    assert books.search(VECTORS[:1], limit=50)[0].ids.shape == (50,)


def test_an_insert_of_an_id_that_is_there_changes_nothing(books: Collection):
    books.insert([3, 7], VECTORS[:2], columns(slice(2)))

    with pytest.raises(AlreadyExists, match=r"ids\[1\].* 7"):
        books.insert([5, 7, 9], VECTORS[:3], columns(slice(3)))

    assert books.describe()["rows"] == 2
    assert books.insert([5], VECTORS[:1], columns(slice(1))).inserted == 1


def test_rows_are_deleted_by_id_and_by_expression(books: Collection):
    books.upsert(range(50), VECTORS, columns(slice(None)))

    by_id = books.delete(np.arange(45, 60))
    by_expr = books.delete(expr="read == {read} and price < {price}", expr_params={"read": True, "price": 10 / 7})

    assert (by_id.deleted, by_expr.deleted) == (5, 5)
    left = books.search(VECTORS[:1], limit=50, min_version=by_expr.version)[0].ids.tolist()
    assert sorted(left) == sorted(set(range(45)) - {0, 2, 4, 6, 8})
    again = books.upsert([0], VECTORS[:1], columns(slice(1)))
    assert (again.inserted, again.replaced) == (1, 0)
    assert nearest_ids(books, again, slice(1)) == [0]


def test_string_keys_are_written_replaced_and_deleted(world: World):
    films = create(world, "films", "string", title="string")
    ids = [f"é-{number}" for number in range(50)]

    films.upsert(np.array(ids), VECTORS, {"title": pa.array(ids)})
    replaced = films.upsert(ids[:2], VECTORS[:2], {"title": ["a", "b"]})
    deleted = films.delete(["é-0", "nobody"])

    assert (replaced.replaced, deleted.deleted) == (2, 1)
    assert nearest_ids(films, deleted, slice(1, 50)) == ids[1:]
    with pytest.raises(InvalidArgument, match="string"):
        films.upsert([7], VECTORS[:1], {"title": ["a"]})


def test_each_vector_field_has_vectors_of_its_own(world: World):
    fields = [nearmq.VectorFieldSpec(name=name, dim=dim, index="FLAT") for name, dim in (("data", 4), ("shape", 2))]
    photos = world.client.create_collection("photos", schema=nearmq.Schema(vector_fields=fields))

    written = photos.upsert(range(50), {"data": VECTORS, "shape": VECTORS[::-1, :2]})

    assert nearest_ids(photos, written, field="data") == list(range(50))
    found = photos.search(VECTORS[:, :2], limit=1, field="shape", min_version=written.version)
    assert [hits.ids.tolist()[0] for hits in found] == list(range(49, -1, -1))
    with pytest.raises(InvalidArgument, match="shape"):
        photos.upsert([1], {"data": VECTORS[:1]})
    with pytest.raises(FieldNotFound, match="did you mean 'shape'"):
        photos.upsert([1], {"data": VECTORS[:1], "shap": VECTORS[:1, :2]})


def test_a_write_goes_to_one_partition_and_moves_rows_there_and_a_delete_to_one_or_all(books: Collection):
    books.create_partition("new")
    books.upsert(range(10), VECTORS[:10], columns(slice(10)))
    books.upsert(range(10, 20), VECTORS[10:20], columns(slice(10, 20)), partition_name="new")

    moved = books.upsert([9], VECTORS[9:10], columns(slice(1)), partition_name="new")
    assert (moved.inserted, moved.replaced) == (0, 1)
    rows = {partition["name"]: partition["rows"] for partition in books.describe()["partitions"]}
    assert (rows, books.describe()["rows"]) == ({"_default": 9, "new": 11}, 20)
    assert books.delete(range(20), partition_name="new").deleted == 11
    assert books.delete(range(20)).deleted == 9
    assert books.describe()["rows"] == 0
    with pytest.raises(PartitionNotFound, match="old"):
        books.upsert([1], VECTORS[:1], columns(slice(1)), partition_name="old")


@pytest.mark.parametrize(
    ("kind", "named", "changes"),
    [
        (DimensionMismatch, "dim 4", {"vectors": VECTORS[:2, :3]}),
        (FieldNotFound, "did you mean 'year'", {"fields": {"yeer": [1, 2]}}),
        (InvalidArgument, "year", {"fields": {"year": [1, None]}}),
        (InvalidArgument, "year", {"fields": {"year": [1, 2.5]}}),
        (InvalidArgument, "year", {"fields": {"year": [1, 2**63]}}),
        (InvalidArgument, "year", {"fields": {"year": [1, True]}}),
        (InvalidArgument, "year", {"fields": {"year": [1, "2"]}}),
        (InvalidArgument, "read", {"fields": {"read": [1, 0]}}),
        (InvalidArgument, "title", {"fields": {"title": ["a", 7]}}),
        (InvalidArgument, "tags", {"fields": {"tags": [["a"], ["b", None]]}}),
        (InvalidArgument, "pages", {"fields": {"pages": [[1], 2]}}),
        (InvalidArgument, "year", {"fields": {"year": ...}}),
        (InvalidArgument, "ids", {"ids": ["a", "b"]}),
        (CollectionNotFound, "boks", {"collection": "boks"}),
    ],
)
def test_a_write_that_does_not_fit_the_schema_is_refused_whole_by_name(
    world: World, books: Collection, kind: type[NearmqError], named: str, changes: dict[str, Any]
):
    fields = columns(slice(2)) | changes.get("fields", {})
    given = {"ids": [1, 2], "vectors": VECTORS[:2], "collection": "books"} | changes
    ids, vectors, collection = given["ids"], given["vectors"], world.client.collection(given["collection"])
    with pytest.raises(kind, match=named):
        collection.upsert(ids, vectors, {name: values for name, values in fields.items() if values is not ...})
    assert books.describe()["rows"] == 0


def test_writes_that_are_submitted_together_take_effect_in_their_order(books: Collection):
    futures: list[Future[WriteResult]] = []
    for number in range(30):
        futures.append(books.submit_upsert([1, 2], VECTORS[number : number + 2], columns(slice(2))))
        futures.append(books.submit_delete([2]))
    last = books.submit_insert([2], VECTORS[:1], columns(slice(1))).result()

    results = [future.result() for future in futures]
    assert [result.version for result in results] == sorted(result.version for result in results)
    assert [(result.inserted, result.replaced) for result in results[::2]] == [(2, 0)] + [(1, 1)] * 29
    assert {result.deleted for result in results[1::2]} == {1}
    assert last.inserted == 1
    assert nearest_ids(books, last, slice(29, 30)) == [1]
    assert nearest_ids(books, last, slice(0, 1)) == [2]


def test_a_bad_write_among_others_fails_alone(books: Collection):
    futures = [
        books.submit_upsert(
            [number], VECTORS[number : number + 1], columns(slice(1)) | ({"year": ["x"]} if bad else {})
        )
        for number in range(10)
        for bad in (number in {3, 7},)
    ]
    errors = [future.exception() for future in futures]
    assert [number for number, error in enumerate(errors) if error is not None] == [3, 7]
    assert books.describe()["rows"] == 8


def test_a_write_takes_effect_once_however_often_its_job_id_is_sent(books: Collection):
    first = books.upsert([7], VECTORS[:1], columns(slice(1)), job_id="crawler-event-17")
    books.upsert([7], VECTORS[1:2], columns(slice(1)))
    again = books.upsert([7], VECTORS[:1], columns(slice(1)), job_id="crawler-event-17")

    assert again == first
    assert books.search(VECTORS[1], limit=1, min_version=first.version + 1)[0].distances.tolist() == [0.0]


def test_a_write_of_long_ago_is_refused_since_it_could_take_effect_twice(books: Collection):
    made_in_2020 = str(uuid.UUID(int=1_577_836_800_000 << 80 | 0x7 << 76 | 0b10 << 62))
    with pytest.raises(JobExpired):
        books.upsert([7], VECTORS[:1], columns(slice(1)), job_id=made_in_2020)
    assert books.describe()["rows"] == 0


def test_a_write_whose_outcome_nobody_awaits_is_published_and_done(world: World, books: Collection):
    job = UpsertJob(collection="books", ids=[7], vectors=VECTORS[:1], fields=columns(slice(1)))
    world.client.publish(job, reply_to=None)

    written = books.upsert([8], VECTORS[1:2], columns(slice(1)))  # behind it in the queue
    assert sorted(books.search(VECTORS[:1], min_version=written.version)[0].ids.tolist()) == [7, 8]


def test_an_added_field_is_null_in_the_rows_that_are_there(books: Collection):
    books.upsert([1], VECTORS[:1], columns(slice(1)))
    version = books.add_field("language", "string")
    written = books.upsert([2], VECTORS[1:2], columns(slice(1)) | {"language": ["en"]})

    assert written.version == version + 1
    found = books.search(VECTORS[:2], limit=1, output_fields=["language"], min_version=written.version)
    assert [hits.fields for hits in found] == [{"language": [None]}, {"language": ["en"]}]
    assert books.describe()["scalar_fields"][-1] == {"name": "language", "type": "string", "nullable": True}
    with pytest.raises(AlreadyExists, match="language"):
        books.add_field("language", "int64")


def test_no_rows_at_all_may_be_written(books: Collection):
    written = books.upsert([], np.empty((0, 4)), {name: [] for name in TYPES})
    assert (written.inserted, written.replaced) == (0, 0)
    assert books.delete([]).deleted == 0
