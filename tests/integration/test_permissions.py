"""What each user may do on a real broker with the permissions of `nearmq.permissions`, and nothing else."""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pika
import pika.exceptions
import pytest

import nearmq
from nearmq.amqp import apply_topology, check_topology
from nearmq.cli import run
from nearmq.errors import PermissionDenied
from nearmq.permissions import permissions
from nearmq.topology import declarations
from nearmq_worker.config import WorkerConfig
from nearmq_worker.service import Worker
from tests import servers
from tests.integration.peer import eventually, peer
from tests.servers.virtual_hosts import VirtualHosts

pytestmark = pytest.mark.broker

USERS = {
    "admin": permissions("admin"),
    "worker": permissions("worker"),
    "open-worker": permissions("worker", hardened=False),
    "acme": permissions("producer", user="acme"),
    "other": permissions("producer", user="other"),
    "viewer": permissions("reader", user="viewer"),
}
PATTERN = r"reply\.(acme|viewer)\..+"


@dataclass(frozen=True)
class Tenant:
    """A virtual host with the topology, and the URL of each user that may enter it."""

    admin: str
    url_of: dict[str, str]


@pytest.fixture(scope="module")
def tenant(own_broker: servers.Broker, own_virtual_hosts: VirtualHosts) -> Tenant:
    url = own_virtual_hosts.take()
    parts = urllib.parse.urlsplit(url)
    own_broker.rabbitmqctl("eval", f"{', '.join(_granted(parts.path[1:]))}, ok.")
    url_of = {user: parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}").geturl() for user in USERS}
    apply_topology(url_of["admin"], declarations())
    with peer(url) as everyone:
        everyone.channel.queue_declare("reply.acme.1", durable=True)
        everyone.channel.queue_declare("somebodys", durable=True)
    return Tenant(url, url_of)


def _granted(virtual_host: str) -> Iterator[str]:
    """Erlang's calls: one rabbitmqctl for all, since each takes a second to start."""
    host = f'<<"{virtual_host}">>'
    for user, granted in USERS.items():
        patterns = ", ".join(json.dumps(text) for text in (granted.configure, granted.write, granted.read))
        binaries = ", ".join(f"<<{text}>>" for text in patterns.split(", "))
        yield f'rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"secret">>, <<"test">>)'
        yield f'ok = rabbit_auth_backend_internal:set_permissions(<<"{user}">>, {host}, {binaries}, <<"test">>)'
        if granted.topics is not None:
            topics = f'<<"nearmq.jobs">>, <<{json.dumps(granted.topics)}>>, <<".*">>'
            yield f'ok = rabbit_auth_backend_internal:set_topic_permissions(<<"{user}">>, {host}, {topics}, <<"test">>)'


@contextmanager
def hardened_worker(url: str, store: str, **settings: Any) -> Iterator[Worker]:
    worker = Worker(WorkerConfig(url=url, store=store, name="w1", threads=1, reply_pattern=PATTERN, **settings))
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def test_topology_worker_and_producer_do_their_work(tenant: Tenant, tmp_path: Path):
    with hardened_worker(tenant.url_of["worker"], f"file:{tmp_path}"):
        with nearmq.connect(tenant.url_of["acme"]) as client:
            books = client.create_collection("books", dim=4, index="FLAT")
            for start in range(0, 600, 10):  # so many small segments that the worker asks for compaction
                books.upsert(list(range(start, start + 10)), np.eye(10, 4, dtype=np.float32) + start)
            assert books.load()["workers"].keys() == {"w1"}
            assert books.search(np.eye(1, 4, dtype=np.float32), limit=1)[0].ids.tolist() == [0]
            eventually(lambda: books.compact()["segments_after"] == 1, "compaction")
        with nearmq.connect(tenant.url_of["viewer"]) as client:
            books = client.collection("books")
            assert (books.count(), client.list_collections()) == (600, ["books"])
            assert books.get([7]).ids.tolist() == [7]
            with pytest.raises(PermissionDenied, match=r"upsert.books"):
                books.upsert([1], np.zeros((1, 4), dtype=np.float32), timeout_s=10)
    assert check_topology(tenant.url_of["worker"], declarations()) == []
    with peer(tenant.admin) as everyone:
        assert everyone.count("nearmq.dead") == 0


