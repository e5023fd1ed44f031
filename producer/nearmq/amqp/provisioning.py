"""Applying a topology to a broker, and comparing the two."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from nearmq.amqp.address import Address, parse_urls
from nearmq.amqp.faults import connect_fault, lost_fault
from nearmq.errors import InvalidArgument, PermissionDenied
from nearmq.topology import Declarations, Exchange, Queue

_NOT_FOUND = 404


def apply_topology(url: str, declarations: Declarations) -> list[str]:
    """Declare the whole topology and return what was missing, as `check_topology` says it. Twice is once.

    Raises:
        InvalidArgument: an exchange or queue exists with other arguments; the message names it, the argument and what
            to do. What stands before it in the declarations has been applied.
        BrokerUnavailable, PermissionDenied: the broker cannot be reached, or the user may not declare.
    """
    with _connection(url) as (connection, _):
        missing = [f"{_title(item)} is missing" for item in _items(declarations) if not _exists(connection, item)]
        channel = connection.channel()
        for item in _items(declarations):
            _declare(channel, item)
        for binding in declarations.bindings:
            if binding.destination_kind == "queue":
                channel.queue_bind(binding.destination, binding.source, binding.routing_key)
            else:
                channel.exchange_bind(binding.destination, binding.source, binding.routing_key)
    return missing


def check_topology(url: str, declarations: Declarations) -> list[str]:
    """Return what is missing or different, one sentence each, and change nothing; an empty list is well.

    AMQP cannot show bindings, so they are not compared; applying makes them again at no cost. Arguments are compared
    only where the user may declare.

    Raises:
        BrokerUnavailable, PermissionDenied: the broker cannot be reached.
    """
    findings = []
    with _connection(url) as (connection, address):
        for item in _items(declarations):
            if not _exists(connection, item):
                findings.append(f"{_title(item)} is missing")
            elif difference := _difference(connection, item, address):
                findings.append(difference)
    return findings


@contextmanager
def _connection(url: str) -> Iterator[tuple[Any, Address]]:
    """Connect for a while to the first host that can be reached; what goes wrong is raised as our own errors."""
    addresses = parse_urls(url)
    address = addresses[-1]  # whose error pika raises
    try:
        connection = pika.BlockingConnection([each.parameters("nearmq topology") for each in addresses])
    except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as error:
        raise connect_fault(error, address) from error
    try:
        with connection:
            yield connection, address
    except pika.exceptions.AMQPError as error:
        raise lost_fault(error, address) from error


def _items(declarations: Declarations) -> tuple[Exchange | Queue, ...]:
    return (*declarations.exchanges, *declarations.queues)


def _title(item: Exchange | Queue) -> str:
    return f"{'exchange' if isinstance(item, Exchange) else 'queue'} {item.name!r}"


def _declare(channel: Any, item: Exchange | Queue) -> None:
    if isinstance(item, Exchange):
        channel.exchange_declare(item.name, item.kind, durable=True, arguments=dict(item.arguments))
    else:
        channel.queue_declare(item.name, durable=True, arguments=dict(item.arguments))


def _exists(connection: Any, item: Exchange | Queue) -> bool:
    channel = connection.channel()
    try:
        if isinstance(item, Exchange):
            channel.exchange_declare(item.name, passive=True)
        else:
            channel.queue_declare(item.name, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code == _NOT_FOUND:
            return False
        raise
    channel.close()
    return True


def _difference(connection: Any, item: Exchange | Queue, address: Address) -> str | None:
    """Declare what exists: the broker agrees, or says which argument differs."""
    channel = connection.channel()
    try:
        _declare(channel, item)
    except pika.exceptions.ChannelClosedByBroker as error:
        fault = lost_fault(error, address)
        if isinstance(fault, PermissionDenied):
            return None
        if isinstance(fault, InvalidArgument):
            return fault.message
        raise
    channel.close()
    return None
