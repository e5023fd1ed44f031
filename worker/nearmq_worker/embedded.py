"""The embedded mode: a worker in the caller's own process, behind the same transport contract as RabbitMQ."""

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from urllib.parse import urlsplit

from nearmq.amqp import Delivery
from nearmq.errors import BrokerUnavailable, InvalidArgument
from nearmq.job_ids import new_job_id
from nearmq.topology import DEFAULT_PREFIX, Names
from nearmq.transport import Message
from nearmq_worker.config import WorkerConfig
from nearmq_worker.engine import Engine

_REPLY_TO = "embedded"


def connect(url: str) -> "EmbeddedTransport":
    """Return the transport of `local:DIRECTORY`, or `local:` before any other store's url; not yet started."""
    target = url.removeprefix("local:") or "./nearmq-data"
    store = target if urlsplit(target).scheme else f"file:{target}"
    return EmbeddedTransport(WorkerConfig(store=store, name="embedded"))


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
        self._engine = Engine(self._config, _Replies(on_reply))
        self._engine.start()
        on_connected()

    def publish(self, message: Message) -> Future[None]:
        """Give the job to the engine; confirmed at once."""
        confirm: Future[None] = Future()
        if self._engine is None:
            confirm.set_exception(BrokerUnavailable("the embedded worker is not running"))
        elif message.reply_to not in {None, _REPLY_TO}:
            error = f"reply_to is {message.reply_to!r}: the embedded mode has no queues, use submit or search"
            confirm.set_exception(InvalidArgument(error, field="reply_to"))
        else:
            queue = self._names.queue_of(message.type) or self._names.control_queue(self._config.name)
            self._engine.take(
                Delivery(
                    message=message,
                    generation=0,
                    tag=next(self._tags),
                    queue=queue,
                    delivery_count=0,
                    redelivered=False,
                )
            )
            confirm.set_result(None)
        return confirm

    def stop(self) -> None:
        """Finish what runs and close; what waits is not answered."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.stop()


class _Replies:
    """Settles deliveries by calling the client; see `nearmq_worker.settle.Settler`."""

    def __init__(self, on_reply: Callable[[Message], None]) -> None:
        self._on_reply = on_reply

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

    def give_back(self, delivery: Delivery) -> None:
        """Leave it unanswered: its client is closing."""

    def dead(self, delivery: Delivery, reason: str) -> None:
        """Leave it unanswered: it has no reply address, and there is no queue to keep it in."""
