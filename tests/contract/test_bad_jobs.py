"""Every bad job is answered with its code, and the job after it as if nothing had been."""

import json
from typing import Any

import numpy as np
import pytest

from nearmq.errors import CollectionNotFound, InvalidArgument, LimitExceeded, NearmqError
from nearmq.jobs import SearchJob
from tests.unit.test_refused_jobs import INVALID
from tests.world import World


@pytest.fixture
def good(world: World) -> SearchJob:
    """A search that the world answers."""
    world.client.create_collection("books", dim=3, index="FLAT")
    world.add("books", range(5), np.eye(5, 3))
    return SearchJob(collection="books", limit=2, vectors=np.zeros((1, 3), np.float32))


def refusal(world: World, good: SearchJob, **properties: Any) -> NearmqError:
    with pytest.raises(NearmqError) as caught:
        world.reply_to(good, **properties)
    return caught.value


def test_every_bad_body_is_answered_with_its_code_and_field_and_the_next_job_is_served(world: World, good: SearchJob):
    for body, field, named in INVALID.values():
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        error = refusal(world, good, body=raw)
        assert type(error) is InvalidArgument
        assert error.field == field
        assert named in error.message
        assert len(world.reply_to(good).hits[0].ids) == 2


PROPERTIES = {
    "type unknown": ({"type": "serch"}, "INVALID_ARGUMENT", "type"),
    "type of another queue": ({"type": "drop", "body": b'{"collection": "books"}'}, "INVALID_ARGUMENT", "routing_key"),
    "routing key of another collection": ({"routing_key": "search.other"}, "INVALID_ARGUMENT", "routing_key"),
    "compressed": ({"content_encoding": "gzip"}, "INVALID_ARGUMENT", "content_encoding"),
    "no JSON": ({"content_type": "text/plain"}, "INVALID_ARGUMENT", "content_type"),
    "deadline a text": ({"headers": {"nearmq-deadline": "tomorrow"}}, "INVALID_ARGUMENT", "deadline"),
    "deadline long ago": ({"headers": {"nearmq-deadline": 1}}, "DEADLINE", None),
    "body too long": ({"body": b" " * (9 << 20)}, "LIMIT_EXCEEDED", "body"),
    "body too deep": ({"body": b"[" * (1 << 20)}, "LIMIT_EXCEEDED", "body"),
}


@pytest.mark.parametrize("case", PROPERTIES)
def test_bad_properties_are_answered_with_their_code(world: World, good: SearchJob, case: str):
    properties, code, field = PROPERTIES[case]
    error = refusal(world, good, **properties)
    assert (error.code, error.field) == (code, field)
    assert world.client.list_collections() == ["books"]
    assert len(world.reply_to(good).hits[0].ids) == 2


def test_the_client_checks_before_it_publishes(world: World):
    collection = world.client.create_collection("books", dim=3, index="FLAT")
    for vectors in ([["a"]], [[1, 2], [3]], [[float("nan")] * 3], [[1e300] * 3], np.zeros((1, 1, 3)), [[]]):
        with pytest.raises(InvalidArgument) as caught:
            collection.search(vectors)
        assert str(caught.value.field).startswith("vectors")
    with pytest.raises(LimitExceeded):
        collection.search(np.zeros((16_385, 3)))
    with pytest.raises(InvalidArgument, match="list of names"):
        collection.search(np.zeros((1, 3)), partition_names="one")
    with pytest.raises(InvalidArgument, match="either param"):
        collection.search(np.zeros((1, 3)), param={"params": {}}, params={"ef": 64})


def test_jobs_on_a_collection_that_is_not_there_are_answered(world: World):
    collection = world.client.collection("nothing")
    for call in (lambda: collection.search([[1.0]]), collection.load, collection.release, collection.describe):
        with pytest.raises(CollectionNotFound, match="'nothing'"):
            call()
