"""Compaction by queue: by itself when segments become many, and when it is asked for."""

import time
from typing import Any

import msgspec
import numpy as np
import pytest

from nearmq.errors import CollectionNotFound, InvalidArgument
from nearmq.jobs import BuildJob, CompactJob, CreateJob, DeleteJob, Job, SearchJob, UpsertJob, VectorFieldSpec
from nearmq_index_store.compaction import tiers
from tests.world import World

DIM = 8


@pytest.fixture
def books(world: World) -> World:
    vectors = [VectorFieldSpec(name="vector", dim=DIM, index="HNSW")]
    world.client.submit(CreateJob(collection="books", vector_fields=vectors)).result()
    return world


def rows(first: int, count: int) -> UpsertJob:
    vectors = np.random.default_rng(first).standard_normal((count, DIM), dtype=np.float32)
    return UpsertJob(collection="books", ids=list(range(first, first + count)), vectors=vectors)


def result(world: World, job: Job) -> dict[str, Any]:
    return world.client.submit(job).result().result or {}


def segments(world: World) -> list[str]:
    """The kinds of the segments' indexes."""
    snapshot = world.catalog.snapshot("books")
    return [entry.indexes["vector"].kind for entry in snapshot.segments]


def found(world: World) -> list[int]:
    query = np.zeros((1, DIM), np.float32)
    reply = world.client.submit(SearchJob(collection="books", vectors=query, limit=1_000)).result()
    assert reply.hits is not None
    return sorted(reply.hits[0].ids.tolist())


def test_a_collection_of_many_small_segments_compacts_by_itself(books: World):
    for number in range(20):
        result(books, rows(number * 10, 10))
        assert len(found(books)) == (number + 1) * 10
    deadline = time.monotonic() + 30
    while len(segments(books)) >= 8 or "HNSW" not in segments(books):
        assert time.monotonic() < deadline, segments(books)
        time.sleep(0.05)
    assert found(books) == list(range(200))


def test_what_is_left_of_a_collection_is_merged_when_nobody_writes(books: World, monkeypatch: pytest.MonkeyPatch):
    for number in range(3):
        result(books, rows(number * 10, 10))
    assert result(books, CompactJob(collection="books"))["segments_after"] == 3
    monkeypatch.setattr(tiers, "_LEISURE_S", 0.1)
    result(books, rows(30, 10))
    deadline = time.monotonic() + 30
    while segments(books) != ["HNSW"]:
        assert time.monotonic() < deadline, segments(books)
        time.sleep(0.05)
    assert found(books) == list(range(40))


def test_a_segment_that_a_job_builds_is_measured_and_answers_with_the_recall_that_is_asked_for(books: World):
    for number in range(5):
        result(books, rows(number * 500, 500))
    query = SearchJob(
        collection="books", vectors=np.zeros((1, DIM), np.float32), limit=5, params={"recall": 0.8}, explain=True
    )
    ways = [part["way"] for part in books.client.submit(query).result().explain or []]
    assert set(ways) == {"exact"}
    result(books, BuildJob(collection="books"))
    (built,) = books.client.submit(query).result().explain or []
    assert (built["rows"], built["way"]) == (2_500, "index")
    assert 10 <= built["params"]["ef"] < 64
    with pytest.raises(InvalidArgument, match=r"above 0 and at most 1, got 1\.5") as refused:
        books.client.submit(msgspec.structs.replace(query, params={"recall": 1.5})).result()
    assert refused.value.field == "params.recall"


def test_build_leaves_one_indexed_segment_without_the_deleted_rows(books: World):
    for number in range(4):
        result(books, rows(number * 10, 10))
    result(books, DeleteJob(collection="books", ids=list(range(0, 40, 4))))
    built = result(books, BuildJob(collection="books"))
    assert built == {
        "collection": "books",
        "version": 7,
        "segments_before": 4,
        "segments_after": 1,
        "rows": 30,
        "dropped": 10,
    }
    assert segments(books) == ["HNSW"]
    assert found(books) == [row for row in range(40) if row % 4]
    again = result(books, CompactJob(collection="books"))
    assert (again["segments_before"], again["segments_after"], again["version"]) == (1, 1, 7)


def test_maintenance_of_a_collection_that_is_not_there_is_an_error(books: World):
    with pytest.raises(CollectionNotFound, match="boks"):
        result(books, CompactJob(collection="boks"))


def test_writes_slow_down_when_compaction_lags_behind_and_say_so(books: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        books.engine._maintenance,
        "_limits",
        books.engine._maintenance._limits.__class__(waiting_segments=1, min_inputs=4),
    )
    monkeypatch.setattr(books.engine._maintenance, "_publish", lambda _: None)
    slowdowns = [result(books, rows(number * 10, 10)).get("slowdown_ms", 0) for number in range(6)]
    assert slowdowns[:3] == [0, 0, 0]
    assert sorted(slowdowns[3:]) == slowdowns[3:]
    assert slowdowns[3] >= 1_000
