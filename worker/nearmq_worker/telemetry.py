"""The names of log events and their fields, in one place: what a log pipeline may rely on.

Vectors, bodies and urls with passwords are never logged.
"""

import logging

from nearmq.jobs import Reply, SearchJob
from nearmq_worker.batching import Task

JOB_ANSWERED = "job answered"
ANSWERED_AGAIN = "job answered from its note"
REPLIES_NOT_NOTED = "replies cannot be noted"
JOB_FAILED = "job failed"
JOB_REFUSED = "job refused"
JOB_DEAD = "job dead-lettered"
REPLY_DEAD = "reply dead-lettered"
JOB_POISONOUS = "job ended its process"
WORKER_STARTED = "worker started"
WORKER_STOPPING = "worker stopping"
WORKER_STOPPED = "worker stopped"
WORKER_STUCK = "worker is stuck"
SEGMENT_LOADED = "segment loaded"
SEGMENTS_RELEASED = "segments released"
COMPACTION_ASKED = "compaction asked for"
WRITES_SLOWED = "writes slowed down"
STORE_MAY_LOSE = "store may lose writes"

logger = logging.getLogger("nearmq_worker.jobs")


def log_answer(task: Task, reply: Reply) -> None:
    """Write the one line that a job leaves behind."""
    if not logger.isEnabledFor(logging.INFO):
        return
    message = task.delivery.message
    timing = reply.timing_ms
    fields: dict[str, object] = {
        "job_id": message.message_id,
        "type": message.type,
        "collection": getattr(task.job, "collection", None),
        "version": reply.version,
        "outcome": reply.error.code if reply.error else reply.status,
        "attempt": reply.attempt,
    }
    if isinstance(task.job, SearchJob):
        fields |= {"queries": task.queries, "limit": task.job.limit}
    if timing is not None:
        fields |= {
            "queue_ms": round(timing.queue, 3),
            "load_ms": round(timing.load, 3),
            "search_ms": round(timing.search, 3),
            "total_ms": round(timing.total, 3),
        }
    logger.info(JOB_ANSWERED, extra=fields)
