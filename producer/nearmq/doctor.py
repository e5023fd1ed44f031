"""What `nearmq doctor` looks at, step by step from the name in the URL to the topology, each finding with its fix.

Other distributions add checks through the entry-point group `nearmq.checks`: functions that take the settings by name
(`store`, `cache`, `signing_key_file`) and yield (check, status, message) as in `Finding`.
"""

import socket
import ssl
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Literal, cast
from urllib.parse import urlsplit

from nearmq.amqp import Address, check_topology, parse_urls
from nearmq.amqp.faults import connect_fault, is_in_container
from nearmq.errors import BrokerUnavailable, NearmqError
from nearmq.topology import declarations

CHECKS_GROUP = "nearmq.checks"

Status = Literal["ok", "note", "problem", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: what was looked at, two or three words.
        status: `note` is worth knowing and no fault; `unreachable` ends the checks of that server.
        message: what was found and, where it is not well, what to do.
    """

    check: str
    status: Status
    message: str


def findings(settings: Mapping[str, str], *, prefix: str) -> Iterator[Finding]:
    """Check everything that the settings name.

    Args:
        settings: `url` of the broker, and `store`, `cache` and `signing_key_file` where they are set.
        prefix: first word of the exchanges' and queues' names.
    """
    url = settings["url"]
    if urlsplit(url).scheme == "local":
        yield Finding(check="broker", status="note", message="the url names an embedded worker, which needs no broker")
    else:
        yield from _broker(url, prefix)
    yield from _localhost_in_a_container(settings)
    for point in sorted(entry_points(group=CHECKS_GROUP)):
        try:
            check = cast("Callable[[Mapping[str, str]], Iterable[tuple[str, Status, str]]]", point.load())
        except ImportError as error:
            yield Finding(check=point.name, status="problem", message=f"its checks cannot be loaded: {error}")
            continue
        for name, status, message in check(settings):
            yield Finding(check=name, status=status, message=message)


def _broker(url: str, prefix: str) -> Iterator[Finding]:
    try:
        addresses = parse_urls(url)
        wanted = declarations(prefix)
    except NearmqError as error:
        yield Finding(check="broker url", status="problem", message=error.message)
        return
    is_reached = False
    for address in addresses:
        is_reached = (yield from _host(address)) or is_reached
    if not is_reached:
        return
    try:
        differences = check_topology(url, wanted)
    except NearmqError as error:
        status: Status = "unreachable" if isinstance(error, BrokerUnavailable) else "problem"
        yield Finding(check="broker login", status=status, message=error.message)
        return
    yield Finding(check="broker login", status="ok", message=_login(addresses[0]))
    yield from _topology(differences)
    yield Finding(
        check="consumer timeout",
        status="note",
        message="not visible over AMQP: 30 min unless rabbitmq.conf or a policy says otherwise; it must stay well "
        "above the workers' --deadline",
    )


def _host(address: Address) -> Generator[Finding, None, bool]:
    """Go from a host's name to its TLS; return whether all that worked."""
    step = "broker name"
    try:
        socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        yield Finding(check=step, status="ok", message=address.host)
        step = "broker port"
        with closing(socket.create_connection((address.host, address.port), address.connection_timeout_s)) as plain:
            yield Finding(check=step, status="ok", message=str(address))
            if address.tls is not None:
                step = "broker TLS"
                name = address.tls_server_name or address.host
                with closing(address.tls.wrap_socket(plain, server_hostname=name)) as encrypted:
                    yield _encryption(step, encrypted, name)
    except OSError as error:
        yield Finding(check=step, status="unreachable", message=connect_fault(error, address).message)
        return False
    return True


def _encryption(step: str, encrypted: ssl.SSLSocket, name: str) -> Finding:
    if encrypted.context.verify_mode == ssl.CERT_NONE:
        message = f"{encrypted.version()}, but anybody may pose as {name}: take verify=verify_none out of the url"
        return Finding(check=step, status="problem", message=message)
    return Finding(check=step, status="ok", message=f"{encrypted.version()}, as {name}")


def _login(address: Address) -> str:
    return f"user {address.user!r} in virtual host {address.virtual_host!r}"


def _topology(differences: list[str]) -> Iterator[Finding]:
    missing = [sentence for sentence in differences if sentence.endswith("is missing")]
    if missing:
        message = f"{', '.join(missing)}: run `nearmq topology apply`"
        yield Finding(check="topology", status="problem", message=message)
    for sentence in differences:
        if sentence not in missing:
            yield Finding(check="topology", status="problem", message=sentence)
    if not differences:
        yield Finding(check="topology", status="ok", message="every exchange and queue is in place")


def _localhost_in_a_container(settings: Mapping[str, str]) -> Iterator[Finding]:
    if not is_in_container():
        return
    for name in ("store", "cache"):
        parts = urlsplit(settings.get(name, ""))
        if parts.scheme in {"redis", "rediss"} and parts.hostname in {"localhost", "127.0.0.1", "::1"}:
            yield Finding(
                check=f"{name} host",
                status="note",
                message=f"inside this container {parts.hostname!r} is the container itself: if Redis runs elsewhere, "
                "use its service name",
            )
