"""Rows written by queue: together in one version, in publish order, once for each job id, each with its own answer."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from nearmq.errors import (
    AlreadyExists,
    CollectionNotFound,
    DeadlineExceeded,
    DimensionMismatch,
    FieldNotFound,
    InvalidArgument,
    JobExpired,
)
from nearmq.job_message import job_message
from nearmq.jobs import (
    CreateJob,
    DeleteJob,
    InsertJob,
    Job,
    Reply,
    ScalarFieldSpec,
    SearchJob,
    UpsertJob,
    VectorFieldSpec,
)
from nearmq.requests import final
from tests.world import World

DIM = 4


@pytest.fixture
def books(world: World) -> World:
    fields = [ScalarFieldSpec(name="year", type="int64", nullable=True)]
    vectors = [VectorFieldSpec(name="vector", dim=DIM)]
    world.client.submit(CreateJob(collection="books", vector_fields=vectors, scalar_fields=fields)).result()
    return world


def upsert(ids: Sequence[int], value: float = 0.0, kind: type[Any] = UpsertJob, **options: Any) -> Job:
    vectors = np.full((len(ids), DIM), value, np.float32) + np.array(ids, np.float32)[:, np.newaxis]
    job: Job = kind(collection="books", ids=list(ids), vectors=vectors, **options)
    return job


def run(world: World, job: Job, **options: Any) -> dict[str, Any]:
    return world.client.submit(job, **options).result().result or {}


def found(world: World, *, limit: int = 100, **options: Any) -> list[int]:
    query = np.zeros((1, DIM), np.float32)
    reply = world.client.submit(SearchJob(collection="books", vectors=query, limit=limit, **options)).result()
    assert reply.hits is not None
    return sorted(reply.hits[0].ids.tolist())


def test_rows_are_found_as_soon_as_their_write_is_answered_and_no_more_when_deleted(books: World):
    written = run(books, upsert(range(10), fields={"year": [2000 + row for row in range(10)]}))
    assert written == {"collection": "books", "version": 2, "inserted": 10, "replaced": 0}
    assert found(books, min_version=2) == list(range(10))
    assert run(books, DeleteJob(collection="books", ids=[3, 4, 99]))["deleted"] == 2
    assert run(books, DeleteJob(collection="books", expr="year >= {y}", expr_params={"y": 2008}))["deleted"] == 2
    assert found(books) == [0, 1, 2, 5, 6, 7]
    assert found(books, expr="year < 2002") == [0, 1]
    moved = run(books, upsert([5, 20], value=50.0))
    assert (moved["inserted"], moved["replaced"]) == (1, 1)
    assert found(books, limit=2) == [0, 1]
    assert found(books, expr="year is null") == [5, 20]


def test_many_waiting_writes_take_effect_in_publish_order_in_few_versions(books: World):
    futures: list[Future[Reply]] = []
    left: set[int] = set()
    for number in range(200):
        futures.append(books.client.submit(upsert([number % 7], value=float(number))))
        left.add(number % 7)
        if number % 5 == 4:
            left.remove(number % 7)
            futures.append(books.client.submit(DeleteJob(collection="books", ids=[number % 7])))
    replies = [future.result() for future in futures]
    versions = [reply.version for reply in replies]
    assert versions == sorted(versions)  # type: ignore[type-var]  # all have one
    assert len(set(versions)) < len(versions) / 2
    gone = [reply.result["deleted"] for reply in replies if reply.result and "deleted" in reply.result]
    assert gone == [1] * 40
    assert found(books) == sorted(left)


def test_a_bad_write_fails_alone_with_what_is_wrong(books: World):
    jobs = [
        upsert([1, 2]),
        upsert([2, 3], kind=InsertJob),
        upsert([4], fields={"yaer": [1]}),
        upsert([4], fields={"year": ["x"]}),
        UpsertJob(collection="books", ids=["a"], vectors=np.zeros((1, DIM), np.float32)),
        UpsertJob(collection="books", ids=[4], vectors=np.zeros((1, DIM + 1), np.float32)),
        upsert([5]),
    ]
    futures = [books.client.submit(job) for job in jobs]
    errors = [future.exception() for future in futures]
    assert [type(error) for error in errors] == [
        type(None),
        AlreadyExists,
        FieldNotFound,
        InvalidArgument,
        InvalidArgument,
        DimensionMismatch,
        type(None),
    ]
    messages = [str(error) for error in errors]
    assert "ids[0] is 2" in messages[1]
    assert "did you mean 'year'" in messages[2]
    assert "row 0: field 'year': expected int64, got 'x'" in messages[3]
    assert "ids[0] is 'a'" in messages[4]
    assert found(books) == [1, 2, 5]
    with pytest.raises(CollectionNotFound):
        run(books, UpsertJob(collection="boks", ids=[1], vectors=np.zeros((1, DIM), np.float32)))


def test_a_job_published_twice_takes_effect_once_and_is_answered_alike(books: World):
    now_ms = int(time.time() * 1_000)
    job_id = str(UUID(int=now_ms << 80 | 0x7 << 76 | 0x2 << 62 | 5))
    first = run(books, upsert([1, 2]), job_id=job_id)
    run(books, DeleteJob(collection="books", ids=[1]))
    assert run(books, upsert([1, 2]), job_id=job_id) == first
    assert found(books) == [2]


def test_a_write_that_took_effect_is_not_told_that_its_deadline_passed(books: World):
    past = {"nearmq-deadline": int(time.time() * 1_000) - 1}
    done = job_message(upsert([1, 2]), reply_to=books.client._transport.reply_to)
    first = books.client._requests.submit(done, timeout_s=30, gather=final).result()
    again = books.reply_to(upsert([1, 2]), message_id=done.message_id, correlation_id=done.message_id, headers=past)
    assert (again.result, again.version) == (first.result, first.version)
    with pytest.raises(DeadlineExceeded):
        books.reply_to(upsert([3]), headers=past)
    assert found(books) == [1, 2]


def test_a_write_older_than_the_ledger_is_refused(books: World):
    old_ms = int((time.time() - 8 * 86_400) * 1_000)
    old_id = str(UUID(int=old_ms << 80 | 0x7 << 76 | 0x2 << 62 | 5))
    with pytest.raises(JobExpired, match=r"8\.0 days ago"):
        run(books, upsert([1]), job_id=old_id)
    undated = "an id without a time"
    with pytest.raises(JobExpired):
        books.reply_to(upsert([1]), message_id=undated, correlation_id=undated, timestamp_s=old_ms // 1_000)
    assert found(books) == []


def test_a_field_is_added_while_rows_are_there(books: World):
    run(books, upsert([1]))
    found(books, output_fields=["year"])  # so that the segment is in memory, opened with the fields of before
    notes = [ScalarFieldSpec(name="note", type="json", nullable=True)]
    run(books, CreateJob(collection="books", scalar_fields=notes))
    run(books, upsert([2], fields={"note": [{"a": [1, None]}]}))
    query = np.zeros((1, DIM), np.float32)
    job = SearchJob(collection="books", vectors=query, limit=5, output_fields=["*"])
    reply = books.client.submit(job).result()
    assert reply.hits is not None
    assert reply.hits[0].fields == {"year": [None, None], "note": [None, {"a": [1, None]}]}
    assert found(books, expr="note is null") == [1]
    with pytest.raises(AlreadyExists, match="'note'"):
        run(books, CreateJob(collection="books", scalar_fields=notes))
