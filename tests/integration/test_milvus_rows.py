"""Rows in Milvus 2.x's spelling: written, deleted and searched."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.errors import AlreadyExists, FieldNotFound, InvalidArgument
from nearmq.milvus import Collection, connections

VECTORS = np.random.default_rng(1).standard_normal((20, 4), dtype=np.float32)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Collection]:
    with nearmq.connect(f"local:{tmp_path}") as client:
        year = nearmq.ScalarFieldSpec(name="year", type="int64")
        tags = nearmq.ScalarFieldSpec(name="tags", type="array<string>", nullable=True)
        vector = nearmq.VectorFieldSpec(name="vector", dim=4, index="FLAT")
        client.create_collection("books", schema=nearmq.Schema(vector_fields=[vector], scalar_fields=[year, tags]))
    connections.connect(uri=f"local:{tmp_path}")
    yield Collection("books")
    connections.disconnect("default")


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "vector": VECTORS[number].tolist(), "year": 2000 + number, **fields}


def found(books: Collection, **options: Any) -> list[list[int | str]]:
    result = books.search(VECTORS, "vector", limit=1, **options)
    assert isinstance(result, list)
    return [hits.ids for hits in result]


def test_rows_come_as_dicts_or_as_columns(books: Collection):
    as_dicts = books.insert([row(0), row(1, tags=["a"])])
    as_one = books.insert(row(2))
    as_columns = books.insert([range(3, 20), VECTORS[3:], range(2003, 2020), [None] * 17])
    books.flush()

    assert (as_dicts.insert_count, as_one.insert_count, as_columns.insert_count) == (2, 1, 17)
    assert (as_dicts.primary_keys, as_columns.primary_keys) == ([0, 1], list(range(3, 20)))
    assert as_dicts.timestamp < as_one.timestamp < as_columns.timestamp
    assert found(books) == [[number] for number in range(20)]


def test_rows_are_upserted_and_deleted(books: Collection):
    books.insert([row(number) for number in range(10)])
    written = books.upsert([row(number, tags=["new"]) for number in range(5, 20)])
    deleted = books.delete("id in [0, 1]")
    by_value = books.delete("year < {first}", expr_params={"first": 2004})

    assert (written.upsert_count, written.primary_keys) == (15, list(range(5, 20)))
    assert (deleted.delete_count, by_value.delete_count) == (2, 2)
    assert found(books, expr="array_contains(tags, 'new')")[5:] == [[number] for number in range(5, 20)]
    with pytest.raises(AlreadyExists, match="19"):
        books.insert([row(19)])


def test_hits_hold_the_values_of_their_rows(books: Collection):
    books.insert([row(number, tags=[str(number)]) for number in range(20)])
    (hits,) = books.search(VECTORS[7], "vector", limit=2, output_fields=["year", "tags"])
    assert (hits[0].id, hits[0].distance, hits[0].entity) == (7, 0.0, {"year": 2007, "tags": ["7"]})
    assert hits[0].entity.get("pages") is None


@pytest.mark.parametrize(
    ("data", "error", "named"),
    [
        ([{"id": 1, "year": 2001}], InvalidArgument, "row 0 has no field 'vector'"),
        ([row(0), {"vector": [0] * 4, "year": 1}], InvalidArgument, "row 1 has no field 'id'"),
        ([row(0, yeer=1)], FieldNotFound, "did you mean 'year'"),
        ([[1], [[0] * 4]], InvalidArgument, "2 columns, the collection has the 4 fields id, vector, year, tags"),
        ([row(0), row(1) | {"year": None}], InvalidArgument, "year"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(books: Collection, data: Any, error: type[Exception], named: str):
    with pytest.raises(error, match=named):
        books.insert(data)


def test_param_may_hold_the_offset_and_nothing_unknown(books: Collection):
    books.insert([row(number) for number in range(20)])
    order = books.search(VECTORS[:1], "vector", limit=20)[0].ids
    paged = books.search(VECTORS[:1], "vector", {"metric_type": "L2", "params": {}, "offset": 5}, limit=3)
    assert paged[0].ids == order[5:8]
    with pytest.raises(InvalidArgument, match="unknown key 'ofset'"):
        books.search(VECTORS, "vector", {"ofset": 5})


def test_rows_are_queried_as_dicts_with_all_fields_for_a_star(books: Collection):
    books.insert([row(number) for number in range(20)])
    assert books.query("id in [7, 5]", output_fields=["year"]) == [{"id": 5, "year": 2005}, {"id": 7, "year": 2007}]
    (whole,) = books.query("id == 3", output_fields=["*"])
    assert whole == {"id": 3, "year": 2003, "tags": None, "vector": VECTORS[3].tolist()}
    assert books.query("year > {year}", offset=2, limit=2, expr_params={"year": 2010}) == [{"id": 13}, {"id": 14}]


def test_rows_are_counted_as_entities(books: Collection):
    assert books.is_empty
    books.insert([row(number) for number in range(20)])
    books.delete("id < 5")
    assert (books.num_entities, books.is_empty) == (15, False)
    assert books.query("year >= 2010", output_fields=["count(*)"]) == [{"count(*)": 10}]


def test_an_iterator_reads_one_version_until_it_gives_no_rows(books: Collection):
    books.insert([row(number) for number in range(20)])
    iterator = books.query_iterator(batch_size=8, expr="year >= 2005", output_fields=["year"])
    seen = iterator.next()
    books.delete("id > 10")
    while rows := iterator.next():
        seen += rows
    iterator.close()
    assert seen == [{"id": number, "year": 2000 + number} for number in range(5, 20)]
    assert books.query_iterator(limit=3).next() == [{"id": 0}, {"id": 1}, {"id": 2}]
    closed = books.query_iterator(batch_size=2)
    closed.next()
    closed.close()
    assert closed.next() == []


def test_param_holds_the_range_and_groups_where_milvus_has_them(books: Collection):
    books.insert([row(number, tags=["x"]) | {"year": number // 5} for number in range(20)])
    (every,) = books.search(VECTORS[:1], "vector", limit=20)
    near, far = every.distances[4], every.distances[9]
    (ring,) = books.search(
        VECTORS[:1], "vector", {"metric_type": "L2", "params": {"radius": far, "range_filter": near}}, limit=20
    )
    assert ring.ids == every.ids[4:9]
    (groups,) = books.search(VECTORS[:1], "vector", limit=4, group_by_field="year", output_fields=["year"])
    assert sorted(groups.fields["year"]) == [0, 1, 2, 3]
