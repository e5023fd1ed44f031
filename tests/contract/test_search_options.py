"""DESIGN, section 6: searches by stored rows, of a range of distances, and explained."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.collection import Collection
from nearmq.errors import FieldNotFound, InvalidArgument, LimitExceeded, NearmqError
from nearmq.jobs import Reply, SearchJob
from nearmq.query_hits import QueryHits
from tests.world import World, delete

ROWS = 400
VECTORS = np.random.default_rng(1).standard_normal((ROWS, 8), dtype=np.float32)
QUERIES = np.random.default_rng(2).standard_normal((3, 8), dtype=np.float32)
YEARS = [2**60 + number % 7 for number in range(ROWS)]
KINDS = ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"]


def create(world: World, kind: str = "FLAT", metric: Any = "L2", primary_key: Any = "int64") -> Collection:
    vector = nearmq.VectorFieldSpec(
        name="vector",
        dim=8,
        metric_type=metric,
        index=kind,
        index_params={"nlist": 8} if kind.startswith("IVF") else {},
    )
    year = nearmq.ScalarFieldSpec(name="year", type="int64")
    schema = nearmq.Schema(vector_fields=[vector], scalar_fields=[year], primary_key=primary_key)
    return world.client.create_collection("books", schema=schema)


def fill(world: World, ids: Sequence[Any] = range(ROWS), partition: str = "_default", segments: int = 3) -> None:
    rows = slice(0, len(ids))
    world.add("books", ids, VECTORS[rows], scalars={"year": YEARS[rows]}, partition=partition, segments=segments)


def search(world: World, **options: Any) -> Reply:
    return world.client.submit(SearchJob(collection="books", **({"limit": 5} | options))).result()


def hits_of(world: World, **options: Any) -> list[QueryHits]:
    return search(world, **options).hits or []


def same(found: Sequence[QueryHits], expected: Sequence[QueryHits]) -> bool:
    pairs = zip(found, expected, strict=True)
    return all(
        one.ids.tolist() == other.ids.tolist()
        and one.distances.tolist() == other.distances.tolist()
        and one.fields == other.fields
        for one, other in pairs
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ids_row_a_search_by_ids_is_the_search_by_their_vectors(world: World, kind: str):
    create(world, kind)
    fill(world)
    ids = [7, 399, 7, 150]
    found = hits_of(world, ids=ids, output_fields=["year"])
    assert same(found, hits_of(world, vectors=VECTORS[ids], output_fields=["year"]))
    assert [(hits.ids[0], hits.distances[0]) for hits in found] == [(id_, 0) for id_ in ids]


def test_ids_row_an_id_that_is_not_there_gives_an_empty_row(world: World):
    create(world, "HNSW")
    fill(world)
    delete(world.store, "books", [20])
    for encoding in ("json", "base64"):
        found = hits_of(world, ids=[-1, 3, 20, 4, ROWS], output_fields=["year"], encoding=encoding)
        assert [len(hits.ids) for hits in found] == [0, 5, 0, 5, 0]
        assert [hits.fields["year"] for hits in found if not len(hits.ids)] == [[]] * 3
        assert same([found[1], found[3]], hits_of(world, vectors=VECTORS[[3, 4]], output_fields=["year"]))
    assert [len(hits.ids) for hits in hits_of(world, ids=[-1, -2])] == [0, 0]
    assert hits_of(world, ids=[]) == []


def test_ids_row_string_keys_and_integers_as_text_name_rows_too(world: World):
    create(world, primary_key="string")
    fill(world, [f"k{number}" for number in range(ROWS)])
    assert [hits.ids[0] for hits in hits_of(world, ids=["k9", "k300"])] == ["k9", "k300"]
    with pytest.raises(InvalidArgument, match=r"ids\[0\] is 9, the primary keys are string") as caught:
        hits_of(world, ids=[9])
    assert caught.value.field == "ids"
    world.client.drop_collection("books")
    create(world)
    fill(world)
    assert [hits.ids[0] for hits in hits_of(world, ids=["9", "300"], id_format="string")] == ["9", "300"]


def test_ids_row_the_rows_may_be_in_partitions_that_are_not_searched(world: World):
    create(world)
    fill(world, range(100), partition="old")
    world.add("books", range(1_000, 1_050), VECTORS[100:150], scalars={"year": YEARS[:50]}, partition="new")
    [hits] = hits_of(world, ids=[3], partition_names=["new"], expr="id > 1010")
    distances = np.square(VECTORS[111:150].astype(np.float64) - VECTORS[3]).sum(axis=1)
    assert hits.ids.tolist() == (1_011 + np.argsort(distances)[:5]).tolist()


def test_ids_row_searches_by_ids_and_by_vectors_share_a_batch(world: World):
    create(world, "HNSW")
    fill(world)
    jobs = [
        SearchJob(
            collection="books",
            limit=1 + seed % 9,
            **({"ids": [seed, -1, seed * 2]} if seed % 2 else {"vectors": QUERIES}),
        )
        for seed in range(30)
    ]
    alone = [world.client.submit(job).result().hits or [] for job in jobs]
    together = [world.client.submit(job) for job in jobs]
    assert all(same(future.result().hits or [], expected) for future, expected in zip(together, alone, strict=True))


@pytest.mark.parametrize("metric", ["L2", "IP", "COSINE"])
@pytest.mark.parametrize("kind", ["FLAT", "HNSW", "IVF_FLAT"])
def test_range_search_row_hits_lie_between_range_filter_and_radius(world: World, kind: str, metric: str):
    create(world, kind, metric)
    fill(world)
    whole = hits_of(world, vectors=QUERIES, limit=ROWS)
    ascending = metric == "L2"
    near, far = (float(whole[0].distances[place]) for place in (20, 200))
    for range_filter, radius in ((None, far), (near, None), (near, far)):
        found = hits_of(world, vectors=QUERIES, limit=50, radius=radius, range_filter=range_filter)
        for hits, all_hits in zip(found, whole, strict=True):
            inside = [
                distance
                for distance in all_hits.distances.tolist()
                if (radius is None or (distance < radius if ascending else distance > radius))
                and (range_filter is None or (distance >= range_filter if ascending else distance <= range_filter))
            ]
            assert hits.distances.tolist() == inside[:50]
    assert [len(hits.ids) for hits in hits_of(world, vectors=QUERIES, radius=-1e9 if ascending else 1e9)] == [0, 0, 0]


def test_range_search_row_jobs_of_different_ranges_in_one_batch_get_what_they_get_alone(world: World):
    create(world)
    fill(world)
    options: list[dict[str, Any]] = [
        {"limit": 3 + number, "radius": radius, "range_filter": range_filter}
        for number in range(6)
        for radius, range_filter in ((None, None), (9.0, None), (None, 6.0), (9.0, 6.0), (8.0, 6.0))
    ]
    alone = [hits_of(world, vectors=QUERIES, **some) for some in options]
    together = [world.client.submit(SearchJob(collection="books", vectors=QUERIES, **some)) for some in options]
    assert all(same(future.result().hits or [], expected) for future, expected in zip(together, alone, strict=True))


@pytest.mark.parametrize("metric", ["L2", "IP"])
def test_range_search_row_a_range_that_holds_nothing_is_refused(world: World, metric: str):
    create(world, metric=metric)
    low, high = (1.0, 2.0) if metric == "L2" else (2.0, 1.0)
    with pytest.raises(InvalidArgument, match=f"radius {low}") as caught:
        hits_of(world, vectors=QUERIES, radius=low, range_filter=high)
    assert caught.value.field == "radius"


def test_a_search_explains_how_each_segment_was_searched(world: World):
    create(world, "HNSW")
    fill(world, segments=2)
    fill(world, range(1_000, 1_040), partition="2024", segments=1)
    delete(world.store, "books", range(1_000, 1_010))
    first = search(world, vectors=QUERIES, explain=True).explain or []
    assert [(part["partition"], part["rows"], part["deleted"], part["allowed"]) for part in first] == [
        ("_default", 200, 0, 200),
        ("_default", 200, 0, 200),
        ("2024", 40, 10, 30),
    ]
    assert len({part["segment"] for part in first}) == 3
    assert [(part["index"], part["way"], part["params"]["ef"], part["cached"]) for part in first[:2]] == [
        ("HNSW", "index", 64, False)
    ] * 2
    assert all(part["load_ms"] > 0 and part["search_ms"] > 0 for part in first)
    again = search(world, vectors=QUERIES, explain=True, expr="id < 20").explain or []
    assert [part["cached"] for part in again] == [True] * 3
    assert [(part["allowed"], part["selectivity"], part["way"]) for part in again] == [
        (20, 0.1, "exact"),
        (0, 0.0, "exact"),
        (0, 0.0, "exact"),
    ]
    assert search(world, vectors=QUERIES).explain is None


def test_of_searches_in_one_batch_those_are_explained_that_ask(world: World):
    create(world, "HNSW")
    fill(world, segments=2)
    jobs = [SearchJob(collection="books", limit=5, vectors=QUERIES, explain=seed % 3 == 0) for seed in range(30)]
    replies = [future.result() for future in [world.client.submit(job) for job in jobs]]
    assert [len(reply.explain or []) for reply in replies] == [2 if job.explain else 0 for job in jobs]


@pytest.mark.parametrize(
    ("options", "kind", "message", "field"),
    [
        ({"ids": [1], "field": "vektor"}, FieldNotFound, "'vector'", "field"),
        ({"ids": ["x"]}, InvalidArgument, "the primary keys are int64", "ids"),
        ({"ids": [1] * 16_385, "limit": 1}, LimitExceeded, "16384", "ids"),
        ({"ids": [1] * 1_001, "limit": 100}, LimitExceeded, "100000", "limit"),
    ],
    ids=["field", "type", "many", "product"],
)
def test_ids_row_a_search_by_ids_is_checked_as_one_by_vectors(
    world: World, options: dict[str, Any], kind: type[NearmqError], message: str, field: str
):
    create(world)
    fill(world)
    with pytest.raises(kind, match=message) as caught:
        world.reply_to(SearchJob(collection="books", **({"limit": 5} | options)))
    assert caught.value.field == field


def test_params_row_an_ef_that_is_no_whole_number_is_refused_in_any_company(world: World):
    create(world, "HNSW")
    fill(world)
    jobs = [SearchJob(collection="books", vectors=QUERIES, limit=3, params={"ef": ef}) for ef in (32, 32.0) * 15]
    futures = [world.client.submit(job) for job in jobs]
    for future, job in zip(futures, jobs, strict=True):
        if isinstance(job.params["ef"], int):
            assert future.result().status == "ok"
        else:
            with pytest.raises(InvalidArgument, match=r"ef must be a whole number .* got 32\.0"):
                future.result()
