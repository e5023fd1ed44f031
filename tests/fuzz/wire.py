"""Targets: the bodies of jobs and of replies."""

from pathlib import Path

import orjson

from nearmq.codec import decode_job, decode_reply, encode_job
from nearmq.errors import Internal, InvalidArgument, LimitExceeded, NearmqError
from nearmq.topology import TYPES_WITHOUT_COLLECTION, routing_key
from tests.fuzz.target import Target

STORED = Path(__file__).parents[1] / "unit" / "wire_v1"


def job_seeds() -> list[bytes]:
    """The type of a job, a line break, and its body."""
    return [path.name.split(".")[1].encode() + b"\n" + path.read_bytes() for path in sorted(STORED.glob("job.*.json"))]


def run_job(data: bytes) -> None:
    """A job is refused with a code, or read; what was read is written and read again as the same."""
    first, _, body = data.partition(b"\n")
    job_type = first.decode(errors="replace")
    try:
        job = decode_job(job_type, _routing_key(job_type, body), body)
    except (InvalidArgument, LimitExceeded) as error:
        _check_refusal(error)
        return
    written = encode_job(job)
    again = decode_job(job_type, _routing_key(job_type, written), written)
    assert encode_job(again) == written


def _check_refusal(error: NearmqError) -> None:
    assert error.message
    assert error.field is not None  # the empty one of an unknown key without a name


def _routing_key(job_type: str, body: bytes) -> str:
    try:
        return routing_key(job_type, orjson.loads(body)["collection"])
    except (KeyError, TypeError, orjson.JSONDecodeError):
        return routing_key(job_type, None if job_type in TYPES_WITHOUT_COLLECTION else "books")


def reply_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted(STORED.glob("reply.*.json"))]


def run_reply(data: bytes) -> None:
    """A reply is refused as none, or read with as many distances as ids."""
    try:
        reply = decode_reply(data)
    except Internal:
        return
    for hits in reply.hits or ():
        assert len(hits.ids) == len(hits.distances)


TARGETS = (Target("job", job_seeds, lambda: run_job), Target("reply", reply_seeds, lambda: run_reply))
