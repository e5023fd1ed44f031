"""docs/asyncapi.yaml beside what really passes the broker: each job of the client's, and each reply of a worker's."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pika
import pytest

from nearmq import ScalarFieldSpec, Schema, VectorFieldSpec, errors
from nearmq.bundles import BUNDLE_TYPE
from nearmq.codec import encode_job
from nearmq.jobs import JOB_TYPES, SearchJob
from nearmq.parts import HEADER as PART_HEADER
from nearmq.parts import join
from nearmq.topology import Names
from tests.integration.peer import Peer, peer
from tests.wire_document import DOCUMENT, faults
from tests.world import World, amqp_world

pytestmark = [pytest.mark.broker, pytest.mark.redis]

NAMES = Names()
JOBS, REPLIES = "tapped.jobs", "tapped.replies"
VECTORS = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
SCHEMA = Schema(
    vector_fields=[
        VectorFieldSpec(name="title", dim=8),
        VectorFieldSpec(name="cover", dim=8, index="IVF_FLAT", index_params={"nlist": 4}),
    ],
    scalar_fields=[
        ScalarFieldSpec(name="year", type="int64"),
        ScalarFieldSpec(name="meta", type="json", nullable=True),
    ],
)
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=b"}


@dataclass
class Seen:
    """What was tapped, checked as it came; `named` counts the messages of the document that it was."""

    types: dict[str, str] = field(default_factory=dict)
    named: Counter[str] = field(default_factory=Counter)
    slices: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def add_job(self, routing_key: str, properties: pika.BasicProperties, body: bytes) -> None:
        told, tree = as_headers(properties), json.loads(body)
        self.check(told["type"], told, tree)
        address = DOCUMENT["channels"][told["type"]]["address"]
        assert routing_key == address.format(collection=tree.get("collection"))
        self.types[told["message_id"]] = told["type"]

    def add_reply(self, properties: pika.BasicProperties, body: bytes) -> None:
        told = as_headers(properties)
        if PART_HEADER in told:
            self.check("replyPart", told, "")
            number, count = map(int, told[PART_HEADER].split("/"))
            slices = self.slices.setdefault(told["message_id"], {})
            slices[number] = body
            if len(slices) == count:
                self.check_answer(json.loads(join(slices)))
        elif told["type"] == BUNDLE_TYPE:
            self.check("repliesTogether", told, json.loads(body))
            for tree in json.loads(body):
                self.check_answer(tree)
        else:
            tree = json.loads(body)
            self.check(self.check_answer(tree), told, tree)
            assert told["correlation_id"] == tree["job_id"]  # the client's jobs have their id as correlation id

    def check_answer(self, tree: dict[str, Any]) -> str:
        """Check the body of a reply as that to its job's type, and return which message it is."""
        job_type = self.types[tree["job_id"]]
        name = {"error": "errorReply", "partial": "progressReply"}.get(tree["status"], f"{job_type}Reply")
        assert f"#/channels/replies/messages/{name}" in [
            message["$ref"] for message in DOCUMENT["operations"][job_type]["reply"]["messages"]
        ]
        assert faults(name, "payload", tree, closed=True) == []
        self.named[name] += 1
        return name

    def check(self, name: str, headers: dict[str, Any], payload: Any) -> None:
        assert faults(name, "headers", headers, closed=True) == []
        assert faults(name, "payload", payload, closed=True) == []
        self.named[name] += 1


def as_headers(properties: pika.BasicProperties) -> dict[str, Any]:
    """Return properties and headers as the document has them: one object."""
    basic = {name: value for name, value in vars(properties).items() if value is not None and name != "headers"}
    return basic | {name: int(one) if isinstance(one, int) else one for name, one in (properties.headers or {}).items()}


@pytest.fixture
def tapped(broker_url: str, redis_url: str) -> Iterator[tuple[World, Peer]]:
    """A client, a worker, and copies of their messages in two queues; hardened, so that replies pass an exchange."""
    settings = {"reply_pattern": r"reply\..+", "reply_part_bytes": 4_096, "threads": 2}
    with amqp_world(broker_url, redis_url, **settings) as world, peer(broker_url) as tap:
        tap.channel.queue_declare(JOBS, durable=True)
        tap.channel.queue_declare(REPLIES, durable=True)
        tap.channel.queue_bind(JOBS, NAMES.default, "#")
        tap.channel.queue_bind(JOBS, NAMES.control)
        tap.channel.queue_bind(REPLIES, NAMES.replies, world.client._transport.reply_to)
        yield world, tap


