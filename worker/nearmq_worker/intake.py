"""From a delivery to the task that it is, or to the error that it is refused with."""

import time

from nearmq.amqp import Delivery
from nearmq.bounds import Bounds
from nearmq.codec import decode_job
from nearmq.errors import InvalidArgument, JobExpired
from nearmq.jobs import JOB_TYPES
from nearmq.topology import Names
from nearmq.transport import Message
from nearmq.value_checks import check_job_id
from nearmq_index_store.ledger import WINDOW_S, job_time_ms
from nearmq_worker.batching import Task, is_write
from nearmq_worker.config import WorkerConfig


class Intake:
    """Reads the deliveries of one worker."""

    def __init__(self, config: WorkerConfig) -> None:
        names = Names(config.prefix)
        self._search_queue = names.queue("search")
        ways = [names.queue("write"), names.queue("maintain"), names.control]
        self._ways = {way: way for way in ways} | {names.control_queue(config.name): names.control}
        self._way_of = {job_type: names.queue_of(job_type) or names.control for job_type in JOB_TYPES}
        self._bounds = Bounds(hits=config.result_hits)

    def task_of(self, delivery: Delivery) -> Task:
        """Decode the job of a delivery, every value checked.

        Raises:
            JobExpired: a write that is older than what the ledger remembers.
            InvalidArgument, LimitExceeded: as `decode_job`, or the job came by a queue that is not its type's.
        """
        message = delivery.message
        check_job_id("message_id", message.message_id)
        job = decode_job(
            message.type,
            message.routing_key,
            message.body,
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            bounds=self._bounds,
        )
        self._check_queue(message.type, delivery.queue)
        if is_write(job):
            _check_age(message)
        deadline_ms = message.headers.get("nearmq-deadline")
        if deadline_ms is not None and not isinstance(deadline_ms, int):
            raise InvalidArgument(
                f"header nearmq-deadline is {deadline_ms!r}, expected ms since 1970", field="deadline"
            )
        return Task(delivery=delivery, job=job, deadline_ms=deadline_ms, taken_at=time.monotonic())

    def _check_queue(self, job_type: str, queue: str) -> None:
        """Refuse a job that came by another way than its type's: a consumer of searches runs no write."""
        expected = self._way_of[job_type]
        way = self._ways.get(queue, self._search_queue)  # a special pool's queue takes what the search queue takes
        if way != expected:
            raise InvalidArgument(f"a {job_type} job came through {queue!r}, its way is {expected!r}", field="type")


def _check_age(message: Message) -> None:
    """Refuse a write that is older than the ledger, which could not tell whether it took effect before."""
    made_ms = job_time_ms(message.message_id) or message.timestamp_s * 1_000
    age_s = time.time() - made_ms / 1_000
    if made_ms and age_s > WINDOW_S:
        made, most = f"{age_s / 86_400:.1f}", WINDOW_S // 86_400
        raise JobExpired(
            f"the job was made {made} days ago, allowed are at most {most} for a write", field="message_id"
        )
