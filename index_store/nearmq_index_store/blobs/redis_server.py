"""A Redis server as the adapters of `redis.py` use it: bounded waits, one kind of error, no secrets in any text.

The one module that imports redis.
"""

import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.errors import InvalidArgument, StoreUnavailable

#: A command and its arguments.
Command = tuple[str | int | bytes | bytearray | memoryview, ...]

#: Must be below the reply timeout. With `appendfsync everysec` a sync is at most some two seconds away.
WAITAOF_TIMEOUT_MS = 8_000

#: The end of a reply.
_LINE_END = b"\r\n"

_TLS_HINT = (
    "; is it a TLS port, or should the scheme be redis? If it asks for a certificate of ours, name it and its key "
    "(--tls-cert-file and --tls-key-file, or ?ssl_certfile= and &ssl_keyfile= in the url)"
)


class RedisServer:
    """A pool of connections to one server, for any number of threads.

    Every method raises StoreUnavailable when the server cannot be reached in time or answers with an error.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, reply_timeout_s: float, retries: int) -> None:
        """Prepare a client; nothing is sent yet.

        Args:
            url: `redis://` or `rediss://`, options of redis-py in its query (`ssl_ca_certs=…`, `ssl_certfile=…`,
                `ssl_keyfile=…`). The server's certificate and name are verified unless the query says otherwise.
            connect_timeout_s: for one attempt to connect.
            reply_timeout_s: for one reply.
            retries: repeats of a command, or of a whole pipeline, whose connection broke or timed out.

        Raises:
            InvalidArgument: the URL is malformed or has an unknown option.
        """
        try:
            parts = urlsplit(url)
            if not (path := parts.path.strip("/")).isdigit() and path:
                raise InvalidArgument("the path of a redis url is no database number", field="store")
            self._client = redis.Redis.from_url(
                url,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=reply_timeout_s,
                retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.1), retries),
            )
            settings = self._client.connection_pool.connection_kwargs
            self._client.connection_pool.connection_class(**settings)  # connects to nothing; checks the options
        except (ValueError, TypeError, RedisError):
            # The library quotes pieces of the URL, which may be pieces of a password.
            raise InvalidArgument("redis url is not redis://[USER:PASSWORD@]HOST[:PORT][/DB]", field="store") from None
        _check_files(settings)
        #: The server and database, without credentials.
        self.id = f"{parts.scheme}://{settings['host']}:{settings.get('port', 6379)}/{settings.get('db', 0)}"

    def command(self, *command: str | int | bytes | bytearray | memoryview) -> Any:
        """Run one command and return its reply as it came."""
        return self.pipeline(command)[0]

    def pipeline(self, *commands: Command) -> list[Any]:
        """Run commands on one connection, sent together, and return their replies as they came."""
        return self._exchanged(lambda connection: _exchange(connection, commands))

    def bulk(self, size: int, *command: str | int) -> Buffer | None:
        """Run one command whose reply is so many bytes, and return it, without the copies that a parser makes.

        Whatever else the server replies comes as from `command`.
        """
        reply: Buffer | None = self._exchanged(lambda connection: _exchange_bulk(connection, command, size))[0]
        return reply

    def close_idle(self) -> None:
        """Close connections that are not in use: hiredis keeps the buffer of a large reply until the next reply."""
        self._client.connection_pool.disconnect(inuse_connections=False)

    def transaction(self, *commands: Command) -> list[Any]:
        """Run commands as one atomic step and return their replies."""
        return self._replies_of(self.pipeline(("MULTI",), *commands, ("EXEC",))[-1])

    def synced_transaction(self, *commands: Command) -> list[Any]:
        """Run commands as one atomic step and return their replies once it is in the synced append-only file."""
        wait = ("WAITAOF", 1, 0, WAITAOF_TIMEOUT_MS)
        *_, replies, (synced, _) = self.pipeline(("MULTI",), *commands, ("EXEC",), wait)
        if not synced:
            raise StoreUnavailable(f"{self.id} has not synced its append-only file within {WAITAOF_TIMEOUT_MS} ms")
        return self._replies_of(replies)

    def has_waitaof(self) -> bool:
        """Say whether WAITAOF works: Redis 7.2 with an append-only file, and the user may call it."""
        return self._ask("WAITAOF", 1, 0, 1) is not None

    def what_a_crash_loses(self) -> str | None:
        """Say in one sentence what a crash of the server may lose of acknowledged writes; None when nothing."""
        config = self._ask("CONFIG", "GET", "append*")
        if config is None:
            return f"a crash of {self.id}, which does not show its settings, may lose acknowledged writes"
        settings = _pairs(config)
        match settings.get("appendonly"), settings.get("appendfsync"):
            case "yes", "always":
                return None
            case "yes", "everysec":
                return f"a crash of {self.id} may lose the last two seconds of writes (appendfsync everysec)"
            case "yes", policy:
                return f"a crash of {self.id} may lose the last half minute of writes (appendfsync {policy})"
        return f"a crash of {self.id} loses every write since its last snapshot (appendonly no)"

    def eviction_policy(self) -> str | None:
        """Name what the server evicts when its memory is full, such as `allkeys-lru`; None when it does not say."""
        info = self._ask("INFO", "memory")  # managed servers answer this where they refuse CONFIG
        if info is None:
            return None
        lines = dict(line.partition(":")[::2] for line in _text(info).splitlines())
        return lines.get("maxmemory_policy")

    def _exchanged(self, exchange: Callable[[Any], list[Any]]) -> list[Any]:
        """Return what an exchange on a connection gives, made again where the connection breaks."""
        # On the connection itself: redis-py's pipeline adds 50 us, would take a transaction's QUEUED for the reply,
        # and quotes a command with its payload when that fails.
        with self._translated():
            connection = self._client.connection_pool.get_connection()
            try:
                replies = connection.retry.call_with_retry(
                    lambda: exchange(connection),
                    lambda _: connection.disconnect(),  # type: ignore[no-untyped-call]
                )
            finally:
                self._client.connection_pool.release(connection)
            _raise_first_error(replies)
            return replies

    def _ask(self, *command: str | int) -> Any:
        """Run a command that the server may refuse or not know; None when it does."""
        try:
            return self.command(*command)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, ResponseError):
                return None
            raise

    def _replies_of(self, executed: list[Any]) -> list[Any]:
        with self._translated():
            _raise_first_error(executed)
        return executed

    def _hint(self) -> str:
        """Ask for what is only seen as silence: one side speaks TLS, the other does not."""
        return _TLS_HINT if self.id.startswith("rediss:") else "; is it a TLS port (scheme rediss)"

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise StoreUnavailable(f"{self.id} refused the login: {error}") from error
        except RedisConnectionError as error:
            raise StoreUnavailable(f"{self.id} {_tls_fault(error) or f'failed: {error}{self._hint()}'}") from error
        except RedisTimeoutError as error:
            raise StoreUnavailable(f"{self.id} failed: {error}{self._hint()}") from error
        except RedisError as error:
            raise StoreUnavailable(f"{self.id} failed: {error}") from error


def _exchange(connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Send all commands and read all replies, errors among them, so that the connection is ready for the next."""
    connection.send_packed_command(connection.pack_commands(commands))
    return [_reply(connection) for _ in commands]


