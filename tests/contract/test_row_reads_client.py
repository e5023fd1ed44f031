"""Stored rows, as a client reads them: by id, by expression, and batch by batch of one version."""

from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.collection import Collection
from nearmq.errors import (
    CollectionNotFound,
    FieldNotFound,
    InvalidArgument,
    InvalidExpression,
    VersionExpired,
    VersionTimeout,
)
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.gc import collect_garbage
from tests.world import World

ROWS = 40
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 4), dtype=np.float32)
YEARS = [1980 + number for number in range(ROWS)]
NOTES = [None if number % 5 == 0 else {"a": [number, None], "b": {}} for number in range(ROWS)]


def create(world: World, name: str, primary_key: Any) -> Collection:
    schema = nearmq.Schema(
        vector_fields=[
            nearmq.VectorFieldSpec(name="title", dim=4, metric_type="COSINE", index="FLAT"),
            nearmq.VectorFieldSpec(name="cover", dim=2, index="FLAT"),
        ],
        scalar_fields=[
            nearmq.ScalarFieldSpec(name="year", type="int64"),
            nearmq.ScalarFieldSpec(name="notes", type="json", nullable=True),
        ],
        primary_key=primary_key,
    )
    return world.client.create_collection(name, schema=schema)


@pytest.fixture
def books(world: World) -> Collection:
    """Rows in segments of three writes, the last of which replaced some, and a few are deleted."""
    books = create(world, "books", "int64")
    vectors = {"title": VECTORS, "cover": VECTORS[:, :2]}
    for start in (20, 0):
        part = slice(start, start + 20)
        books.upsert(
            range(start, start + 20),
            {name: matrix[part] for name, matrix in vectors.items()},
            {"year": [0] * 20, "notes": NOTES[part]},
        )
    books.upsert(range(ROWS), vectors, {"year": YEARS, "notes": NOTES})
    books.delete([3, 39])
    return books


LEFT = [number for number in range(ROWS) if number not in {3, 39}]


def test_rows_are_got_by_id_in_the_order_asked_for(books: Collection):
    rows = books.get([17, 3, 5, 1_000, 0], output_fields=["*"])

    assert rows.ids.tolist() == [17, 5, 0]
    assert rows.fields == {"year": [1997, 1985, 1980], "notes": [NOTES[17], None, None]}
    assert rows.vectors == {}
    assert rows[0] == {"id": 17, "year": 1997, "notes": {"a": [17, None], "b": {}}}


def test_vectors_come_back_as_they_were_written(books: Collection):
    rows = books.get(LEFT, output_fields=["title", "cover", "year"])

    np.testing.assert_array_equal(rows.vectors["title"], VECTORS[LEFT])
    np.testing.assert_array_equal(rows.vectors["cover"], VECTORS[LEFT][:, :2])
    assert rows.vectors["title"].dtype == np.float32
    assert list(rows.fields) == ["year"]


def test_ids_alone_are_rows_too(books: Collection):
    assert list(books.get([7, 8])) == [{"id": 7}, {"id": 8}]
    assert list(books.get([])) == []


def test_a_query_finds_rows_by_expression_ascending_by_id(books: Collection):
    rows = books.query("year >= {first} and year < 1990", expr_params={"first": 1982}, output_fields=["year"])

    assert rows.ids.tolist() == [2, 4, 5, 6, 7, 8, 9]
    assert rows.fields["year"] == [1982, 1984, 1985, 1986, 1987, 1988, 1989]
    assert books.query(limit=3, offset=2).ids.tolist() == [2, 4, 5]
    assert books.query(after=36).ids.tolist() == [37, 38]
    assert books.query("year == 0").ids.tolist() == []


def test_rows_are_counted(books: Collection):
    assert (books.count(), books.count("year >= 2000")) == (38, 19)
    assert books.count("notes is null") == 8
    assert books.count("id in {ids}", expr_params={"ids": [1, 2, 3]}) == 2


def test_partitions_are_read_alone(books: Collection):
    books.create_partition("new")
    books.upsert([100], {"title": VECTORS[:1], "cover": VECTORS[:1, :2]}, {"year": [2030]}, partition_name="new")
    only = {"partition_names": ["new"]}
    assert (books.count(**only), books.query(**only).ids.tolist(), len(books.get([1, 100], **only))) == (1, [100], 1)


