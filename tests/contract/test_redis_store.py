"""What is Redis's own: what it promises, what it refuses, how little it may be allowed, and a reply that got lost."""

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest
import redis

from nearmq_index_store.blobs import open_store
from nearmq_index_store.blobs.redis import RedisStore
from nearmq_index_store.errors import BlobNotFound, InvalidArgument, StoreUnavailable
from tests import servers

#: A worker that writes, as docs/security.md sets it up: never scripting, admin or dangerous commands.
WRITER = "+@read +@write +@transaction +@connection -@dangerous -@scripting -@admin %RW~nearmq:*"


@pytest.mark.parametrize(
    ("options", "loses"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), None),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "the last two seconds of writes (appendfsync everysec)"),
        (("--appendonly", "no"), "every write since its last snapshot (appendonly no)"),
    ],
)
def test_it_says_what_a_crash_of_the_server_may_lose(
    private_redis: Callable[..., servers.Redis], options: tuple[str, ...], loses: str | None
):
    server = private_redis(*options)
    durability = RedisStore(server.url).durability
    with redis.Redis.from_url(server.url) as client:
        has_waitaof = b"waitaof" in client.command_list()
    if loses is None or (has_waitaof and "yes" in options):
        assert durability is None
    else:
        assert loses in durability


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused_as_the_store(private_redis: Callable[..., servers.Redis], policy: str):
    server = private_redis("--maxmemory-policy", policy)
    with pytest.raises(InvalidArgument, match=f"maxmemory-policy {policy}.* needs noeviction"):
        open_store(server.url)
    open_store("memory:", server.url)


def test_a_full_server_is_unavailable_and_still_read(private_redis: Callable[..., servers.Redis]):
    store = RedisStore(private_redis("--maxmemory", "24mb").url)
    store.put("c/fits", b"x" * 5_000_000)
    with pytest.raises(StoreUnavailable, match="maxmemory"):
        store.put("c/large", b"x" * 30_000_000)
    assert list(store.list("c/")) == ["c/fits"]
    assert len(store.get("c/fits")) == 5_000_000
    store.put("c/fits-too", b"x" * 5_000_000)  # so what had been written of the large one is gone


def test_a_user_without_dangerous_commands_can_do_everything(private_redis: Callable[..., servers.Redis]):
    server = private_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "worker", "on", ">s3cret", *WRITER.split())
    store = RedisStore(server.url.replace("//", "//worker:s3cret@"))
    assert "does not show whether it evicts blobs" in store.durability
    assert "may lose acknowledged writes" in store.durability
    store.put("c/large", b"x" * 9_000_000)
    assert store.put_if_absent("c/small", b"x")
    assert store.exists("c/large")
    assert sorted(store.list("c/")) == ["c/large", "c/small"]
    assert len(store.get("c/large", 4_000_000)) == 5_000_000
    store.delete("c/large")
    with pytest.raises(BlobNotFound):
        store.get("c/large")


def test_nothing_but_what_is_listed_is_kept(redis_url: str):
    store = RedisStore(redis_url)
    store.put("c/1", b"x" * 9_000_000)
    store.put("c/1", b"y" * 9_000_000)
    store.put("c/1", b"small")
    store.put("c/2", b"x" * 9_000_000)
    store.delete("c/2")
    with redis.Redis.from_url(redis_url) as client:
        assert sorted(client.keys()) == [b"nearmq:blob:{c}/1", b"nearmq:index:{c}"]
        assert client.zrange("nearmq:index:{c}", 0, -1) == [b"c/1"]


def test_a_blob_with_a_lost_chunk_is_not_found(redis_url: str):
    store = RedisStore(redis_url)
    store.put("c/1", b"x" * 9_000_000)
    with redis.Redis.from_url(redis_url) as client:
        [second] = client.keys("nearmq:chunk:*:1")
        client.delete(second)
    with pytest.raises(BlobNotFound, match="chunk 1 of blob 'c/1'"):
        store.get("c/1")
    assert store.get("c/1", 0, 4_000_000) == b"x" * 4_000_000


def test_a_reader_of_a_blob_that_is_replaced_sees_one_or_the_other(redis_url: str):
    store, writer = RedisStore(redis_url), RedisStore(redis_url)
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for byte in (b"a", b"b"):
                writer.put("c/1", byte * 9_000_000)

    writer.put("c/1", b"a" * 9_000_000)
    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(10):
            assert len(set(bytes(store.get("c/1")))) == 1
    finally:
        stop.set()
        thread.join()


@contextlib.contextmanager
def losing_the_reply_to(command: bytes, server_port: int) -> Iterator[int]:
    """Give the port of a proxy that drops the reply to the first request with this command, and the connection."""
    lost = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", server_port)) as server:
            while request := client.recv(65_536):
                server.sendall(request)
                reply = server.recv(65_536)
                if command in request and not lost.is_set():
                    lost.set()
                    return
                client.sendall(reply)

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed below
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
    assert lost.is_set()


def test_a_put_if_absent_whose_first_reply_is_lost_knows_its_own_write(private_redis: Callable[..., servers.Redis]):
    port = int(private_redis().url.rpartition(":")[2].partition("/")[0])
    with losing_the_reply_to(b"EXEC", port) as proxy_port:
        store = RedisStore(f"redis://127.0.0.1:{proxy_port}/0")
        assert store.put_if_absent("c/m/1", b"manifest")
        assert not store.put_if_absent("c/m/1", b"another")
        store._server._client.close()


@pytest.mark.parametrize("login", ["", ":wr0ng@"])
def test_a_refused_login_is_said_and_shows_no_password(private_redis: Callable[..., servers.Redis], login: str):
    server = private_redis()
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "s3cret")
    with pytest.raises(StoreUnavailable, match="refused the login") as refused:
        RedisStore(server.url.replace("//", f"//{login}"))
    shown = "".join(traceback.format_exception(refused.value))
    assert "wr0ng" not in shown
    assert "s3cret" not in shown
