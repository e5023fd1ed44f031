"""No password is in what nearmq logs, prints, raises or starts."""

import logging
import os
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis

import nearmq
from nearmq.amqp import AmqpTransport, apply_topology, parse_url
from nearmq.cli import run
from nearmq.topology import declarations
from nearmq_index_store.blobs import open_store
from nearmq_worker.config import WorkerConfig
from nearmq_worker.isolation import IsolatedProcess
from tests import servers
from tests.integration.peer import eventually
from tests.worker_process import NEARMQ

pytestmark = [pytest.mark.broker, pytest.mark.redis]

SECRET = "hunter2-of-redis"
BROKERS = "hunter3-of-rabbit"


def test_a_worker_shows_no_password_in_its_log_arguments_or_children(
    own_broker: servers.Broker,
    own_broker_url: str,
    private_redis: Callable[..., servers.Redis],
    tmp_path: Path,
):
    store = private_redis()
    with redis.Redis.from_url(store.url) as admin:
        admin.execute_command("ACL", "SETUSER", "default", "resetpass", f">{SECRET}")
    apply_topology(own_broker_url, declarations())
    parts = urllib.parse.urlsplit(own_broker_url)
    host = parts.path[1:]
    own_broker.rabbitmqctl(
        "eval",
        f'rabbit_auth_backend_internal:add_user(<<"hunted">>, <<"{BROKERS}">>, <<"test">>), '
        f'rabbit_auth_backend_internal:set_permissions(<<"hunted">>, <<"{host}">>, <<".*">>, <<".*">>, <<".*">>, '
        '<<"test">>), ok.',
    )
    broker_url = parts._replace(netloc=f"hunted:{BROKERS}@{parts.hostname}:{parts.port}").geturl()
    secrets = {"URL": broker_url, "STORE": store.url.replace("redis://", f"redis://:{SECRET}@")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NEARMQ_")}
    for name, url in secrets.items():
        (tmp_path / name).write_text(url)
        environment[f"NEARMQ_{name}_FILE"] = str(tmp_path / name)
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [NEARMQ, "worker", "run", "--log-level", "debug"], env=environment, cwd=tmp_path, stdout=log, stderr=log
        )
    try:
        with nearmq.connect(broker_url, timeout_s=60) as client:
            eventually(lambda: answers(client), "a worker")
            books = client.create_collection("books", dim=2, index="FLAT")
            books.upsert([1], np.ones((1, 2), dtype=np.float32))
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                assert_hidden(read(path), f"the arguments of {path}")
            own_broker.rabbitmqctl("close_all_connections", "-p", host, "tried")
            store.kill()
            with pytest.raises(nearmq.errors.NearmqError) as caught:
                books.search([[1.0, 1.0]], timeout_s=30)
            assert_hidden(repr(caught.value) + str(caught.value), "an error")
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    text = (tmp_path / "log").read_text()
    assert "connection lost" in text
    assert_hidden(text, "the log")


def _arguments_of_itself(config: WorkerConfig) -> Callable[[str], bytes]:
    assert SECRET in config.store
    return lambda name: Path(f"/proc/self/{name}").read_bytes()


def test_the_process_of_a_suspect_gets_no_password_in_its_arguments():
    process: IsolatedProcess[str] = IsolatedProcess(partial(_arguments_of_itself, WorkerConfig(store=SECRET)))
    try:
        assert_hidden(process.run("cmdline", timeout_s=60).decode(), "the arguments of a suspect's process")
    finally:
        process.close()


def answers(client: nearmq.Client) -> bool:
    try:
        return bool(client.workers(timeout_s=5))
    except nearmq.errors.NearmqError:
        return False


def read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def own_process() -> Iterator[None]:
    """What `worker run` sets for its process is undone."""
    root, interval = logging.getLogger(), sys.getswitchinterval()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.setswitchinterval(interval)


def assert_hidden(text: str, where: str) -> None:
    for secret in (SECRET, BROKERS, "hunter"):
        assert secret not in text.replace("hunted", ""), f"a password is in {where}"


@pytest.mark.usefixtures("own_process")
@pytest.mark.parametrize(
    "arguments",
    [
        ["doctor"],
        ["doctor", "--json"],
        ["topology", "check"],
        ["search", "books", "nothing.npy"],
        ["count", "books"],
        ["store", "list"],
        ["worker", "run"],
        ["jobs"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "urls",
    [
        ("amqp://user:hunter2@127.0.0.1:1/", "redis://:hunter2@127.0.0.1:1/0"),
        ("amqp://user:hun/ter2@127.0.0.1/", "redis://user:hunter2@127.0.0.1:1/hunter2"),
        ("amqp://user:hunter2@[::1/x", "redis://user:hunter2@[::1/x"),
        ("amqps://user:hunter2@127.0.0.1:1?cacertfile=gone", "rediss://:hunter2@127.0.0.1:1?ssl_ca_certs=gone"),
        ("amqp://user:hunter2@127.0.0.1:1?secret=hunter2", "redis://:hunter2@127.0.0.1:1?secret=hunter2"),
        ("hunter2://user:hunter2@127.0.0.1", "s3://key:hunter2@bucket/x?y"),
    ],
    ids=["away", "unquoted", "malformed", "tls", "query", "scheme"],
)
def test_no_command_prints_a_password_whatever_is_wrong_with_its_urls(
    arguments: list[str], urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("NEARMQ_URL", urls[0])
    monkeypatch.setenv("NEARMQ_STORE", urls[1])
    run(arguments)
    printed = capfd.readouterr()
    text = (printed.out + printed.err).replace("scheme 'hunter2'", "").replace("'hunter2' is", "")
    assert "hunter2" not in text
    assert "ter2" not in text


def test_no_object_shows_a_password_of_its_url():
    amqp, stored = "amqp://user:hunter2@127.0.0.1:1", "redis://:hunter2@127.0.0.1:1"
    config = WorkerConfig(url=amqp, store=stored, cache=stored)
    objects = [config, parse_url(amqp), AmqpTransport(amqp), open_store("memory:", stored)]
    for each in objects:
        assert "hunter2" not in f"{each!r} {each!s}"
