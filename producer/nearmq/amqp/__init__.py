"""Everything AMQP: the only package that imports pika, whose types and exceptions stop here.

address.py       an AMQP URL, read
faults.py        what went wrong with a connection, told apart
connection.py    the thread that owns a connection and reconnects
bursts.py        pika's connection, reading and writing many frames at once
publisher.py     publishing with confirms
consumer.py      consuming and settling
messages.py      properties
transport.py     the client's transport, made of these
dead_letters.py  the dead letters' queue, looked through and put back
provisioning.py  applying and checking the topology
"""

from nearmq.amqp.address import Address, parse_url, parse_urls
from nearmq.amqp.connection import Connection
from nearmq.amqp.consumer import Consumer, Delivery, Source
from nearmq.amqp.dead_letters import DeadLetterQueue
from nearmq.amqp.provisioning import apply_topology, check_topology
from nearmq.amqp.publisher import Outgoing, Publisher, Returned
from nearmq.amqp.transport import AmqpTransport

__all__ = [
    "Address",
    "AmqpTransport",
    "Connection",
    "Consumer",
    "DeadLetterQueue",
    "Delivery",
    "Outgoing",
    "Publisher",
    "Returned",
    "Source",
    "apply_topology",
    "check_topology",
    "parse_url",
    "parse_urls",
]
