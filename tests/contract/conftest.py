"""What the contract suites run on, each empty and a test's own: blob stores, and a whole nearmq."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from nearmq.topology import declarations
from nearmq_index_store.blobs import BlobStore, open_store
from tests.servers.processes import end, free_ports, wait_ready
from tests.servers.virtual_hosts import VirtualHosts
from tests.world import World, amqp_world, embedded_world

BUCKET = "nearmq-test"


@dataclass(frozen=True)
class Place:
    """Where a store is, so that any process can open it."""

    url: str
    cache_url: str | None = None
    signing_key_file: Path | None = None

    def open(self) -> BlobStore:
        return open_store(self.url, self.cache_url, self.signing_key_file)


#: One request at a time, since moto looks for a key and then writes it: two of racing conditional puts could both win.
_S3_SERVER = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

make_server("127.0.0.1", int(sys.argv[1]), DomainDispatcherApplication(create_backend_app)).serve_forever()
"""


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A local server that speaks S3, with one bucket."""
    [port] = free_ports(1)
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-W", "ignore", "-c", _S3_SERVER, str(port)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as server:
        wait_ready(lambda: _made_bucket(endpoint), server, what="moto", timeout_s=60)
        yield endpoint
        end(server, signal.SIGKILL)


def _made_bucket(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=5):
            return True
    except urllib.error.URLError:
        return False


@pytest.fixture
def s3_url(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty prefix of this test's own; AWS's environment leads to the local server."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture
def file_url(tmp_path: Path) -> str:
    """The URL of a folder that is not there yet."""
    return f"file:{tmp_path / 'store'}"


@pytest.fixture
def signing_key_file(tmp_path: Path) -> Path:
    """A file of two keys."""
    file = tmp_path / "keys"
    file.write_text(f"{'1a' * 32}\n{'2b' * 32}\n")
    return file


_KINDS = {
    "memory": "memory:",
    "file": "file_url",
    "s3": "s3_url",
    "redis": "redis_url",
    "cached-memory": "memory:",
    "cached-file": "file_url",
    "signed-memory": "memory:",
}
_SHARED_KINDS = [kind for kind, url in _KINDS.items() if url != "memory:"]


def _place(kind: str, request: pytest.FixtureRequest) -> Place:
    url = _KINDS[kind]
    return Place(
        url if url.endswith(":") else request.getfixturevalue(url),
        request.getfixturevalue("redis_url") if kind.startswith("cached") else None,
        request.getfixturevalue("signing_key_file") if kind.startswith("signed") else None,
    )


@pytest.fixture(params=_KINDS)
def store(request: pytest.FixtureRequest) -> BlobStore:
    """An empty store of each kind."""
    return _place(request.param, request).open()


@pytest.fixture(params=_SHARED_KINDS)
def shared_place(request: pytest.FixtureRequest) -> Place:
    """An empty store of each kind that several processes can open."""
    return _place(request.param, request)


@pytest.fixture(scope="session")
def clean_urls(shared_broker: VirtualHosts) -> Iterator[list[str]]:
    """The URLs of virtual hosts that have the topology and in which earlier tests have left nothing."""
    urls: list[str] = []
    yield urls
    for url in urls:
        shared_broker.give_back(url)


@pytest.fixture
def world_url(shared_broker: VirtualHosts, clean_urls: list[str]) -> Iterator[str]:
    """The URL of a virtual host without messages; used again where it is left so, as making one takes half a second."""
    url = clean_urls.pop() if clean_urls else shared_broker.take()
    yield url
    if _is_clean(url):
        clean_urls.append(url)
    else:
        shared_broker.give_back(url)


def _is_clean(url: str) -> bool:
    """Whether every queue of the topology is there, with neither messages nor consumers."""
    with suppress(ChannelClosedByBroker), pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        declared = [channel.queue_declare(queue.name, passive=True).method for queue in declarations().queues]
        return not any(queue.message_count or queue.consumer_count for queue in declared)
    return False


@pytest.fixture(params=["embedded", pytest.param("amqp", marks=[pytest.mark.broker, pytest.mark.redis])])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A client with a worker behind it: in its process over a folder, and through RabbitMQ over Redis."""
    settings = {"threads": 2, "result_hits": 100_000, "result_bytes": 1 << 20}
    if request.param == "embedded":
        with embedded_world(f"file:{tmp_path}", **settings) as made:
            yield made
    else:
        world_url, redis_url = request.getfixturevalue("world_url"), request.getfixturevalue("redis_url")
        with amqp_world(world_url, redis_url, **settings) as made:
            yield made
