"""Replies that take more than one message, and replies to somebody else's queue."""

import numpy as np
import pika
import pytest

from nearmq.codec import decode_reply
from tests.world import amqp_world

pytestmark = [pytest.mark.broker, pytest.mark.redis]

VECTORS = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)


def test_a_reply_in_many_parts_is_one_result(broker_url: str, redis_url: str):
    with amqp_world(broker_url, redis_url, reply_part_bytes=1_024) as world:
        collection = world.client.create_collection("c", dim=8, index="FLAT")
        world.add("c", range(500), VECTORS)
        results = collection.search(VECTORS[:200], limit=20)  # some 48,000 bytes
        assert [int(hits.ids[0]) for hits in results] == list(range(200))
        assert [len(hits) for hits in results] == [20] * 200


def test_a_published_search_is_answered_to_the_queue_it_names_under_its_job_id(broker_url: str, redis_url: str):
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    channel.queue_declare("my.results", durable=True)
    with amqp_world(broker_url, redis_url) as world:
        collection = world.client.create_collection("c", dim=8, index="FLAT")
        world.add("c", range(500), VECTORS)
        job_id = collection.publish(VECTORS[:2], limit=3, reply_to="my.results")
        method, properties, body = next(channel.consume("my.results", auto_ack=True, inactivity_timeout=30))
        assert method is not None, "no reply came"
    connection.close()
    reply = decode_reply(body)
    assert (properties.correlation_id, reply.job_id, reply.status) == (job_id, job_id, "ok")
    assert [int(hits.ids[0]) for hits in reply.hits or []] == [0, 1]
