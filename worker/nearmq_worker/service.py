"""A worker process over RabbitMQ: starts the parts in order, watches over them, and stops them in order."""

import logging
import re
import threading
import time
from collections.abc import Sequence

from nearmq.topology import Names
from nearmq_index_store.blobs import open_notes
from nearmq_worker.answered import AnsweredJobs
from nearmq_worker.config import WorkerConfig
from nearmq_worker.engine import Engine
from nearmq_worker.receive import Delivery, Receiver
from nearmq_worker.settle import AmqpSettler
from nearmq_worker.telemetry import WORKER_STARTED, WORKER_STOPPED, WORKER_STOPPING, WORKER_STUCK

logger = logging.getLogger(__name__)

#: A connection's thread that has not turned for so long is blocked for good; the process is better started anew.
_STUCK_S = 120.0
_WATCH_S = 1.0
#: How often the broker is asked whether it still knows the consumers.
_LOOK_S = 30.0
#: How long the broker may take to confirm that no more deliveries come.
_CANCEL_S = 5.0


class Worker:
    """Receive, execute and settle, put together."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        names = Names(config.prefix)
        self._answered = AnsweredJobs(open_notes(config.store, config.cache))
        self._receiver = Receiver(
            config.url,
            names=names,
            worker=config.name,
            queues=config.queues,
            prefetch=config.prefetch,
            prefetch_bytes=config.prefetch_bytes,
            on_deliveries=self._take,
        )
        self._settler = AmqpSettler(
            config.url,
            self._receiver,
            names=names,
            worker=config.name,
            part_bytes=config.reply_part_bytes,
            reply_pattern=None if config.reply_pattern is None else re.compile(config.reply_pattern),
            answered=self._answered,
        )
        self._engine = Engine(config, self._settler, self._answered)
        self._stopping = threading.Event()

    def start(self) -> None:
        """Connect and begin to take jobs.

        Raises:
            BrokerUnavailable, PermissionDenied: the broker cannot be reached or refuses, or the topology is missing.
        """
        try:
            self._settler.start()
            self._engine.start()
            self._receiver.start()
        except BaseException:
            self.stop()
            raise
        logger.info(WORKER_STARTED, extra={"worker": self._config.name})

    def run(self) -> bool:
        """Wait until `request_stop`, then stop in order; False at once when a thread is stuck, as stopping would be."""
        look_at = time.monotonic() + _LOOK_S
        while not self._stopping.wait(_WATCH_S):
            if time.monotonic() > look_at:
                look_at = time.monotonic() + _LOOK_S
                self._receiver.look()
            silent_s = max(self._receiver.silent_s, self._settler.silent_s)
            if silent_s > _STUCK_S:
                logger.critical(WORKER_STUCK, extra={"worker": self._config.name, "silent_s": silent_s})
                return False
        self.stop()
        return True

    def request_stop(self) -> None:
        """Let `run` stop; may be called from a signal handler, and twice."""
        self._stopping.set()

    def stop(self) -> None:
        """Take no more, give back what has not begun, finish what has, let its replies be confirmed, close."""
        logger.info(WORKER_STOPPING, extra={"worker": self._config.name})
        self._receiver.stop_taking(_CANCEL_S)
        self._engine.stop()
        self._settler.flush(self._config.grace_s)
        self._receiver.stop()
        self._settler.stop()
        self._answered.close()
        logger.info(WORKER_STOPPED, extra={"worker": self._config.name})

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self._engine.take(deliveries)
