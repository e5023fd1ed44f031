"""Replies that are received past the parser of redis-py, from a server that says what the test tells it to."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from nearmq_index_store.blobs.redis_server import RedisServer
from nearmq_index_store.errors import StoreUnavailable

DATA = bytes(range(256)) * 4_096
REPLY = b"$%d\r\n%s\r\n" % (len(DATA), DATA)


@contextmanager
def served(*replies: Sequence[bytes], retries: int = 0) -> Iterator[RedisServer]:
    """Give a client of a server that sends these pieces to each GET in turn; after an empty one it hangs up."""
    left = list(replies)

    def serve(client: socket.socket) -> None:
        with client, suppress(ConnectionError):
            while request := client.recv(65_536):
                client.sendall(b"+OK\r\n" * request.count(b"CLIENT\r\n"))
                if b"GET\r\n" not in request:
                    continue
                for piece in left.pop(0):
                    if not piece:
                        return
                    client.sendall(piece)
                    time.sleep(0.02)  # so that each comes alone

    def accept() -> None:
        with suppress(OSError):  # closed below
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        server = RedisServer(
            f"redis://127.0.0.1:{listener.getsockname()[1]}?protocol=2",
            connect_timeout_s=5,
            reply_timeout_s=0.5,
            retries=retries,
        )
        try:
            yield server
        finally:
            server.close_idle()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()


@pytest.mark.parametrize(
    "pieces",
    [[REPLY], [REPLY[:1], REPLY[1:]], [REPLY[:9], REPLY[9:]], [REPLY[:10], REPLY[10:500_000], REPLY[500_000:]]],
)
def test_a_reply_is_whole_however_it_comes(pieces: list[bytes]):
    with served(pieces, [REPLY]) as server:
        assert server.bulk(len(DATA), "GET", "chunk") == DATA
        assert server.bulk(len(DATA), "GET", "chunk") == DATA


@pytest.mark.parametrize(("reply", "expected"), [(b"$-1\r\n", None), (b"$3\r\nabc\r\n", b"abc"), (b"$0\r\n\r\n", b"")])
def test_another_reply_than_so_many_bytes_comes_as_of_any_command(reply: bytes, expected: bytes | None):
    with served([reply], [REPLY]) as server:
        assert server.bulk(len(DATA), "GET", "chunk") == expected
        assert server.bulk(len(DATA), "GET", "chunk") == DATA


def test_an_error_is_raised_and_leaves_the_connection_ready():
    with served([b"-LOADING Redis is loading\r\n"], [REPLY]) as server:
        with pytest.raises(StoreUnavailable, match="loading"):
            server.bulk(len(DATA), "GET", "chunk")
        assert server.bulk(len(DATA), "GET", "chunk") == DATA


def test_a_reply_that_breaks_off_is_asked_for_again():
    with served([REPLY[:500_000], b""], [REPLY], retries=1) as server:
        assert server.bulk(len(DATA), "GET", "chunk") == DATA


@pytest.mark.parametrize("pieces", [[], [REPLY[:500_000]], [REPLY[:500_000], b""], [b""]])
def test_what_is_left_of_a_reply_that_failed_is_never_taken_for_the_next(pieces: list[bytes]):
    with served(pieces, [REPLY]) as server:
        with pytest.raises(StoreUnavailable):
            server.bulk(len(DATA), "GET", "chunk")
        assert server.bulk(len(DATA), "GET", "chunk") == DATA