def test_batches_are_of_one_version_whatever_is_written_meanwhile(books: Collection):
    version = books.query(limit=1).version
    batches = books.iterate(batch_size=7, output_fields=["year"])
    seen = [next(batches)]
    books.delete(range(10, 20))
    books.upsert([5, 200], {"title": VECTORS[:2], "cover": VECTORS[:2, :2]}, {"year": [0, 0]})
    seen += batches

    assert [len(rows) for rows in seen] == [7, 7, 7, 7, 7, 3]
    assert {rows.version for rows in seen} == {version}
    assert [row["id"] for rows in seen for row in rows] == LEFT
    assert [row["year"] for rows in seen for row in rows] == [YEARS[number] for number in LEFT]
    assert books.count() == len(LEFT) - 10 + 1


def test_batches_of_a_version_that_was_removed_meanwhile_end_with_an_error_that_says_how_many_came(
    world: World, books: Collection
):
    batches = books.iterate(batch_size=7)
    assert len(next(batches)) == 7
    books.delete([0])
    catalog = Catalog(world.store)
    collection_id = catalog.snapshot("books").manifest.collection_id
    collect_garbage(
        catalog, [collection_id], keep_s=0.0, grace_s=0.0, on_problem=lambda _, error: pytest.fail(str(error))
    )

    with pytest.raises(VersionExpired, match="7 rows of it were read, begin anew"):
        next(batches)


def test_batches_take_an_expression_and_a_limit_and_none_is_empty(books: Collection):
    batches = list(books.iterate("year >= {first}", expr_params={"first": 2000}, batch_size=19))
    assert [rows.ids.tolist() for rows in batches] == [list(range(20, 39))]
    assert [len(rows) for rows in books.iterate(batch_size=4, limit=10)] == [4, 4, 2]
    assert list(books.iterate("year == 0")) == []
    assert list(books.iterate(limit=0)) == []


def test_strings_are_got_and_paged_in_the_order_of_their_bytes(world: World):
    films = create(world, "films", "string")
    ids = ["z", "é", "a", "😀", "ab", ""]
    films.upsert(ids, {"title": VECTORS[:6], "cover": VECTORS[:6, :2]}, {"year": range(6)})

    assert films.get(["é", "", "nobody", "a"]).ids.tolist() == ["é", "", "a"]
    paged = [id_ for rows in films.iterate(batch_size=2) for id_ in rows.ids.tolist()]
    assert paged == sorted(ids, key=str.encode)


def test_a_read_sees_what_was_written_before_it(books: Collection):
    for number in range(5):
        title = {"title": VECTORS[:1], "cover": VECTORS[:1, :2]}
        written = books.upsert([500], title, {"year": [number]})
        rows = books.get([500], output_fields=["year"], min_version=written.version)
        assert (rows.fields["year"], rows.version) == ([number], written.version)
        assert books.count("id == 500 and year == {year}", expr_params={"year": number}) == 1


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda books: books.get([1], output_fields=["yeer"]), FieldNotFound, "did you mean 'year'"),
        (lambda books: books.get(["a"]), InvalidArgument, "string|integer|int64"),
        (lambda books: books.query(after="a"), InvalidArgument, "after"),
        (lambda books: books.query("year >"), InvalidExpression, "year >"),
        (lambda books: books.count("yeer > 1"), (FieldNotFound, InvalidExpression), "did you mean 'year'"),
        (lambda books: list(books.iterate("yeer > 1")), (FieldNotFound, InvalidExpression), "year"),
        (lambda books: books.count(min_version=10_000, timeout_s=1), VersionTimeout, "10000"),
        (lambda books: books._client.collection("boks").count(), CollectionNotFound, "boks"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_why(books: Collection, call: Any, error: Any, named: str):
    with pytest.raises(error, match=named):
        call(books)


def test_a_search_goes_by_stored_rows_and_by_groups(books: Collection):
    results = books.search(ids=[7, 3, 20], field="title", limit=2, output_fields=["year"])
    assert [hits.ids.tolist()[:1] for hits in results] == [[7], [], [20]]

    grouped = books.search(VECTORS[:1], field="title", limit=5, group_by_field="year", group_size=1)
    assert len(grouped[0]) == 5
    explained = books.search(VECTORS[:1], field="title", limit=1, explain=True).explain
    assert sum(segment["rows"] - segment["deleted"] for segment in explained) == len(LEFT)
