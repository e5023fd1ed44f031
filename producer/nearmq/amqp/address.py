"""Where a broker is and how to log in there, read from an AMQP URL as RabbitMQ specifies it."""

import socket
import ssl
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import pika

from nearmq.errors import InvalidArgument

APP_ID = f"nearmq/{version('nearmq')}"

#: The query parameters that are understood, of RabbitMQ's list: heartbeat in seconds, connection_timeout in ms.
_QUERY_NAMES = (
    "heartbeat",
    "connection_timeout",
    "cacertfile",
    "certfile",
    "keyfile",
    "verify",
    "server_name_indication",
)

#: How long a memory or disk alarm may block a publishing connection before it counts as lost. pika waits for ever.
_BLOCKED_TIMEOUT_S = 60
#: How long the kernel lets sent bytes go unacknowledged: a cut cable is seen at the next send, not after 15 minutes.
_TCP_USER_TIMEOUT_MS = 15_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A broker, a virtual host and a login. Its `str` is host and port, and nothing ever prints the password."""

    host: str
    port: int
    virtual_host: str
    user: str
    password: str = field(repr=False)
    heartbeat_s: int = 30
    connection_timeout_s: float = 10.0
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def parameters(self, connection_name: str) -> pika.ConnectionParameters:
        """Return what pika connects with; one attempt, since `Connection` does the reconnecting.

        Args:
            connection_name: what RabbitMQ's lists of connections show.
        """
        return pika.ConnectionParameters(
            host=self.host,
            port=self.port,
            virtual_host=self.virtual_host,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat_s,
            blocked_connection_timeout=_BLOCKED_TIMEOUT_S,
            socket_timeout=self.connection_timeout_s,
            stack_timeout=self.connection_timeout_s * 1.5,
            ssl_options=pika.SSLOptions(self.tls, self.tls_server_name or self.host) if self.tls else None,
            # Linux only; pika logs a warning when it is asked for elsewhere.
            tcp_options={"TCP_USER_TIMEOUT": _TCP_USER_TIMEOUT_MS} if hasattr(socket, "TCP_USER_TIMEOUT") else None,
            client_properties={
                "connection_name": connection_name,
                "product": "nearmq",
                "version": version("nearmq"),
                "platform": f"Python {sys.version.split()[0]}, pika {version('pika')}",
            },
        )


def parse_urls(url: str) -> tuple[Address, ...]:
    """Read a URL that may name several hosts of one cluster, `amqp://user:password@one:5672,two,three/vhost`.

    All but host and port is the same for all of them.

    Raises:
        InvalidArgument: as `parse_url`.
    """
    try:
        parts = urlsplit(url)
    except ValueError as error:  # such as a bracket that is not closed
        raise _refused(str(error)) from None
    login, at, hosts = parts.netloc.rpartition("@")
    return tuple(parse_url(parts._replace(netloc=f"{login}{at}{host}").geturl()) for host in hosts.split(","))


def parse_url(url: str) -> Address:
    """Read `amqp[s]://user:password@host:port/vhost?heartbeat=30&connection_timeout=10000`.

    All but the scheme may lack. No path and the path `/` both mean the virtual host `/`, as in pika and in RabbitMQ's
    tutorials, though the URI specification reads the second as a virtual host without a name.

    Raises:
        InvalidArgument: the message never holds the URL, which may hold a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"amqp", "amqps"}:
        raise _refused(f"scheme {parts.scheme!r} is not amqp or amqps")
    options = _options(parts.query)
    is_tls = parts.scheme == "amqps"
    return Address(
        host=parts.hostname or "localhost",
        port=_port(parts) or (5671 if is_tls else 5672),
        virtual_host=_virtual_host(parts.path),
        user=unquote(parts.username) if parts.username else "guest",
        password=unquote(parts.password or "") if parts.username else "guest",
        heartbeat_s=_whole_number(options, "heartbeat", 30),
        connection_timeout_s=_whole_number(options, "connection_timeout", 10_000) / 1000,
        tls=_tls(options) if is_tls else None,
        tls_server_name=options.get("server_name_indication"),
    )


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise _refused(
            "the port is not a number from 0 to 65535; a password with '/', '@', ':' or '#' in it is to be "
            "percent-encoded"
        ) from None


def _virtual_host(path: str) -> str:
    name = path.removeprefix("/")
    if "/" in name:
        raise _refused(f"virtual host {name!r} holds a '/', which is written %2F")
    return unquote(name) or "/"


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in _QUERY_NAMES:
            raise _refused(f"query parameter {name!r} is unknown, known are {', '.join(_QUERY_NAMES)}")
    return options


def _whole_number(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise _refused(f"query parameter {name} is {text!r}, expected a whole number")
    return int(text)


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    verify = options.get("verify", "verify_peer")
    if verify not in {"verify_peer", "verify_none"}:
        raise _refused(f"query parameter verify is {verify!r}, allowed are verify_peer and verify_none")
    try:
        context = ssl.create_default_context(cafile=options.get("cacertfile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:  # ssl.SSLError is one too
        raise _refused(f"the TLS files cannot be read: {error}") from error
    if verify == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(f"url: {message}", field="url")
