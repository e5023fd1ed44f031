"""The embedded mode: a worker in the caller's own process, behind the same transport contract as RabbitMQ."""

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import urlsplit

from nearmq.amqp import Delivery
from nearmq.errors import BrokerUnavailable, InvalidArgument
from nearmq.job_ids import new_job_id
from nearmq.topology import DEFAULT_PREFIX, Names
from nearmq.transport import Message, OnConfirm
from nearmq_worker.config import WorkerConfig
from nearmq_worker.engine import Engine

_REPLY_TO = "embedded"


def connect(url: str) -> "EmbeddedTransport":
    """Return the transport of `local:DIRECTORY`, or `local:` before any other store's url; not yet started.

    A url has no place for the keys of a signed store: NEARMQ_SIGNING_KEY_FILE names their file.
    """
    target = url.removeprefix("local:") or "./nearmq-data"
    store = target if urlsplit(target).scheme else f"file:{target}"
    keys = os.environ.get("NEARMQ_SIGNING_KEY_FILE")
    return EmbeddedTransport(WorkerConfig(store=store, name="embedded", signing_key_file=Path(keys) if keys else None))


class EmbeddedTransport:
    """Hands jobs to an engine of its own and replies to its client; see `nearmq.transport.Transport`."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._names = Names(DEFAULT_PREFIX)
        self._tags = itertools.count(1)
        self._engine: Engine | None = None

    @property
    def reply_to(self) -> str:
        """The only address there is: this client's."""
        return _REPLY_TO

    def start(self, *, on_reply: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Start the engine."""
        self._engine = Engine(self._config, _Replies(on_reply, self._take))
        self._engine.start()
        on_connected()

    def publish(self, message: Message, on_confirm: OnConfirm) -> None:
        """Give the job to the engine; confirmed at once."""
        if self._engine is None:
            on_confirm(BrokerUnavailable("the embedded worker is not running"))
        elif message.reply_to not in {None, _REPLY_TO}:
            error = f"reply_to is {message.reply_to!r}: the embedded mode has no queues, use submit or search"
            on_confirm(InvalidArgument(error, field="reply_to"))
        else:
            self._take(message)
            on_confirm(None)

    def _take(self, message: Message) -> None:
        engine = self._engine
        if engine is None:  # it is stopping
            return
        queue = self._names.queue_of(message.type) or self._names.control_queue(self._config.name)
        delivery = Delivery(
            message=message,
            generation=0,
            tag=next(self._tags),
            queue=queue,
            delivery_count=0,
            redelivered=False,
        )
        engine.take([delivery])

    def stop(self) -> None:
        """Finish what runs and close; what waits is not answered."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()


class _Replies:
    """Settles deliveries by calling the client; see `nearmq_worker.settle.Settler`."""

    def __init__(self, on_reply: Callable[[Message], None], take: Callable[[Message], None]) -> None:
        self._on_reply = on_reply
        self._take = take

    def is_lost(self, delivery: Delivery) -> bool:
        """Nothing is: there is no connection."""
        del delivery
        return False

    def answer(self, delivery: Delivery, body: bytes) -> None:
        job = delivery.message
        if job.reply_to is None:
            return
        self._on_reply(
            Message(
                routing_key=job.reply_to,
                type="reply",
                message_id=new_job_id(),
                correlation_id=job.correlation_id or job.message_id,
                body=body,
            )
        )

    progress = answer

    def answer_all(self, answers: Iterable[tuple[Delivery, bytes]]) -> None:
        for delivery, body in answers:
            self.answer(delivery, body)

    def give_back(self, delivery: Delivery) -> None:
        """Leave it unanswered: its client is closing."""

    def dead(self, delivery: Delivery, reason: str, body: bytes | None = None) -> None:
        """Send the reply alone: there is no queue to keep the job and the reason in."""
        del reason
        if body is not None:
            self.answer(delivery, body)

    def submit(self, message: Message) -> None:
        """Give the engine a job of its own."""
        self._take(message)
