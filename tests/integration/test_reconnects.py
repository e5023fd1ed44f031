"""How connections are kept, lost, and made again, on a real broker."""

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import nearmq
from nearmq.amqp import AmqpTransport, Connection, address, apply_topology, connection
from nearmq.errors import BrokerUnavailable
from nearmq.topology import Names, declarations
from nearmq.transport import ConnectionLost, Message
from nearmq_worker import engine, service
from nearmq_worker.config import WorkerConfig
from nearmq_worker.service import Worker
from tests.chaos.proxy import FaultProxy
from tests.confirms import published
from tests.integration.peer import PATIENCE_S, eventually, peer
from tests.servers import Broker

pytestmark = pytest.mark.broker

RECONNECTS = 50


@contextmanager
def kept(url: str, on_open: Callable[[Any, Callable[[], None]], None]) -> Iterator[tuple[Connection, list[str]]]:
    """A connection, and what it was lost for."""
    lost: list[str] = []
    kept = Connection(url, name="test", on_open=on_open, on_lost=lambda fault: lost.append(fault.message))
    kept.start()
    try:
        yield kept, lost
    finally:
        kept.stop()


def open_at_once(_: Any, ready: Callable[[], None]) -> None:
    ready()


def test_the_kernel_gives_a_connection_up_whose_bytes_nobody_acknowledges(broker_url: str):
    sockets: list[socket.socket] = []

    def on_open(channel: Any, ready: Callable[[], None]) -> None:
        sockets.append(channel.connection._transport._sock)
        ready()

    with kept(broker_url, on_open):
        assert sockets[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_heartbeats_notice_a_network_that_went_silent(broker_url: str):
    with closing(FaultProxy(urlsplit(broker_url).port or 5672)) as proxy:
        url = urlsplit(broker_url)._replace(netloc=f"guest:guest@127.0.0.1:{proxy.port}", query="heartbeat=1")
        with kept(url.geturl(), open_at_once) as (connection, lost):
            proxy.held = {"up", "down"}
            eventually(lambda: bool(lost), "the loss noticed")
            proxy.held = set()
            eventually(lambda: connection.is_ready, "connected again")
        assert "heartbeat" in lost[0] or "lost" in lost[0]


def test_a_set_up_that_is_never_confirmed_is_given_up_and_made_again(broker_url: str):
    opened = 0

    def on_open(_: Any, ready: Callable[[], None]) -> None:
        nonlocal opened
        opened += 1
        if opened != 2:
            ready()

    with kept(f"{broker_url}?connection_timeout=300", on_open) as (connection, lost):
        connection.call(lambda: connection.drop(ConnectionLost("test")))
        eventually(lambda: opened == 3 and connection.is_ready, "a third set-up")
    assert lost[:2] == ["test", f"{connection.address} let us in, but set nothing up within 0.9 s"]


def test_a_first_set_up_that_is_never_confirmed_is_an_error(broker_url: str):
    silent = Connection(
        f"{broker_url}?connection_timeout=300", name="test", on_open=lambda *_: None, on_lost=lambda _: None
    )
    with pytest.raises(BrokerUnavailable, match=r"let us in, but set nothing up within 0\.9 s"):
        silent.start()


def test_a_broker_that_blocks_for_too_long_counts_as_lost(
    own_broker: Broker, own_broker_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(address, "_BLOCKED_TIMEOUT_S", 1)
    apply_topology(own_broker_url, declarations())
    connects: queue.Queue[None] = queue.Queue()
    transport = AmqpTransport(own_broker_url)
    transport.start(on_reply=lambda _: None, on_connected=lambda: connects.put(None))
    job = Message(routing_key="search.books", type="search", message_id="job-1", body=b"{}")
    try:
        connects.get(timeout=PATIENCE_S)
        own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
        try:
            with pytest.raises(ConnectionLost, match="blocked publishing for too long: a memory or disk alarm is on"):
                published(transport, job).result(PATIENCE_S)
        finally:
            own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        connects.get(timeout=PATIENCE_S)
        published(transport, job).result(PATIENCE_S)
    finally:
        transport.stop()


def test_a_worker_whose_connection_thread_is_stuck_says_so_and_ends(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    apply_topology(broker_url, declarations())
    monkeypatch.setattr(service, "_STUCK_S", 2.0)
    monkeypatch.setattr(service, "_WATCH_S", 0.1)
    worker = Worker(WorkerConfig(url=broker_url, store=f"file:{tmp_path}", name="one"))
    worker.start()
    free = threading.Event()
    try:
        # The thread that publishes: that of the deliveries lives, so only a look at both notices.
        worker._settler._connection.call(lambda: free.wait(PATIENCE_S) and None)
        assert not worker.run()
    finally:
        free.set()
        worker.stop()
    assert "worker is stuck" in caplog.messages


def test_nothing_is_left_of_fifty_lost_connections(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "_LEAST_BACKOFF_S", 0.0)
    monkeypatch.setattr(connection, "_FIRST_BACKOFF_S", 0.01)
    # What was redelivered twice starts a process, which is kept for a while, and its tracker for good.
    monkeypatch.setattr(engine, "_SUSPECTS_IDLE_S", 0.1)
    resource_tracker.ensure_running()
    apply_topology(broker_url, declarations())
    vector = np.zeros((1, 2), np.float32)
    with closing(FaultProxy(urlsplit(broker_url).port or 5672)) as proxy:
        url = urlsplit(broker_url)._replace(netloc=f"guest:guest@127.0.0.1:{proxy.port}").geturl()
        worker = Worker(WorkerConfig(url=url, store=f"file:{tmp_path}", name="one", threads=1))
        worker.start()
        try:
            with nearmq.connect(url) as client:
                books = client.create_collection("books", dim=2)
                books.upsert([1], vector)
                books.search(vector, limit=1)
                before = left_open(proxy)
                for _ in range(RECONNECTS):
                    proxy.reset()
                    assert len(books.search(vector, limit=1)[0]) == 1
                # Fewer are no leak: what the first search had opened may be closed by now.
                eventually(lambda: is_within(left_open(proxy), before), f"as before: {before}, now {left_open(proxy)}")
                assert worker._receiver._connection.generation >= RECONNECTS
                with peer(broker_url) as other:
                    search = other.channel.queue_declare(Names().queue("search"), passive=True)
                    assert search.method.consumer_count == 1
        finally:
            worker.stop()


def is_within(now: tuple[int, ...], before: tuple[int, ...]) -> bool:
    return all(count <= most for count, most in zip(now, before, strict=True))


def left_open(proxy: FaultProxy) -> tuple[int, int, int]:
    """Descriptors and threads of this process, and connections through the proxy."""
    descriptors = [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    sockets = [target for target in descriptors if not target.startswith("/")]
    return len(sockets), threading.active_count(), proxy.connections
