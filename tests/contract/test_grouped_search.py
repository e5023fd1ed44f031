"""Hits by group: the groups whose best hits are nearest, each with its nearest rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.errors import FieldNotFound, InvalidArgument, LimitExceeded, NearmqError
from nearmq.jobs import SearchJob
from nearmq.query_hits import QueryHits
from tests.world import World, delete

ROWS = 300
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 8), dtype=np.float32)
QUERIES = np.random.default_rng(2).standard_normal((4, 8), dtype=np.float32)
#: Few large groups, one of them null, and many of one or two rows far from the first query.
NEAREST = np.argsort(np.square(VECTORS - QUERIES[0]).sum(axis=1))
RANKS = np.argsort(NEAREST).tolist()
GENRES = [("essay", "novel", None, "poem")[rank % 4] if rank < 200 else f"rare {rank // 2}" for rank in RANKS]
YEARS = [1990 + rank // 30 for rank in RANKS]
PRICES = [float(rank % 3) / 2 for rank in RANKS]
READ = [rank % 2 == 0 for rank in RANKS]
VALUES: dict[str, list[Any]] = {"genre": GENRES, "year": YEARS, "price": PRICES, "read": READ}


@pytest.fixture(params=["FLAT", "HNSW", "IVF_FLAT"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def create(world: World, kind: str = "FLAT") -> None:
    vector = nearmq.VectorFieldSpec(
        name="vector", dim=8, index=kind, index_params={"nlist": 4} if kind.startswith("IVF") else {}
    )
    scalars = [
        nearmq.ScalarFieldSpec(name="genre", type="string", nullable=True),
        nearmq.ScalarFieldSpec(name="year", type="int64"),
        nearmq.ScalarFieldSpec(name="price", type="float64"),
        nearmq.ScalarFieldSpec(name="read", type="bool"),
        nearmq.ScalarFieldSpec(name="tags", type="array<string>"),
        nearmq.ScalarFieldSpec(name="notes", type="json"),
    ]
    world.client.create_collection("books", schema=nearmq.Schema(vector_fields=[vector], scalar_fields=scalars))


def fill(world: World) -> None:
    scalars = VALUES | {"tags": [["sea"]] * ROWS, "notes": ["1"] * ROWS}
    world.add("books", range(ROWS), VECTORS, scalars=scalars, segments=3)


def search(world: World, **options: Any) -> list[QueryHits]:
    job = SearchJob(collection="books", **({"vectors": QUERIES, "limit": 5} | options))
    return world.client.submit(job).result().hits or []


def expected(
    query: np.ndarray, values: Sequence[Any], rows: Sequence[int], *, limit: int, offset: int = 0, size: int = 1
) -> list[int]:
    """The ids of a grouped search by brute force over some rows."""
    distances = np.square(VECTORS.astype(np.float64) - query).sum(axis=1).astype(np.float32)
    nearest = sorted(rows, key=lambda row: (distances[row], row))
    order = list(dict.fromkeys(values[row] for row in nearest))[offset : offset + limit]
    taken: dict[Any, int] = {}
    found = []
    for row in nearest:
        taken[values[row]] = taken.get(values[row], 0) + 1
        if values[row] in order and taken[values[row]] <= size:
            found.append(row)
    return found


@pytest.mark.parametrize(
    ("offset", "limit", "size"), [(0, 1, 1), (0, 3, 2), (0, 4, 60), (2, 3, 2), (0, 80, 3), (50, 90, 1)]
)
def test_the_nearest_groups_come_each_with_its_nearest_rows(
    world: World, kind: str, offset: int, limit: int, size: int
):
    create(world, kind)
    fill(world)
    params = {"nprobe": 4} if kind == "IVF_FLAT" else {}
    for name in ("genre", "year", "price", "read"):
        found = search(world, limit=limit, offset=offset, group_by_field=name, group_size=size, params=params)
        for query, hits in zip(QUERIES, found, strict=True):
            ids = hits.ids.tolist()
            assert hits.fields == {name: [VALUES[name][row] for row in ids]}
            assert sorted(hits.distances.tolist()) == hits.distances.tolist()
            assert ids == expected(query, VALUES[name], range(ROWS), limit=limit, offset=offset, size=size)


def test_groups_go_with_filters_ranges_deletes_ids_and_other_fields(world: World):
    create(world)
    fill(world)
    delete(world.store, "books", range(0, ROWS, 10))
    rows = [row for row in range(ROWS) if row % 10 and YEARS[row] > 1992]
    [found] = search(
        world,
        vectors=None,
        ids=[5],
        limit=4,
        group_by_field="genre",
        expr="year > 1992",
        output_fields=["year", "genre"],
    )
    assert found.ids.tolist() == expected(VECTORS[5], GENRES, rows, limit=4)
    assert list(found.fields) == ["genre", "year"]
    assert found.fields["year"] == [YEARS[row] for row in found.ids]
    distances = np.square(VECTORS.astype(np.float64) - QUERIES[0]).sum(axis=1)
    within = [row for row in rows if distances[row] < 14]
    [found] = search(world, vectors=QUERIES[:1], limit=50, group_by_field="genre", expr="year > 1992", radius=14.0)
    assert found.ids.tolist() == expected(QUERIES[0], GENRES, within, limit=50)


def test_grouped_searches_in_one_batch_get_what_they_get_alone(world: World):
    create(world, "HNSW")
    fill(world)
    options: list[dict[str, Any]] = [
        {"limit": limit, "group_by_field": name, "group_size": size if name else 1}
        for limit in (1, 4, 9)
        for size in (1, 3)
        for name in ("genre", "year", None)
    ]
    alone = [search(world, **some) for some in options]
    together = [world.client.submit(SearchJob(collection="books", vectors=QUERIES, **some)) for some in options]
    for one, future in zip(alone, together, strict=True):
        assert [hits.ids.tolist() for hits in future.result().hits or []] == [hits.ids.tolist() for hits in one]


def test_groups_of_an_empty_collection_are_none(world: World):
    create(world)
    assert [(hits.ids.tolist(), hits.fields) for hits in search(world, group_by_field="genre")] == [
        ([], {"genre": []})
    ] * 4


@pytest.mark.parametrize(
    ("options", "kind", "message", "field"),
    [
        ({"group_by_field": "genra"}, FieldNotFound, "'genre'", "group_by_field"),
        ({"group_by_field": "tags"}, InvalidArgument, "'tags' is array<string>", "group_by_field"),
        ({"group_by_field": "notes"}, InvalidArgument, "'notes' is json", "group_by_field"),
        ({"group_by_field": "vector"}, FieldNotFound, "'vector'", "group_by_field"),
        ({"group_size": 2}, InvalidArgument, "group_by_field", "group_size"),
        ({"group_by_field": "year", "group_size": 0}, InvalidArgument, "group_size is 0", "group_size"),
        ({"group_by_field": "year", "group_size": 10_000}, LimitExceeded, "100000", "limit"),
        ({"group_by_field": "year", "params": {"ef": 4}}, InvalidArgument, "5", "params.ef"),
    ],
    ids=["unknown", "array", "json", "vector", "no field", "size", "product", "ef"],
)
def test_what_cannot_be_grouped_is_refused(
    world: World, options: dict[str, Any], kind: type[NearmqError], message: str, field: str
):
    create(world, "HNSW")
    with pytest.raises(kind, match=message) as caught:
        world.reply_to(SearchJob(collection="books", **({"vectors": QUERIES, "limit": 5} | options)))
    assert caught.value.field == field
