"""Replies that come together, in one message: a queue's cost for many is that of one.

A job whose publisher takes such messages says so in the header `nearmq-accept: replies`. What a worker then has to send
at once to one address may be a message of type `replies`, whose body is a JSON list of the replies' bodies. Each tells
its job by `job_id`, so the message has no correlation id, and the headers of none of them.
"""

from collections.abc import Iterable, Iterator, Sequence

from nearmq.transport import Message

HEADER = "nearmq-accept"
BUNDLE_TYPE = "replies"

#: A longer message gains nothing that the queue's own cost would show.
MOST_BYTES = 64 << 10


def takes_bundles(job: Message) -> bool:
    """Say whether the reply to a job may come in a bundle: its publisher takes some, and knows it by the job's id."""
    return job.headers.get(HEADER) == BUNDLE_TYPE and job.correlation_id in {None, job.message_id}


def shared_out(lengths: Iterable[int], most_bytes: int) -> Iterator[slice]:
    """Yield which replies share a message, given the bytes of each in their order; one that is longer has its own."""
    start, size, number = 0, 1, 0
    for number, length in enumerate(lengths):
        if number > start and size + length + 1 > most_bytes:
            yield slice(start, number)
            start, size = number, 1
        size += length + 1  # a comma, or the closing bracket
    yield slice(start, number + 1)


def join(bodies: Sequence[bytes]) -> bytes:
    """Return the body of a bundle."""
    return b"[" + b",".join(bodies) + b"]"