def test_a_reply_leaves_a_hardened_worker_only_by_the_exchange_of_replies(tenant: Tenant, tmp_path: Path):
    outside = ["reply.other.1", "somebodys", "amq.rabbitmq.reply-to", "nearmq.search"]
    with peer(tenant.admin) as everyone, hardened_worker(tenant.url_of["worker"], f"file:{tmp_path}"):
        for reply_to in [*outside, "reply.acme.unbound"]:
            body = b"{}"
            if reply_to == "amq.rabbitmq.reply-to":
                everyone.channel.basic_consume(reply_to, lambda *_: None, auto_ack=True)
            everyone.publish("list", body, exchange="nearmq.jobs", type="list", message_id="1", reply_to=reply_to)
            reason = everyone.get("nearmq.dead")[0].headers["nearmq-reason"]
            if reply_to in outside:
                assert reason.startswith(f"reply_to '{reply_to}")
            else:
                assert reason == "no queue is bound to 'nearmq.replies' as 'reply.acme.unbound'"
        assert everyone.count("somebodys") == everyone.count("nearmq.search") == 0


def test_progress_goes_nowhere_that_a_reply_may_not_go(tenant: Tenant, tmp_path: Path):
    with peer(tenant.admin) as everyone, hardened_worker(tenant.url_of["worker"], f"file:{tmp_path}"):
        everyone.publish(
            "load.books",
            b'{"format": 1, "collection": "books"}',
            exchange="nearmq.jobs",
            type="load",
            message_id="1",
            reply_to="nearmq.search",
        )
        everyone.get("nearmq.dead")
        assert everyone.count("nearmq.search") == 0


def test_a_reader_gets_no_write_in_by_a_copy_that_the_broker_makes(tenant: Tenant, tmp_path: Path):
    """RabbitMQ routes by the header CC too, and 3.10 asks no topic permission for that; the worker refuses the copy."""
    with hardened_worker(tenant.url_of["worker"], f"file:{tmp_path}"):
        with nearmq.connect(tenant.url_of["acme"]) as client:
            client.create_collection("mine", dim=2, index="FLAT")
        with peer(tenant.url_of["viewer"]) as viewer, peer(tenant.admin) as everyone:
            for job_type in ("drop", "search"):
                viewer.publish(
                    "search.mine",
                    b'{"format": 1, "collection": "mine"}',
                    exchange="nearmq.jobs",
                    type=job_type,
                    message_id=job_type,
                    headers={"CC": ["drop.mine"]},
                )
                reasons = [everyone.get("nearmq.dead")[0].headers["nearmq-reason"] for _ in range(2)]
                assert set(reasons) == {"INVALID_ARGUMENT"}
        with nearmq.connect(tenant.url_of["acme"]) as client:
            assert client.list_collections() == ["mine"]


Operation = Callable[[Any], object]


def publish(exchange: str, key: str) -> Operation:
    return lambda channel: channel.basic_publish(exchange, key, b"{}", pika.BasicProperties(type="search"))


