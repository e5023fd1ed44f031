"""A worker without its transport: takes deliveries, runs them on compute threads, and says how each one ends.

`service.py` puts RabbitMQ around it, `embedded.py` the caller's own process.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from nearmq.amqp import Delivery
from nearmq.bounds import Bounds
from nearmq.codec import decode_job, encode_reply
from nearmq.errors import InvalidArgument, NearmqError
from nearmq.jobs import Reply, SearchJob
from nearmq.topology import Names
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_worker.batching import Task, WaitingJobs
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.control import CONTROL_JOBS, Control
from nearmq_worker.execute import Executor
from nearmq_worker.isolation import ChildDied, IsolatedProcess
from nearmq_worker.replies import error_reply, translated
from nearmq_worker.settle import Settler
from nearmq_worker.spool import Spool
from nearmq_worker.telemetry import JOB_FAILED, JOB_POISONOUS, JOB_REFUSED, STORE_MAY_LOSE, log_answer

logger = logging.getLogger(__name__)

_CONTROL_THREADS = 2

#: Job ids are chosen by publishers, UUIDv7 as a rule, and are kept in manifests and replies.
_MAX_JOB_ID = 128

#: A search that was delivered so often before may be what ended its workers: it runs in a process of its own.
_SUSPECT_DELIVERIES = 2
#: The suspects' process is closed when no other suspect came for so long.
_SUSPECTS_IDLE_S = 30.0
#: The suspects' process takes some seconds to start.
_SUSPECTS_START_S = 30.0


class Engine:
    """Runs the jobs of deliveries; every delivery it takes is settled exactly once, by `settler`."""

    def __init__(self, config: WorkerConfig, settler: Settler) -> None:
        self._config = config
        self._settler = settler
        self._names = Names(config.prefix)
        self._bounds = Bounds(hits=config.result_hits)
        store = open_store(config.store, config.cache)
        if store.durability is not None:
            logger.warning(STORE_MAY_LOSE, extra={"store": store.id, "reason": store.durability})
        self._spool = Spool(store, config.spool)
        self._cache = SegmentCache(self._spool.open, config.memory_bytes)
        catalog = Catalog(store)
        self._executor = Executor(catalog, self._cache, config)
        self._control = Control(catalog, self._cache)
        self._suspects: SimpleQueue[Task | None] = SimpleQueue()
        self._waiting = WaitingJobs(batch_queries=config.batch_queries)
        self._control_pool = ThreadPoolExecutor(_CONTROL_THREADS, thread_name_prefix="nearmq-control")
        self._threads = [
            threading.Thread(target=self._work, name=f"nearmq-compute-{number}") for number in range(config.threads)
        ]
        self._threads.append(threading.Thread(target=self._work_isolated, name="nearmq-suspects"))

    def start(self) -> None:
        """Start the compute threads."""
        for thread in self._threads:
            thread.start()

    def take(self, delivery: Delivery) -> None:
        """Take a delivery on: decode it, and queue it or refuse it. Short, for the receiving thread calls it."""
        try:
            task = self._decoded(delivery)
        except NearmqError as error:
            logger.info(JOB_REFUSED, extra={"job_id": delivery.message.message_id, "code": error.code})
            self._refuse(delivery, error)
            return
        except Exception as error:
            logger.exception(JOB_FAILED, extra={"job_id": delivery.message.message_id})
            self._refuse(delivery, translated(error))
            return
        if isinstance(task.job, CONTROL_JOBS):
            self._control_pool.submit(self._run_control, task)
        elif isinstance(task.job, SearchJob) and delivery.delivery_count >= _SUSPECT_DELIVERIES:
            self._suspects.put(task)
        else:
            self._waiting.put(task)

    def stop(self) -> None:
        """Give back what waits, finish what runs within the grace time, and free everything. May come twice."""
        deadline = time.monotonic() + self._config.grace_s
        self._waiting.close()
        for task in self._waiting.drain():
            self._settler.give_back(task.delivery)
        self._suspects.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._control_pool.shutdown(wait=False, cancel_futures=True)  # a load may take minutes, and promises nothing
        self._executor.close()
        self._spool.close()

    def _decoded(self, delivery: Delivery) -> Task:
        message = delivery.message
        if not 1 <= len(message.message_id) <= _MAX_JOB_ID:
            raise InvalidArgument(
                f"message_id has {len(message.message_id)} characters, allowed are 1 to {_MAX_JOB_ID}",
                field="message_id",
            )
        job = decode_job(
            message.type,
            message.routing_key,
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            bounds=self._bounds,
        )
        self._check_queue(message.type, delivery.queue)
        deadline_ms = message.headers.get("nearmq-deadline")
        if deadline_ms is not None and not isinstance(deadline_ms, int):
            raise InvalidArgument(
                f"header nearmq-deadline is {deadline_ms!r}, expected ms since 1970", field="deadline"
            )
        return Task(delivery=delivery, job=job, deadline_ms=deadline_ms, taken_at=time.monotonic())

    def _check_queue(self, job_type: str, queue: str) -> None:
        """Refuse a job that came by another way than its type's: a consumer of searches runs no write."""
        names = self._names
        expected = names.queue_of(job_type) or names.control
        own_ways = {names.queue("write"), names.queue("maintain"), names.control}
        way = names.control if queue == names.control_queue(self._config.name) else queue
        if way not in own_ways:
            way = names.queue("search")  # or a special pool's queue, which takes what the search queue takes
        if way != expected:
            raise InvalidArgument(f"a {job_type} job came through {queue!r}, its way is {expected!r}", field="type")

    def _refuse(self, delivery: Delivery, error: NearmqError) -> None:
        if delivery.message.reply_to is None:
            self._settler.dead(delivery, error.code)
        else:
            self._settler.answer(delivery, encode_reply(self._failure(delivery, error)))

    def _failure(self, delivery: Delivery, error: Exception) -> Reply:
        return replace(error_reply(delivery.message.message_id, error), worker=self._config.name)

    def _work(self) -> None:
        while (taken := self._waiting.take()) is not None:
            group, tasks = taken
            try:
                self._run(tasks)
            finally:
                self._waiting.done(group)

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run a batch and settle it; when it fails as a whole, each task alone."""
        try:
            replies = self._executor.run(tasks)
            bodies = [_encoded(task, reply) for task, reply in zip(tasks, replies, strict=True)]
        except Exception as error:
            if len(tasks) > 1:
                for task in tasks:
                    self._run([task])
                return
            logger.exception(JOB_FAILED, extra={"job_id": tasks[0].delivery.message.message_id})
            replies = [self._failure(tasks[0].delivery, error)]
            bodies = [encode_reply(replies[0])]
        for task, reply, body in zip(tasks, replies, bodies, strict=True):
            self._settler.answer(task.delivery, body)
            log_answer(task, reply)

    def _work_isolated(self) -> None:
        """Run suspects one by one in their process, until a None; what waits behind it is given back."""
        process: IsolatedProcess[Task] = IsolatedProcess(partial(_prepare_alone, self._config))
        while True:
            try:
                task = self._suspects.get(timeout=_SUSPECTS_IDLE_S)
            except Empty:
                process.close()
                continue
            if task is None:
                break
            if self._waiting.is_closed:
                self._settler.give_back(task.delivery)
                continue
            self._run_isolated(process, task)
        process.close()

    def _run_isolated(self, process: IsolatedProcess[Task], task: Task) -> None:
        delivery = task.delivery
        try:
            body = process.run(task, timeout_s=_SUSPECTS_START_S + self._config.deadline_s)
        except ChildDied as death:
            reason = str(death)
            logger.warning(JOB_POISONOUS, extra={"job_id": delivery.message.message_id, "reason": reason})
            self._settler.dead(delivery, reason)
        except Exception as error:  # such as a process that cannot be started
            logger.exception(JOB_FAILED, extra={"job_id": delivery.message.message_id})
            self._settler.answer(delivery, encode_reply(self._failure(delivery, error)))
        else:
            self._settler.answer(delivery, body)

    def _run_control(self, task: Task) -> None:
        job_id = task.delivery.message.message_id
        try:
            for reply in self._control.run(task.job, job_id):
                body = encode_reply(replace(reply, worker=self._config.name))
                if reply.status == "partial":
                    self._settler.progress(task.delivery, body)
                else:
                    self._settler.answer(task.delivery, body)
                    log_answer(task, reply)
        except Exception as error:
            logger.exception(JOB_FAILED, extra={"job_id": job_id})
            self._settler.answer(task.delivery, encode_reply(self._failure(task.delivery, error)))


def _encoded(task: Task, reply: Reply) -> bytes:
    if isinstance(task.job, SearchJob):
        return encode_reply(reply, encoding=task.job.encoding, id_format=task.job.id_format)
    return encode_reply(reply)


def _prepare_alone(config: WorkerConfig) -> Callable[[Task], bytes]:
    """Open the store anew, in the suspects' process; return what answers a search."""
    store = open_store(config.store, config.cache)
    cache = SegmentCache(Spool(store, config.spool).open, config.memory_bytes)
    executor = Executor(Catalog(store), cache, config)
    return lambda task: _encoded(task, executor.run([task])[0])
