"""A job as the message that is published, by clients and by workers alike."""

import time

from nearmq.bundles import BUNDLE_TYPE, HEADER
from nearmq.codec import encode_job
from nearmq.job_ids import new_job_id
from nearmq.jobs import TYPE_OF, Job
from nearmq.topology import routing_key
from nearmq.transport import Message


def job_message(
    job: Job,
    *,
    reply_to: str | None = None,
    job_id: str | None = None,
    timeout_s: float | None = None,
    takes_bundles: bool = False,
) -> Message:
    """Return the message of a job, whose deadline is `timeout_s` from now; without one it has none.

    Args:
        takes_bundles: its reply may come together with others (`bundles.py`).

    Raises:
        InvalidArgument, LimitExceeded: as `encode_job`.
    """
    job_type = TYPE_OF[type(job)]
    headers: dict[str, str | int] = {}
    if timeout_s is not None:
        headers["nearmq-deadline"] = time.time_ns() // 1_000_000 + int(timeout_s * 1_000)
    if takes_bundles:
        headers[HEADER] = BUNDLE_TYPE
    job_id = job_id or new_job_id()
    return Message(
        routing_key=routing_key(job_type, getattr(job, "collection", None)),
        type=job_type,
        message_id=job_id,
        correlation_id=job_id,
        reply_to=reply_to,
        body=encode_job(job),
        headers=headers,
        timestamp_s=int(time.time()),
    )