OPERATIONS: dict[str, Operation] = {
    "publish search.books to nearmq.jobs": publish("nearmq.jobs", "search.books"),
    "publish upsert.books to nearmq.jobs": publish("nearmq.jobs", "upsert.books"),
    "publish drop.books to nearmq.jobs": publish("nearmq.jobs", "drop.books"),
    "publish compact.books to nearmq.jobs": publish("nearmq.jobs", "compact.books"),
    "publish straight to nearmq.search": publish("", "nearmq.search"),
    "publish straight to nearmq.write": publish("", "nearmq.write"),
    "publish straight to nearmq.dead": publish("", "nearmq.dead"),
    "publish straight to a reply queue": publish("", "reply.acme.1"),
    "publish straight to somebody's queue": publish("", "somebodys"),
    "publish to nearmq.default": publish("nearmq.default", "search.books"),
    "publish to nearmq.control": publish("nearmq.control", "load.books"),
    "publish to nearmq.replies": publish("nearmq.replies", "reply.acme.1"),
    "publish to nearmq.dead": publish("nearmq.dead", ""),
    "publish to amq.topic": publish("amq.topic", "x"),
    "consume nearmq.search": lambda channel: channel.basic_consume("nearmq.search", lambda *_: None),
    "consume nearmq.write": lambda channel: channel.basic_consume("nearmq.write", lambda *_: None),
    "get from nearmq.dead": lambda channel: channel.basic_get("nearmq.dead"),
    "get from acme's reply queue": lambda channel: channel.basic_get("reply.acme.1"),
    "get from somebody's queue": lambda channel: channel.basic_get("somebodys"),
    "purge nearmq.search": lambda channel: channel.queue_purge("nearmq.search"),
    "purge nearmq.dead": lambda channel: channel.queue_purge("nearmq.dead"),
    "delete nearmq.search": lambda channel: channel.queue_delete("nearmq.search", if_unused=True, if_empty=True),
    "delete nearmq.jobs": lambda channel: channel.exchange_delete("nearmq.jobs", if_unused=True),
    "declare nearmq.more": lambda channel: channel.queue_declare("nearmq.more"),
    "declare another's reply queue": lambda channel: channel.queue_declare("reply.other.2"),
    "declare a queue of its own": lambda channel: channel.queue_declare("mine"),
    "declare a queue that the broker names": lambda channel: channel.queue_declare(""),
    "declare an exchange": lambda channel: channel.exchange_declare("reply", "fanout"),
    "listen to all jobs": lambda channel: channel.queue_bind("reply.acme.1", "nearmq.jobs", "#"),
    "listen to nearmq.control": lambda channel: channel.queue_bind("reply.acme.1", "nearmq.control", ""),
    "listen to nearmq.dead": lambda channel: channel.queue_bind("reply.acme.1", "nearmq.dead", ""),
    "listen to nearmq.replies": lambda channel: channel.queue_bind("reply.acme.1", "nearmq.replies", "reply.acme.1"),
    "unbind nearmq.search": lambda channel: channel.queue_unbind("nearmq.search", "nearmq.default", "search.#"),
    "lead jobs elsewhere": lambda channel: channel.exchange_bind("amq.topic", "nearmq.jobs", "#"),
    "lead foreign messages into nearmq.jobs": lambda channel: channel.exchange_bind("nearmq.jobs", "amq.topic", "#"),
}
WORKERS = {
    "publish compact.books to nearmq.jobs",
    "publish to nearmq.replies",
    "publish to nearmq.dead",
    "consume nearmq.search",
    "consume nearmq.write",
    "purge nearmq.search",  # whoever may consume may purge: docs/security.md says so
}
STRAIGHT = {name for name in OPERATIONS if "publish straight" in name}
READERS = {"publish search.books to nearmq.jobs"}
PRODUCERS = {name for name in OPERATIONS if name.endswith("to nearmq.jobs") and name.startswith("publish")}
OWN_REPLIES = {"get from acme's reply queue", "listen to nearmq.replies"}


@pytest.mark.parametrize(
    ("user", "allowed"),
    [
        ("worker", WORKERS),
        ("open-worker", WORKERS | STRAIGHT),
        ("acme", PRODUCERS | OWN_REPLIES),
        ("other", PRODUCERS | {"declare another's reply queue"}),
        ("viewer", READERS),
    ],
)
def test_a_user_may_do_what_its_role_needs_and_is_refused_all_else(tenant: Tenant, user: str, allowed: set[str]):
    with pika.BlockingConnection(pika.URLParameters(tenant.url_of[user])) as connection:
        done = {name for name, operation in OPERATIONS.items() if is_allowed(connection, operation)}
    assert done == allowed


def test_an_admin_has_nothing_to_do_with_what_is_not_nearmqs(tenant: Tenant):
    foreign = ["get from acme's reply queue", "get from somebody's queue", *STRAIGHT]
    foreign += [name for name in OPERATIONS if name.startswith("declare") and "nearmq" not in name]
    with pika.BlockingConnection(pika.URLParameters(tenant.url_of["admin"])) as connection:
        assert [name for name in foreign if is_allowed(connection, OPERATIONS[name])] == []


def is_allowed(connection: pika.BlockingConnection, operation: Operation) -> bool:
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        operation(channel)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 403:
            raise
        return False
    except (pika.exceptions.UnroutableError, pika.exceptions.NackError):
        return True
    channel.close()
    return True


def test_the_command_prints_what_an_operator_runs(capsys: pytest.CaptureFixture[str]):
    assert run(["topology", "permissions", "reader", "--user", "viewer", "--vhost", "acme"]) == 0
    set_permissions, set_topics = capsys.readouterr().out.splitlines()
    assert set_permissions == (
        r"rabbitmqctl set_permissions -p acme viewer '^reply\.viewer\..*$' '^(nearmq\.jobs|reply\.viewer\..*)$' "
        r"'^(nearmq\.replies|reply\.viewer\..*)$'"
    )
    assert set_topics.startswith("rabbitmqctl set_topic_permissions -p acme viewer nearmq.jobs '^(search|get|")
    assert run(["topology", "permissions", "worker", "--user", "w", "-Q", "fast", "--no-hardened", "--json"]) == 0
    granted = json.loads(capsys.readouterr().out)
    assert granted["read"].startswith(r"^(nearmq\.search|nearmq\.write|nearmq\.maintain|fast|")
    assert granted["write"].endswith(r"|amq\.default)$")