def test_all_that_client_and_worker_publish_is_as_the_document_says(tapped: tuple[World, Peer]):
    world, tap = tapped
    write_and_read(world)
    seen = Seen()
    for _ in range(20):  # rounds, until some replies happened to leave together
        searches = [world.client.collection("novels").submit(VECTORS[:1], limit=1, field="title") for _ in range(64)]
        assert [len(search.result()) for search in searches] == [1] * 64
        drain(tap, seen)
        if seen.named["repliesTogether"]:
            break

    names = {name for name in DOCUMENT["components"]["messages"] if name != "deadLetter"}
    assert set(seen.named) == names
    assert {seen.types[job_id] for job_id in seen.types} == set(JOB_TYPES)


def write_and_read(world: World) -> None:
    """Publish jobs of every type, with most of the keys that there are."""
    client = world.client
    books = client.create_collection("books", schema=SCHEMA)
    books.create_partition("old")
    books.add_field("language", "string")
    rows = {"title": VECTORS, "cover": VECTORS}
    books.upsert(range(300), rows, {"year": list(range(300)), "meta": [{"a": [1, None]}] * 300})
    books.insert([300], {"title": VECTORS[:1], "cover": VECTORS[:1]}, {"year": [5]}, partition_name="old")
    books.upsert([7], {"title": VECTORS[:1], "cover": VECTORS[:1]}, {"year": [5]})
    books.delete([9])
    books.delete(expr="year == {year}", expr_params={"year": 11}, partition_name="_default")
    books.compact()
    books.build()
    for encoding in ("json", "base64"):
        for id_format in ("int", "string"):
            read(world, encoding=encoding, id_format=id_format)
    assert books.count("year > 100") > 0
    books.load(field="title")
    books.release(["old"])
    client.workers()
    client.jobs()
    client.cancel("nobody's")
    assert client.list_collections() == ["books"]
    books.describe()
    books.drop_partition("old")
    with pytest.raises(errors.FieldNotFound):
        books.search(VECTORS[:1], limit=1, field="nonesuch")
    with pytest.raises(errors.CollectionNotFound):
        client.drop_collection("nonesuch")
    client.rename_collection("books", "novels")


def read(world: World, *, encoding: str, id_format: str) -> None:
    told = {"encoding": encoding, "id_format": id_format}
    job = SearchJob(
        collection="books",
        vectors=VECTORS[:2],
        limit=3,
        field="cover",
        params={"nprobe": 2},
        expr="year >= {first}",
        expr_params={"first": 2},
        partition_names=["_default", "old"],
        output_fields=["*"],
        round_decimal=3,
        min_version=1,
        explain=True,
        **told,
    )
    world.reply_to(job, body=encode_job(job, packed=False), headers=TRACE)
    world.reply_to(SearchJob(collection="books", vectors=VECTORS[:150], limit=10, field="title", **told))  # in parts
    world.reply_to(SearchJob(collection="books", ids=[1, 10_000], limit=2, field="title", **told))
    world.reply_to(JOB_TYPES["get"](collection="books", ids=[1, 2], output_fields=["*", "title"], **told))
    world.reply_to(JOB_TYPES["query"](collection="books", limit=3, after=5, output_fields=["year"], **told))


def drain(tap: Peer, seen: Seen) -> None:
    """Take what was tapped; of a reply there is a copy as soon as its client has it."""
    for method, properties, body in taken(tap, JOBS):
        seen.add_job(method.routing_key, properties, body)
    for _, properties, body in taken(tap, REPLIES):
        seen.add_reply(properties, body)


def taken(tap: Peer, queue: str) -> Iterator[Any]:
    while True:
        method, properties, body = tap.channel.basic_get(queue, auto_ack=True)
        if method is None:
            return
        yield method, properties, body


def test_a_dead_letter_is_as_the_document_says(tapped: tuple[World, Peer]):
    world, tap = tapped
    with contextlib.suppress(errors.InvalidArgument):
        world.client.publish(JOB_TYPES["list"](), reply_to="nobody.listens")
    properties, body = tap.get(NAMES.dead)
    told = as_headers(properties)
    assert faults("deadLetter", "headers", told, closed=True) == []
    assert {"nearmq-reason", "nearmq-queue"} <= set(told)
    assert json.loads(body) == {"format": 1}
