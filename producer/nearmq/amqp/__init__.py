"""Everything AMQP: the only package that imports pika, whose types and exceptions stop here.

address.py       an AMQP URL, read
faults.py        what went wrong with a connection, told apart
connection.py    the thread that owns a connection and reconnects
publisher.py     publishing with confirms
consumer.py      consuming and settling
messages.py      properties
transport.py     the client's transport, made of these
provisioning.py  applying and checking the topology
"""

from nearmq.amqp.address import Address, parse_url
from nearmq.amqp.connection import Connection
from nearmq.amqp.consumer import Consumer, Delivery, Source
from nearmq.amqp.provisioning import apply_topology, check_topology
from nearmq.amqp.publisher import Publisher, Returned
from nearmq.amqp.transport import AmqpTransport

__all__ = [
    "Address",
    "AmqpTransport",
    "Connection",
    "Consumer",
    "Delivery",
    "Publisher",
    "Returned",
    "Source",
    "apply_topology",
    "check_topology",
    "parse_url",
]