def _exchange_bulk(connection: Any, command: Command, size: int) -> list[Any]:
    """Exchange one command for a reply of so many bytes, received where they stay; for any other, as `_exchange` does.

    The parser reads 64 KiB at a time, copies them into its buffer and from there into the reply: 128 MiB take two
    threads 96 ms so, 66 without. A reply that is another (an error, nothing, what the server pushes) is only peeked at.
    """
    connection.send_packed_command(connection.pack_command(*command))
    peer = connection._sock  # noqa: SLF001 - nothing public has it
    if isinstance(peer, ssl.SSLSocket):  # which cannot be peeked at
        return [_reply(connection)]
    header = b"$%d\r\n" % size
    try:
        if peer.recv(len(header), socket.MSG_PEEK) == header:
            return [_receive(peer, len(header) + size + len(_LINE_END))[len(header) : -len(_LINE_END)]]
    except TimeoutError as error:
        raise RedisTimeoutError("timeout reading from socket") from error
    except OSError as error:
        raise RedisConnectionError(f"error while reading from socket: {error}") from error
    except BaseException:
        connection.disconnect()  # or the rest would be the next reply
        raise
    return [_reply(connection)]


def _receive(peer: socket.socket, size: int) -> memoryview:
    data = np.empty(size, dtype=np.uint8).data
    received = 0
    while received < size:
        count = peer.recv_into(data[received:])
        if not count:
            raise ConnectionResetError("closed by the server")
        received += count
    return data


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


def _raise_first_error(replies: list[Any]) -> None:
    for reply in replies:
        if isinstance(reply, RedisError):
            raise reply


def _check_files(settings: dict[str, Any]) -> None:
    """Read the files of certificates and key, which redis-py reads at the first connection and then blames on that."""
    authority, cert, key = (settings.get(name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"))
    if not (authority or cert or key):
        return  # a context reads the system's authorities too, for 50 ms
    try:
        context = ssl.create_default_context(cafile=authority)
        if cert or key:
            context.load_cert_chain(cert or "", key, settings.get("ssl_password"))
    except OSError as error:  # ssl.SSLError is one too
        raise InvalidArgument(f"the TLS files of the redis url cannot be read: {error}", field="store") from error


def _tls_fault(error: BaseException) -> str | None:
    """Say what is wrong with a TLS connection, and what to do; None where nothing is."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    match cause:
        case None:
            return None
        case ssl.SSLCertVerificationError(verify_code=9 | 10):  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, …_HAS_EXPIRED
            fix = "let the server have a new one, or set the clock of this machine"
        case ssl.SSLCertVerificationError(verify_code=62 | 64):  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
            fix = "connect by a name that it has"
        case ssl.SSLCertVerificationError():
            fix = "name the authority that signed it (--tls-ca-file, or ?ssl_ca_certs= in the url)"
        case (
            _
        ):  # TLS 1.3 asks for a certificate after the handshake; whether the server's word for that is seen is a race
            reason = getattr(cause, "reason", None) or cause
            return f"failed in TLS ({reason}){_TLS_HINT}"
    return f"has a certificate that was refused ({cause.verify_message.rstrip('.')}): {fix}"


def _pairs(reply: dict[bytes, bytes] | list[bytes]) -> dict[str, str]:
    """Read the reply of CONFIG GET, a map in RESP3 and a flat list in RESP2."""
    items = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return {_text(name): _text(value) for name, value in items}


def _text(reply: bytes | str) -> str:
    return reply.decode() if isinstance(reply, bytes) else reply
