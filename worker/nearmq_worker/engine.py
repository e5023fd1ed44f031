"""A worker without its transport: takes deliveries, runs them on compute threads, and says how each one ends.

`service.py` puts RabbitMQ around it, `embedded.py` the caller's own process.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, SimpleQueue

from msgspec.structs import replace

from nearmq.amqp import Delivery
from nearmq.codec import encode_reply
from nearmq.errors import Internal, JobExpired, NearmqError
from nearmq.jobs import LoadJob, Reply, SearchJob
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import StoreError
from nearmq_index_store.manifest import Snapshot
from nearmq_worker.answered import AnsweredJobs
from nearmq_worker.awaited import CancelledJobs, can_be_cancelled
from nearmq_worker.batching import Task, WaitingJobs, is_write
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.control import CONTROL_JOBS, Control
from nearmq_worker.execute import Executor
from nearmq_worker.held import HeldJobs
from nearmq_worker.intake import Intake
from nearmq_worker.isolation import ChildDied, IsolatedProcess, Stopped
from nearmq_worker.maintenance import Interrupted, Maintenance, MaintenanceJob
from nearmq_worker.read_jobs import READ_JOBS
from nearmq_worker.replies import error_reply, translated
from nearmq_worker.settle import Settler
from nearmq_worker.spool import Spool
from nearmq_worker.telemetry import ANSWERED_AGAIN, JOB_FAILED, JOB_POISONOUS, JOB_REFUSED, STORE_MAY_LOSE, log_answer

logger = logging.getLogger(__name__)

#: Loads take minutes; what else reaches every worker takes a moment, and waits for no load.
_LOAD_THREADS = 2

#: A search or read that was delivered so often before may be what ended its workers: it runs in a process of its own.
_SUSPECT_DELIVERIES = 2
#: How often the maintenance thread looks for work that was put off.
_CATCH_UP_S = 1.0
#: The suspects' process is closed when no other suspect came for so long.
_SUSPECTS_IDLE_S = 30.0
#: The suspects' process takes some seconds to start.
_SUSPECTS_START_S = 30.0


class Engine:
    """Runs the jobs of deliveries; every delivery it takes is settled exactly once, by `settler`, unless it is lost."""

    def __init__(self, config: WorkerConfig, settler: Settler, answered: AnsweredJobs | None = None) -> None:
        self._config = config
        self._settler = settler
        self._answered = answered or AnsweredJobs()
        self._intake = Intake(config)
        store = open_store(config.store, config.cache, config.signing_key_file)
        if store.durability is not None:
            logger.warning(STORE_MAY_LOSE, extra={"store": store.id, "reason": store.durability})
        self._spool = Spool(store, config.spool, config.most_spool_bytes)
        self._cache = SegmentCache(self._spool, config.memory_bytes)
        catalog = Catalog(store, folder=self._spool.folder, use_rows=self._cache.use_rows, on_snapshot=self._notice)
        self._held = HeldJobs()
        self._cancelled = CancelledJobs()
        self._maintenance = Maintenance(catalog, config, settler.submit, self._cancelled)
        self._executor = Executor(catalog, self._cache, config, self._cancelled, self._slow_writes)
        self._control = Control(catalog, self._cache, self._held, self._cancelled, self._cancel)
        self._is_ended = False
        self._suspects: SimpleQueue[Task | None] = SimpleQueue()
        self._maintained: SimpleQueue[Task | None] = SimpleQueue()
        self._waiting = WaitingJobs(batch_queries=config.batch_queries, batch_bytes=config.batch_bytes)
        self._load_pool = ThreadPoolExecutor(_LOAD_THREADS, thread_name_prefix="nearmq-load")
        self._control_pool = ThreadPoolExecutor(1, thread_name_prefix="nearmq-control")
        self._threads = [
            threading.Thread(target=self._work, name=f"nearmq-compute-{number}") for number in range(config.threads)
        ]
        self._threads.append(threading.Thread(target=self._work_isolated, name="nearmq-suspects"))
        self._threads.append(threading.Thread(target=self._maintain, name="nearmq-maintenance"))

    def start(self) -> None:
        """Start the compute threads."""
        for thread in self._threads:
            thread.start()

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries on: decode them, and queue or refuse each. Short, for the receiving thread calls it."""
        self._waiting.put([task for delivery in deliveries if (task := self._taken(delivery)) is not None])

    def _taken(self, delivery: Delivery) -> Task | None:
        """Return the task of a delivery for the compute threads; None where it is refused, or others take it on."""
        try:
            task = self._intake.task_of(delivery)
        except NearmqError as error:
            logger.info(JOB_REFUSED, extra={"job_id": delivery.message.message_id, "code": error.code})
            self._refuse(delivery, error)
            return None
        except Exception as error:
            logger.exception(JOB_FAILED, extra={"job_id": delivery.message.message_id})
            self._refuse(delivery, translated(error))
            return None
        self._held.add(task)
        if isinstance(task.job, LoadJob):
            self._load_pool.submit(self._run_control, task)
        elif isinstance(task.job, CONTROL_JOBS):
            self._control_pool.submit(self._run_control, task)
        elif isinstance(task.job, MaintenanceJob):
            self._maintained.put(task)
        elif isinstance(task.job, (SearchJob, *READ_JOBS)) and delivery.delivery_count >= _SUSPECT_DELIVERIES:
            self._suspects.put(task)
        else:
            return task
        return None

    def stop(self) -> None:
        """Give back what waits, finish what runs within the grace time, and free everything. May come twice."""
        deadline = time.monotonic() + self._config.grace_s
        self._waiting.close()
        self._give_back(self._waiting.drain())
        self._suspects.put(None)
        self._maintained.put(None)
        self._maintenance.stop()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        self._is_ended = True  # what still runs now fails for want of what is freed here, and is done by another worker
        for pool in (self._load_pool, self._control_pool):
            pool.shutdown(wait=False, cancel_futures=True)  # a load may take minutes, and promises nothing
        self._executor.close()
        self._spool.close()

    def _give_back(self, tasks: Sequence[Task]) -> None:
        """Leave jobs to another worker; writes go back when the connection closes, all at once and in their order."""
        for task in tasks:
            if not is_write(task.job):
                self._settler.give_back(task.delivery)

    def _refuse(self, delivery: Delivery, error: NearmqError) -> None:
        body = None if delivery.message.reply_to is None else encode_reply(self._failure(delivery, error))
        if body is None or isinstance(error, JobExpired):
            self._settler.dead(delivery, error.code, body)
        else:
            self._settler.answer(delivery, body)

    def _notice(self, snapshot: Snapshot) -> None:
        self._cache.notice(snapshot)
        self._maintenance.notice(snapshot)

    def _slow_writes(self, collection: str) -> float:
        """Let compaction keep up with the writes of a collection; return how long the next ones have to wait."""
        try:
            wait_s = self._maintenance.slowdown_s(collection)
        except StoreError:  # what was written is written
            return 0.0
        if wait_s:
            self._waiting.pause(collection, wait_s)
        return wait_s

    def _failure(self, delivery: Delivery, error: Exception) -> Reply:
        return replace(error_reply(delivery.message.message_id, error), worker=self._config.name)

    def _work(self) -> None:
        while (taken := self._waiting.take()) is not None:
            group, tasks = taken
            try:
                with self._held.running(tasks):
                    if unanswered := self._unanswered(tasks):
                        self._run(unanswered)
            finally:
                self._waiting.done(group)

    def _unanswered(self, tasks: Sequence[Task]) -> list[Task]:
        """Leave out what is delivered again, to whomever, and answer from its note what was answered before."""
        tasks = [task for task in tasks if not self._settler.is_lost(task.delivery)]
        again = [task for task in tasks if task.delivery.redelivered and not is_write(task.job)]
        if not again:
            return tasks
        noted = zip(again, self._answered.replies([task.delivery.message for task in again]), strict=True)
        replies = {task: body for task, body in noted if body is not None}
        for task, body in replies.items():
            logger.info(ANSWERED_AGAIN, extra={"job_id": task.delivery.message.message_id})
            self._settler.answer(task.delivery, body)
        return [task for task in tasks if task not in replies]

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run a batch and settle it; when it fails as a whole, each task alone."""
        try:
            replies = self._executor.run(tasks)
            bodies = [_encoded(task, reply) for task, reply in zip(tasks, replies, strict=True)]
        except Exception as error:
            if self._is_ended:
                self._give_back(tasks)
                return
            if len(tasks) > 1:
                for task in tasks:
                    self._run([task])
                return
            logger.exception(JOB_FAILED, extra={"job_id": tasks[0].delivery.message.message_id})
            replies = [self._failure(tasks[0].delivery, error)]
            bodies = [encode_reply(replies[0])]
        self._settler.answer_all(zip([task.delivery for task in tasks], bodies, strict=True))
        for task, reply in zip(tasks, replies, strict=True):
            log_answer(task, reply)

    def _cancel(self, job_id: str) -> str:
        """Let a job that is here, or comes later, be answered CANCELLED; return its state, as the wire has it."""
        self._cancelled.add(job_id)
        held = self._held.find(job_id)
        withdrawn = self._waiting.withdraw(job_id)
        if withdrawn:
            with self._held.running(withdrawn):
                self._run(withdrawn)
        if held is None:
            return "absent"
        state, task = held
        is_too_late = not can_be_cancelled(task.job) or (state == "running" and is_write(task.job))
        return "writing" if is_too_late else state

    def _work_isolated(self) -> None:
        """Run suspects one by one in their process."""
        process: IsolatedProcess[Task] = IsolatedProcess(partial(_prepare_alone, self._config))
        for task in self._one_by_one(self._suspects, _SUSPECTS_IDLE_S, process.close):
            for suspect in self._unanswered([task]):
                self._run_isolated(process, suspect)
        process.close()

    def _one_by_one(
        self, queue: "SimpleQueue[Task | None]", idle_s: float, on_idle: Callable[[], None]
    ) -> Iterator[Task]:
        """Yield the tasks of a queue, each as a running one, until a None; what waits behind it is given back."""
        while True:
            try:
                task = queue.get(timeout=idle_s)
            except Empty:
                on_idle()
                continue
            if task is None:
                return
            if self._waiting.is_closed:
                self._settler.give_back(task.delivery)
                continue
            with self._held.running([task]):
                yield task

    def _run_isolated(self, process: IsolatedProcess[Task], task: Task) -> None:
        delivery = task.delivery

        def is_cancelled() -> bool:
            return delivery.message.message_id in self._cancelled

        try:
            body = process.run(task, timeout_s=_SUSPECTS_START_S + self._config.deadline_s, stop_if=is_cancelled)
        except Stopped:
            self._run([task])  # which answers so
        except ChildDied as death:
            reason = str(death)
            logger.warning(JOB_POISONOUS, extra={"job_id": delivery.message.message_id, "reason": reason})
            self._settler.dead(delivery, reason, encode_reply(self._failure(delivery, Internal(reason))))
        except Exception as error:  # such as a process that cannot be started
            logger.exception(JOB_FAILED, extra={"job_id": delivery.message.message_id})
            self._settler.answer(delivery, encode_reply(self._failure(delivery, error)))
        else:
            self._settler.answer(delivery, body)

    def _maintain(self) -> None:
        """Run maintenance jobs one by one."""
        for task in self._one_by_one(self._maintained, _CATCH_UP_S, self._maintenance.catch_up):
            self._run_maintenance(task)

    def _run_maintenance(self, task: Task) -> None:
        def report(reply: Reply) -> None:
            self._settler.progress(task.delivery, encode_reply(replace(reply, worker=self._config.name)))

        try:
            reply = self._executor.run_alone(task, lambda: self._maintenance.run(task, report))
        except Interrupted:
            self._settler.give_back(task.delivery)
            return
        except Exception as error:
            logger.exception(JOB_FAILED, extra={"job_id": task.delivery.message.message_id})
            reply = self._failure(task.delivery, error)
        self._settler.answer(task.delivery, encode_reply(reply))
        log_answer(task, reply)

    def _run_control(self, task: Task) -> None:
        with self._held.running([task]):
            self._answer_control(task)

    def _answer_control(self, task: Task) -> None:
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
    store = open_store(config.store, config.cache, config.signing_key_file)
    cache = SegmentCache(Spool(store, config.spool, config.most_spool_bytes), config.memory_bytes)
    executor = Executor(Catalog(store), cache, config, CancelledJobs())  # a cancelled job is stopped with the process
    return lambda task: _encoded(task, executor.run([task])[0])
