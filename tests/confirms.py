"""What becomes of published messages, as futures for tests to wait for."""

from concurrent.futures import Future
from functools import partial

from nearmq.amqp import Outgoing, Publisher
from nearmq.futures import confirmed
from nearmq.transport import Message, Transport


def published(transport: Transport, message: Message) -> Future[None]:
    """Publish a job."""
    return confirmed(partial(transport.publish, message))


def sent(publisher: Publisher, exchange: str, message: Message) -> Future[None]:
    """Publish a mandatory message."""
    return confirmed(lambda on_end: publisher.publish(Outgoing(exchange, message, mandatory=True, on_end=on_end)))
