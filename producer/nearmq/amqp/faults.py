"""What pika and the sockets under it raise, told apart for people: each cause with its fix, and never a password."""

import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout

from nearmq.amqp.address import Address
from nearmq.errors import BrokerUnavailable, InvalidArgument, NearmqError, PermissionDenied
from nearmq.transport import ConnectionLost

_ACCESS_REFUSED = 403
_NOT_FOUND = 404
_RESOURCE_LOCKED = 405
_PRECONDITION_FAILED = 406

#: As RabbitMQ words it: inequivalent arg 'x' for queue 'q' in vhost '/': received A but current is B.
_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)' in vhost '[^']*': "
    r"received (?P<wanted>.+) but current is (?P<current>.+)$"
)


def connect_fault(error: BaseException, address: Address) -> NearmqError:
    """Say why a connection could not be opened: name, refused, silence, TLS, protocol, login or virtual host."""
    cause = _root(error)
    return (
        _network_fault(cause, address)
        or _handshake_fault(cause, address)
        or BrokerUnavailable(f"connection to {address} failed: {str(cause) or type(cause).__name__}")
    )


def lost_fault(error: BaseException, address: Address) -> NearmqError:
    """Say why an open connection or channel was closed: an operation refused, or the connection lost."""
    match error:
        case pika.exceptions.ChannelClosedByBroker():
            return _channel_fault(error.reply_code, error.reply_text, address)
        case pika.exceptions.ConnectionBlockedTimeout():
            return ConnectionLost(
                f"{address} blocked publishing for too long: a memory or disk alarm is on (rabbitmq-diagnostics alarms)"
            )
        case pika.exceptions.AMQPHeartbeatTimeout():
            return ConnectionLost(f"{address} sent no heartbeat for {address.heartbeat_s} s")
        case pika.exceptions.ConnectionClosedByBroker():
            return ConnectionLost(f"{address} closed the connection: {error.reply_text}")
        case _:
            return ConnectionLost(f"connection to {address} was lost: {error}")


def _network_fault(cause: BaseException, address: Address) -> NearmqError | None:
    match cause:
        case socket.gaierror():
            return BrokerUnavailable(
                f"the host name {address.host!r} cannot be resolved: check the name; between containers it is the "
                f"service's name{_container_hint(address)}"
            )
        case ConnectionRefusedError():
            return BrokerUnavailable(
                f"connection to {address} was refused: is RabbitMQ running there, and is the port right (5672, with "
                f"TLS 5671){_container_hint(address)}"
            )
        case TimeoutError() | AMQPConnectorStackTimeout() | pika.exceptions.ConnectionOpenAborted():
            return BrokerUnavailable(
                f"{address} did not answer within {address.connection_timeout_s:g} s: is a firewall between, or "
                "another server on that port"
            )
        case ssl.SSLError():
            return BrokerUnavailable(f"TLS: {_tls_fault(cause, address)}")
    return None


def _tls_fault(error: ssl.SSLError, address: Address) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_code=9 | 10):  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID, …_HAS_EXPIRED
            fix = "let the broker have a new one, or set the clock of this machine"
        case ssl.SSLCertVerificationError(verify_code=62 | 64):  # X509_V_ERR_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH
            fix = "connect by a name that it has, or say which with ?server_name_indication= in the url"
        case ssl.SSLCertVerificationError():
            fix = "name the authority that signed it (--tls-ca-file, or ?cacertfile= in the url)"
        case _:
            return (
                f"the handshake with {address} failed ({error.reason or error}): is it a TLS port (5671), or should "
                "the scheme be amqp"
            )
    return f"the certificate of {address} was refused ({error.verify_message.rstrip('.')}): {fix}"


def _handshake_fault(cause: BaseException, address: Address) -> NearmqError | None:
    match cause:
        # With TLS 1.3 a server asks for a certificate after the handshake; whether its word for that is seen is a race.
        case pika.exceptions.IncompatibleProtocolError() if address.tls is not None:
            return BrokerUnavailable(
                f"TLS: {address} closed the connection after the handshake: if it asks for a certificate of ours, name "
                "it and its key (--tls-cert-file and --tls-key-file, or ?certfile= and &keyfile= in the url); else it "
                "is another server"
            )
        case pika.exceptions.IncompatibleProtocolError():
            return BrokerUnavailable(
                f"{address} does not speak AMQP 0-9-1: is it a TLS port (scheme amqps) or another server"
            )
        case pika.exceptions.ProbableAuthenticationError() | pika.exceptions.AuthenticationError():
            return PermissionDenied(
                f"login of user {address.user!r} was refused by {address}: check user and password; 'guest' may log in "
                "from the broker's own machine only"
            )
        case pika.exceptions.ProbableAccessDeniedError():
            return _virtual_host_fault(str(cause), address)
    return None


def _channel_fault(code: int, text: str, address: Address) -> NearmqError:
    if code == _ACCESS_REFUSED:
        return PermissionDenied(
            f"user {address.user!r} may not do this in virtual host {address.virtual_host!r}: {text}; an administrator "
            "grants it with rabbitmqctl set_permissions (docs/security.md has the patterns)"
        )
    if code == _NOT_FOUND:
        return BrokerUnavailable(f"{text}: run `nearmq topology apply`, or check prefix and virtual host")
    if code == _RESOURCE_LOCKED:
        return BrokerUnavailable(f"{text}: the queue belongs to another connection")
    if code == _PRECONDITION_FAILED:
        return _precondition_fault(text)
    return ConnectionLost(f"{address} closed the channel: {code} {text}")


def _precondition_fault(text: str) -> NearmqError:
    found = _INEQUIVALENT.search(text)
    if not found:
        return InvalidArgument(text)
    kind, name, wanted, current = (found[group].strip("'") for group in ("kind", "name", "wanted", "current"))
    return InvalidArgument(
        f"{kind} {name!r} exists with another {found['argument']!r}: wanted {wanted}, found {current}; "
        f"a {kind} keeps what it was made with, so apply with the values it has, or delete it (a queue when it is "
        "empty) and run `nearmq topology apply` again",
        field=found["argument"],
    )


def _virtual_host_fault(text: str, address: Address) -> PermissionDenied:
    if "not found" in text:
        return PermissionDenied(
            f"virtual host {address.virtual_host!r} does not exist on {address}: check the url's path ('/' inside a "
            "name is written %2F), or make it with rabbitmqctl add_vhost"
        )
    if "refused for user" in text:
        return PermissionDenied(
            f"user {address.user!r} may not enter virtual host {address.virtual_host!r} on {address}: an administrator "
            "grants it with rabbitmqctl set_permissions"
        )
    return PermissionDenied(f"virtual host {address.virtual_host!r} on {address} cannot be entered: {text}")


def _root(error: BaseException) -> BaseException:
    """Unwrap what pika's connection workflow puts around the cause."""
    for inner in _inner(error):
        return _root(inner)
    return error


def _inner(error: BaseException) -> Iterator[BaseException]:
    # A workflow keeps the error of each address that it tried, the last one last.
    candidates = (*reversed(getattr(error, "exceptions", ())), getattr(error, "exception", None), *error.args)
    return (candidate for candidate in candidates if isinstance(candidate, BaseException))


def _container_hint(address: Address) -> str:
    is_local = address.host in {"localhost", "127.0.0.1", "::1"}
    return (
        f"; inside this container {address.host!r} is the container itself, so use the broker's service name"
        if is_local and is_in_container()
        else ""
    )


def is_in_container() -> bool:
    """Say whether this process runs in a container, where localhost is not the machine."""
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ
