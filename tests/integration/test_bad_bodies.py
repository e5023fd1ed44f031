"""5,000 bad jobs sent to a worker process: each is answered or dead-lettered with its code, and no more happens."""

import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearmq
from nearmq.amqp import apply_topology
from nearmq.bounds import Bounds
from nearmq.codec import decode_job, decode_reply
from nearmq.errors import NearmqError
from nearmq.topology import Names, declarations
from tests.fuzz.mutating import mutants
from tests.integration.peer import Peer, eventually, peer
from tests.unit.test_refused_jobs import INVALID
from tests.worker_process import worker_process

pytestmark = pytest.mark.broker

JOBS = 5_000
NAMES = Names()
#: Unanswered at a time, so that a worker that stopped taking would be noticed as such.
IN_FLIGHT = 500
#: What a worker that serves 2,500 of these jobs may have grown by when it has served 2,500 more.
GROWTH_BYTES = 16 << 20

SEARCH = {"collection": "books", "limit": 1, "vectors": [[1, 2]]}
WRITE = {"collection": "books", "ids": [1], "vectors": [[1, 2]]}


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def beyond(bounds: Bounds) -> dict[str, tuple[str, Any]]:
    """For each bound a job, type and body, that passes it by little."""
    vector, scalar = {"name": "v", "dim": 2}, {"name": "s", "type": "int64"}
    return {
        "body_bytes": ("search", b" " * bounds.body_bytes + json.dumps(SEARCH).encode()),
        "depth": ("search", SEARCH | {"vectors": nested(bounds.depth)}),
        "items": ("search", SEARCH | {"vectors": [[]] * bounds.items}),
        "json_depth": ("upsert", WRITE | {"fields": {"meta": [nested(bounds.json_depth + 1)]}}),
        "row_lists": ("upsert", WRITE | {"fields": {"tags": [[]] * bounds.row_lists}}),
        "row_strings": ("upsert", WRITE | {"fields": {"title": [""] * bounds.row_strings}}),
        "dim": ("search", SEARCH | {"vectors": [[1] * (bounds.dim + 1)]}),
        "queries": ("search", SEARCH | {"vectors": [[1]] * (bounds.queries + 1)}),
        "rows": ("delete", {"collection": "books", "ids": list(range(bounds.rows + 1))}),
        "limit": ("search", SEARCH | {"limit": bounds.limit + 1}),
        "hits": ("search", SEARCH | {"vectors": [[1]] * 17, "limit": bounds.hits // 16}),
        "id_bytes": ("get", {"collection": "books", "ids": ["i" * (bounds.id_bytes + 1)]}),
        "expr_bytes": ("count", {"collection": "books", "expr": "x" * (bounds.expr_bytes + 1)}),
        "names": ("search", SEARCH | {"partition_names": ["p"] * (bounds.names + 1)}),
        "vector_fields": (
            "create",
            {"collection": "c", "vector_fields": [vector | {"name": f"v{n}"} for n in range(bounds.vector_fields + 1)]},
        ),
        "scalar_fields": (
            "create",
            {
                "collection": "c",
                "vector_fields": [vector],
                "scalar_fields": [scalar | {"name": f"s{n}"} for n in range(bounds.scalar_fields + 1)],
            },
        ),
        "params": ("search", SEARCH | {"params": {f"p{n}": 1 for n in range(bounds.params + 1)}}),
    }


@dataclass(frozen=True)
class BadJob:
    type: str
    body: bytes
    code: str


def refusal(job_type: str, body: bytes) -> str | None:
    """Return the code that a job is refused with; None for a good one."""
    try:
        decode_job(job_type, routing_key(job_type, body), body)
    except NearmqError as error:
        return error.code
    return None


def routing_key(job_type: str, body: bytes) -> str:
    """Return the key of a job as its publisher would make it, if the body allows."""
    return f"{job_type}.c" if job_type == "create" and b'"c"' in body else f"{job_type}.books"


def as_bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def bad_jobs(rng: random.Random) -> Iterator[BadJob]:
    """Give without end jobs that pass a bound, jobs of the table of wrong ones, and mutants of good ones.

    The largest have megabytes, so each bound is passed once in 300 jobs.
    """
    good = [path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("unit/wire_v1/job.*.json"))]
    types = [path.name.split(".")[1] for path in sorted(Path(__file__).parents[1].glob("unit/wire_v1/job.*.json"))]
    over, wrong, mutant = list(beyond(Bounds()).values()), list(INVALID.values()), mutants(good, rng)
    kinds = sorted(set(types) - {"load", "release", "cancel", "ping", "list"})
    while True:
        drawn = [(job_type, as_bytes(body)) for job_type, body in over]
        drawn += [("search", as_bytes(rng.choice(wrong)[0])) for _ in range(100)]
        drawn += [(rng.choice(kinds), next(mutant)) for _ in range(300)]
        rng.shuffle(drawn)
        for job_type, body in drawn:
            code = refusal(job_type, body)
            if code is not None:
                yield BadJob(job_type, body, code)


def test_there_is_a_job_beyond_every_bound():
    jobs = beyond(Bounds())
    assert set(jobs) == {field.name for field in fields(Bounds)}
    for name, (job_type, body) in jobs.items():
        assert (name, refusal(job_type, as_bytes(body))) == (name, "LIMIT_EXCEEDED")


def resident_bytes(process: "subprocess.Popen[bytes]") -> int:
    status = Path(f"/proc/{process.pid}/status").read_text().split()
    return int(status[status.index("VmRSS:") + 1]) << 10


@dataclass
class Sender:
    """Publishes bad jobs, and takes in what they are answered."""

    other: Peer
    jobs: Iterator[BadJob]
    expected: Counter[tuple[str, str]]
    outcomes: Counter[tuple[str, str]]

    def send(self, count: int) -> None:
        """Send so many, every fifth without a reply address, every twentieth with one that no reply is sent to."""
        for number in range(count):
            job = next(self.jobs)
            kind = {0: "none", 1: "own"}.get(number % 20, "none" if number % 5 == 0 else "queue")
            reply_to = {"none": None, "own": NAMES.dead, "queue": "replies"}[kind]
            outcome = {"none": ("dead", job.code), "own": ("dead", "reply_to"), "queue": ("reply", job.code)}[kind]
            self.expected[outcome] += 1
            self.other.publish(
                routing_key(job.type, job.body),
                job.body,
                exchange=NAMES.jobs,
                type=job.type,
                message_id=f"bad-{self.expected.total()}",
                reply_to=reply_to,
                delivery_mode=2,
            )
            if self.expected.total() - self.outcomes.total() >= IN_FLIGHT:
                self.take_until(IN_FLIGHT // 2)
        self.take_until(0)

    def take_until(self, left: int) -> None:
        eventually(partial(self._take, left), f"all but {left} of {self.expected.total()} jobs settled")

    def _take(self, left: int) -> bool:
        for queue in ("replies", NAMES.dead):
            while (message := self.other.channel.basic_get(queue, auto_ack=True))[0] is not None:
                _, properties, body = message
                if queue == "replies":
                    reply = decode_reply(body)
                    assert (reply.status, reply.error is None) == ("error", False)
                    self.outcomes["reply", reply.error.code] += 1
                else:
                    reason = str(properties.headers["nearmq-reason"])
                    self.outcomes["dead", "reply_to" if reason.startswith("reply_to") else reason] += 1
        return self.expected.total() - self.outcomes.total() <= left


def test_5_000_bad_jobs_have_5_000_clean_endings_and_the_worker_is_none_the_worse(broker_url: str, tmp_path: Path):
    apply_topology(broker_url, declarations())
    with (
        worker_process(broker_url, f"file:{tmp_path}") as process,
        nearmq.connect(broker_url, timeout_s=60) as client,
        peer(broker_url) as other,
    ):
        other.channel.queue_declare("replies", durable=True)
        books = client.create_collection("books", dim=2, index="FLAT")
        books.upsert([1, 2], np.eye(2))
        sender = Sender(other, bad_jobs(random.Random(5)), Counter(), Counter())
        sender.send(JOBS // 2)
        served = resident_bytes(process)
        for _ in range(5):
            sender.send(JOBS // 10)
            assert books.search([[1, 0]], limit=1)[0].ids.tolist() == [1]
        assert resident_bytes(process) - served < GROWTH_BYTES
        assert process.poll() is None
    assert sender.outcomes.total() == JOBS
    assert sender.outcomes == sender.expected
    assert {kind for kind, _ in sender.outcomes} == {"reply", "dead"}
    assert {code for _, code in sender.outcomes} == {"INVALID_ARGUMENT", "LIMIT_EXCEEDED", "reply_to"}
