"""DESIGN, section 6, row by row: what a search promises, embedded and through RabbitMQ and Redis."""

import asyncio
import time

import numpy as np
import pytest

from nearmq import Schema, SearchResults, VectorFieldSpec
from nearmq.errors import (
    AlreadyExists,
    CollectionNotFound,
    DeadlineExceeded,
    DimensionMismatch,
    FieldNotFound,
    InvalidArgument,
    LimitExceeded,
    MetricMismatch,
    NearmqError,
    PartitionNotFound,
    VersionTimeout,
)
from nearmq.jobs import SearchJob
from tests.world import World

KINDS = ["FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ"]
METRICS = ["L2", "IP", "COSINE"]


def rows(count: int, dim: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def oracle(queries: np.ndarray, vectors: np.ndarray, metric: str, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids, which are row numbers, and distances by brute force in float64; ties by smaller id."""
    wide_q, wide_v = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "L2":
        distances = np.square(wide_q[:, None] - wide_v[None]).sum(axis=2)
    else:
        distances = wide_q @ wide_v.T
        if metric == "COSINE":
            lengths = np.linalg.norm(wide_q, axis=1)[:, None] * np.linalg.norm(wide_v, axis=1)
            distances = np.clip(np.divide(distances, lengths, out=np.zeros_like(distances), where=lengths > 0), -1, 1)
    distances = distances.astype(np.float32)
    order = np.argsort(distances if metric == "L2" else -distances, axis=1, kind="stable")[:, :limit]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_row_values_order_and_ties_by_smaller_id(world: World, metric: str):
    vectors = np.repeat(rows(40, 6), 3, axis=0)  # every vector three times: ties everywhere
    vectors[7] = 0
    world.client.create_collection("c", dim=6, metric=metric, index="FLAT")
    world.add("c", range(len(vectors)), vectors, segments=3)
    queries = np.concatenate([rows(5, 6, seed=2), np.zeros((1, 6), np.float32), vectors[:2] * 3])
    results = world.client.collection("c").search(queries, limit=10)
    ids, distances = oracle(queries, vectors, metric, 10)
    for hits, expected_ids, expected_distances in zip(results, ids, distances, strict=True):
        np.testing.assert_allclose(hits.distances, expected_distances, rtol=1e-5, atol=1e-5)
        assert hits.ids.tolist() == expected_ids.tolist()


def test_limit_row_bounds_of_limit_queries_and_their_product(world: World):
    collection = world.client.create_collection("c", dim=2, index="FLAT")
    world.add("c", range(10), rows(10, 2))
    assert len(collection.search(rows(1, 2), limit=1)[0]) == 1
    assert len(collection.search(rows(1, 2), limit=100_000)[0]) == 10
    for limit in (0, -1, 1_048_577):
        with pytest.raises(NearmqError, match=r"1048576|1,048,576") as caught:
            collection.search(rows(1, 2), limit=limit)
        assert caught.value.field == "limit"
    with pytest.raises(LimitExceeded, match="16384"):
        collection.search(rows(16_385, 2), limit=1)
    with pytest.raises(LimitExceeded, match="100000"):
        collection.search(rows(101, 2), limit=1_000)
    assert len(collection.search(np.empty((0, 2)), limit=5)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_limit_row_a_page_is_the_end_of_the_search_up_to_it(world: World, kind: str):
    index_params = {"nlist": 4} if kind.startswith("IVF") else {}
    collection = world.client.create_collection("c", dim=8, index=kind, index_params=index_params)
    world.add("c", range(300), rows(300, 8), segments=2)
    query = rows(2, 8, seed=4)
    for offset in (0, 1, 7, 60, 295, 1_000):
        page = collection.search(query, limit=10, offset=offset)
        up_to_it = collection.search(query, limit=offset + 10)
        for hits, expected in zip(page, up_to_it, strict=True):
            assert hits.ids.tolist() == expected.ids.tolist()[offset:]
            assert hits.distances.tolist() == expected.distances.tolist()[offset:]
    if kind == "HNSW":
        with pytest.raises(InvalidArgument, match="110"):
            collection.search(query, limit=10, offset=100, params={"ef": 105})


def test_distances_row_are_rounded_to_the_decimals_asked_for(world: World):
    collection = world.client.create_collection("c", dim=4, metric="COSINE", index="FLAT")
    world.add("c", range(50), rows(50, 4))
    query = rows(1, 4, seed=3)
    exact, rounded = collection.search(query, limit=20)[0], collection.search(query, limit=20, round_decimal=2)[0]
    assert rounded.ids.tolist() == exact.ids.tolist()
    assert rounded.distances.tolist() == exact.distances.round(2).tolist()
    assert rounded.distances.tolist() != exact.distances.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_than_limit_row_short_rows_without_padding_or_repeats(world: World, kind: str):
    collection = world.client.create_collection("c", dim=8, index=kind)
    assert [len(hits) for hits in collection.search(rows(2, 8), limit=5)] == [0, 0]
    world.add("c", range(30), rows(30, 8), segments=2)
    for hits in collection.search(rows(20, 8, seed=3), limit=64):
        assert sorted(hits.ids) == list(range(30))
        assert np.isfinite(hits.distances).all()


@pytest.mark.parametrize("metric", METRICS)
def test_distances_row_do_not_depend_on_batch_segment_or_index(world: World, metric: str):
    vectors, queries = rows(600, 16), rows(70, 16, seed=5)
    seen: dict[tuple[int, int], float] = {}
    for kind in KINDS:
        for segments in (1, 4):
            name = f"{kind}-{segments}"
            params = {} if kind in {"FLAT", "HNSW"} else {"nlist": 8}
            collection = world.client.create_collection(name, dim=16, metric=metric, index=kind, index_params=params)
            world.add(name, range(600), vectors, segments=segments)
            batch = collection.search(queries, limit=5)
            alone = collection.search(queries[3], limit=5)[0]
            assert (batch[3].ids == alone.ids).all()
            assert (batch[3].distances == alone.distances).all()
            for number, hits in enumerate(batch):
                for hit in hits:
                    assert seen.setdefault((number, int(hit.id)), hit.distance) == hit.distance
    if metric == "COSINE":
        assert max(seen.values()) <= 1
        assert min(seen.values()) >= -1


@pytest.mark.parametrize("name", ["", "a.b", "-a", "a/b", "ä", "a" * 129, "a b", "../x"])
def test_names_row_a_name_outside_the_pattern_is_refused(world: World, name: str):
    with pytest.raises(InvalidArgument, match="A-Za-z0-9_"):
        world.client.create_collection(name, dim=2)
    with pytest.raises(InvalidArgument, match="A-Za-z0-9_"):
        world.client.collection(name).search(rows(1, 2))


@pytest.mark.parametrize(
    ("kind", "index_params", "params"),
    [
        ("FLAT", {}, {}),
        ("HNSW", {"M": 8, "efConstruction": 40}, {"ef": 50}),
        ("IVF_FLAT", {"nlist": 16}, {"nprobe": 16}),
        ("IVF_SQ8", {"nlist": 16}, {"nprobe": 16, "refine": 4}),
        ("IVF_PQ", {"nlist": 16, "m": 8, "nbits": 6}, {"nprobe": 16, "refine": 40}),
    ],
)
def test_index_kinds_row_each_kind_finds_the_nearest(world: World, kind: str, index_params: dict, params: dict):
    vectors, queries = rows(1_000, 32), rows(20, 32, seed=9)
    collection = world.client.create_collection("c", dim=32, index=kind, index_params=index_params)
    assert collection.describe()["vector_fields"][0]["index"] == kind
    world.add("c", range(1_000), vectors)
    results = collection.search(queries, limit=10, params=params)
    _, distances = oracle(queries, vectors, "L2", 10)
    found = sum(
        (hits.distances <= exact[-1] * (1 + 1e-5)).sum() for hits, exact in zip(results, distances, strict=True)
    )
    assert found / distances.size >= 0.95


@pytest.mark.parametrize(
    ("kind", "params", "field", "message"),
    [
        ("HNSW", {"eff": 70}, "params.eff", "'ef'"),
        ("HNSW", {"nprobe": 8}, "params.nprobe", "ef"),
        ("HNSW", {"ef": 9}, "params.ef", "10"),
        ("HNSW", {"ef": 0}, "params.ef", "10"),
        ("IVF_FLAT", {"nprobe": 0}, "params.nprobe", "1"),
        ("IVF_FLAT", {"nprobe": 17}, "params.nprobe", "16"),
        ("IVF_SQ8", {"refine": 0}, "params.refine", "1"),
        ("IVF_PQ", {"nprobe": 1.5}, "params.nprobe", "1.5"),
        ("FLAT", {"ef": 64}, "params.ef", "FLAT"),
    ],
)
def test_params_row_unknown_or_out_of_range_is_an_error_also_on_an_empty_collection(
    world: World, kind: str, params: dict, field: str, message: str
):
    index_params = {"nlist": 16} if kind.startswith("IVF") else {}
    collection = world.client.create_collection("c", dim=8, index=kind, index_params=index_params)
    with pytest.raises(InvalidArgument, match=message) as caught:
        collection.search(rows(1, 8), limit=10, params=params)
    assert caught.value.field == field
    assert len(collection.search(rows(1, 8), limit=10)) == 1


@pytest.mark.parametrize(
    ("kind", "index_params"),
    [
        ("HNSW", {"M": 1}),
        ("HNSW", {"m": 16}),
        ("IVF_FLAT", {"nlist": 65_537}),
        ("IVF_PQ", {"m": 3}),
        ("IVF_PQ", {"nbits": 17}),
        ("FLAT", {"nlist": 1}),
        ("ANNOY", {}),
    ],
)
def test_params_row_build_parameters_are_checked_when_a_collection_is_created(
    world: World, kind: str, index_params: dict
):
    with pytest.raises(InvalidArgument):
        world.client.create_collection("c", dim=8, index=kind, index_params=index_params)
    assert world.client.list_collections() == []


def test_metric_type_row_may_be_left_out_and_a_wrong_one_names_both(world: World):
    collection = world.client.create_collection("c", dim=2, metric="COSINE", index="FLAT")
    collection.search(rows(1, 2), metric_type="COSINE")
    collection.search(rows(1, 2), param={"metric_type": "COSINE", "params": {}})
    with pytest.raises(MetricMismatch, match=r"COSINE.*L2"):
        collection.search(rows(1, 2), metric_type="L2")


def test_partition_names_row_are_literal_and_only_the_named_ones_are_loaded(world: World):
    collection = world.client.create_collection("c", dim=4, index="FLAT")
    vectors = rows(30, 4)
    for number, partition in enumerate(("one", "two", "three")):
        part = slice(number * 10, number * 10 + 10)
        world.add("c", range(30)[part], vectors[part], partition=partition)
    found = collection.search(vectors[:1], limit=30, partition_names=["two", "three"])
    assert sorted(found[0].ids) == list(range(10, 30))
    assert world.cache().misses == 2
    for name in ("o.*", "four"):
        with pytest.raises((PartitionNotFound, InvalidArgument), match=name.replace("*", r"\*")):
            collection.search(vectors[:1], partition_names=["one", name])
    assert collection.list_partitions() == ["_default", "one", "three", "two"]


def test_load_and_release_row_search_loads_by_itself_load_pins_and_release_frees(world: World):
    collection = world.client.create_collection("c", dim=4, index="HNSW")
    world.add("c", range(40), rows(40, 4), segments=4)
    collection.search(rows(1, 4))
    loaded = world.cache().bytes
    assert loaded > 0
    assert world.cache().misses == 4
    collection.release()
    assert world.cache().bytes == 0
    progress: list[float] = []
    report = collection.load(on_progress=progress.append)
    assert [worker["segments"] for worker in report["workers"].values()] == [4]
    assert world.cache().bytes == loaded
    assert progress == sorted(progress)
    assert progress[-1] == 1
    misses = world.cache().misses
    assert collection.search(rows(1, 4)).timing_ms.total > 0
    assert world.cache().misses == misses
    collection.release()
    assert world.cache().bytes == 0


def test_a_load_reports_the_share_of_the_bytes_and_not_of_the_segments(world: World):
    collection = world.client.create_collection("c", dim=64, index="FLAT")
    world.add("c", range(10), rows(10, 64), partition="few")
    world.add("c", range(10, 4_000), rows(3_990, 64), partition="many")
    progress: list[float] = []
    collection.load(on_progress=progress.append)
    between = [share for share in progress if 0 < share < 1]
    assert between
    assert not any(0.1 < share < 0.9 for share in between)


def test_deadline_row_an_expired_job_is_answered_before_anything_loads(world: World):
    world.client.create_collection("c", dim=4, index="FLAT")
    world.add("c", range(4), rows(4, 4))
    past = time.time_ns() // 1_000_000 - 5_000
    job = SearchJob(collection="c", limit=1, vectors=rows(1, 4))
    with pytest.raises(DeadlineExceeded, match="ms after its deadline"):
        world.reply_to(job, headers={"nearmq-deadline": past})
    assert world.cache().misses == 0


def test_a_bad_job_in_a_batch_fails_alone(world: World):
    collection = world.client.create_collection("c", dim=4, index="HNSW")
    world.add("c", range(50), rows(50, 4))
    good = [collection.submit(rows(1, 4, seed), limit=3) for seed in range(20)]
    bad = [
        collection.submit(rows(1, 5), limit=3),
        collection.submit(rows(1, 4), limit=3, metric_type="IP"),
        collection.submit(rows(1, 4), limit=3, min_version=99),
    ]
    good += [collection.submit(rows(1, 4, seed), limit=3) for seed in range(20, 40)]
    for future, kind in zip(bad, (DimensionMismatch, MetricMismatch, VersionTimeout), strict=True):
        with pytest.raises(kind):
            future.result()
    assert [len(future.result()[0]) for future in good] == [3] * 40


@pytest.mark.parametrize("kind", KINDS)
def test_jobs_of_different_limits_in_one_batch_get_what_they_get_alone(world: World, kind: str):
    index_params = {"nlist": 16} if kind.startswith("IVF") else {}
    collection = world.client.create_collection("c", dim=16, index=kind, index_params=index_params)
    world.add("c", range(2_000), rows(2_000, 16), segments=2)
    jobs = [(rows(1 + seed % 3, 16, seed), limit) for seed, limit in enumerate([1, 3, 10, 50, 64, 200, 7] * 6)]
    alone = [collection.search(queries, limit=limit) for queries, limit in jobs]
    together = [collection.submit(queries, limit=limit) for queries, limit in jobs]
    for expected, future in zip(alone, together, strict=True):
        for one, other in zip(expected, future.result(), strict=True):
            assert one.ids.tolist() == other.ids.tolist()
            assert one.distances.tolist() == other.distances.tolist()


def test_a_collection_may_have_several_vector_fields_and_string_keys(world: World):
    fields = [
        VectorFieldSpec(name="title", dim=4, metric_type="IP", index="FLAT"),
        VectorFieldSpec(name="body", dim=6, metric_type="COSINE", index="IVF_FLAT", index_params={"nlist": 4}),
    ]
    schema = Schema(vector_fields=fields, primary_key="string")
    collection = world.client.create_collection("c", schema=schema)
    titles, bodies = rows(60, 4), rows(60, 6)
    keys = [f"row-{number:02}" for number in range(60)]
    world.add("c", keys, {"title": titles, "body": bodies}, segments=2)
    ids, _ = oracle(titles[:3], titles, "IP", 5)
    assert [list(hits.ids) for hits in collection.search(titles[:3], field="title", limit=5)] == [
        [keys[number] for number in row] for row in ids
    ]
    ids, _ = oracle(bodies[:3], bodies, "COSINE", 5)
    found = collection.search(bodies[:3], field="body", limit=5, params={"nprobe": 4})
    assert [list(hits.ids) for hits in found] == [[keys[number] for number in row] for row in ids]
    for field in (None, "bodi"):
        with pytest.raises(FieldNotFound, match="'title', 'body'"):
            collection.search(titles[:1], field=field)


def test_searches_may_be_awaited_and_their_futures_cancelled(world: World):
    collection = world.client.create_collection("c", dim=4, index="FLAT")
    vectors = rows(50, 4)
    world.add("c", range(50), vectors)

    async def search_all() -> list[SearchResults]:
        return await asyncio.gather(*(collection.search_async(vector, limit=1) for vector in vectors))

    assert [int(results[0].ids[0]) for results in asyncio.run(search_all())] == list(range(50))
    future = collection.submit(vectors[:1], limit=1)
    assert future.cancel() or future.done()
    assert collection.search(vectors[:1], limit=1)[0].ids.tolist() == [0]


def test_collections_are_created_listed_renamed_and_dropped(world: World):
    client = world.client
    client.create_collection("a", dim=2, index="FLAT")
    with pytest.raises(AlreadyExists, match="'a'"):
        client.create_collection("a", dim=3)
    world.add("a", range(3), rows(3, 2))
    renamed = client.rename_collection("a", "b")
    assert client.list_collections() == ["b"]
    assert len(renamed.search(rows(1, 2))[0]) == 3
    with pytest.raises(CollectionNotFound, match="'a'"):
        client.collection("a").search(rows(1, 2))
    assert renamed.describe()["rows"] == 3
    renamed.create_partition("p")
    assert renamed.list_partitions() == ["_default", "p"]
    renamed.drop_partition("p")
    assert renamed.list_partitions() == ["_default"]
    client.drop_collection("b")
    for call in (lambda: renamed.search(rows(1, 2)), renamed.describe, lambda: client.drop_collection("b")):
        with pytest.raises(CollectionNotFound, match="'b'"):
            call()
    assert client.list_collections() == []
