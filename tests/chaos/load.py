"""Jobs whose right answers are known: searches of rows that stay, writes of rows that move, and searches of those."""

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from nearmq.bundles import BUNDLE_TYPE
from nearmq.client import Client
from nearmq.codec import decode_bundle, decode_reply
from nearmq.errors import NearmqError, StoreUnavailable
from nearmq.job_ids import new_job_id
from nearmq.jobs import DeleteJob, InsertJob, Job, Reply, SearchJob, UpsertJob
from nearmq.transport import Message, OnConfirm, Transport
from tests.chaos.effects import row, rows_of
from tests.chaos.history import Effect, History, digest_of

STILL_ROWS = 200
KEYS = 40
DIM = 8

#: So much longer are the pauses after the jobs that are due: bursts go on, for faults to meet, and the workers that a
#: test starts meanwhile have a processor left to start with.
_SLOWER = 5


def still_vectors() -> np.ndarray:
    """The rows of the collection `still`, which nobody writes to."""
    return np.random.default_rng(1).normal(size=(STILL_ROWS, DIM)).astype(np.float32)


def digest_of_reply(op: str, reply: Reply) -> str:
    if reply.error is not None:
        return reply.error.code
    if reply.hits is None:
        counts = {"inserted", "replaced", "deleted"}
        return digest_of({name: count for name, count in (reply.result or {}).items() if name in counts})
    if op == "search.moving":
        [hits] = reply.hits
        return digest_of(rows_of(hits.ids, hits.distances))
    return digest_of([[int(key) for key in hits.ids] for hits in reply.hits])


class RecordingTransport:
    """A transport that writes down what its client publishes and is answered, second answers too."""

    def __init__(self, transport: Transport, history: History) -> None:
        self._transport = transport
        self._history = history
        self._ops: dict[str, str] = {}

    @property
    def reply_to(self) -> str:
        return self._transport.reply_to

    def start(self, *, on_reply: Any, on_connected: Any) -> None:
        def on_recorded_reply(message: Message) -> None:
            together = decode_bundle(message.body) if message.type == BUNDLE_TYPE else [("", message.body)]
            for _, body in together:
                reply = decode_reply(body)
                op = self._ops.get(reply.job_id, "reply")
                digest = digest_of_reply(op, reply)
                self._history.add(op, "answered", job_id=reply.job_id, version=reply.version, digest=digest)
            on_reply(message)

        self._transport.start(on_reply=on_recorded_reply, on_connected=on_connected)

    def publish(self, message: Message, on_confirm: OnConfirm) -> None:
        op, job_id = message.routing_key, message.message_id
        self._ops[job_id] = op
        self._history.add(op, "published", job_id=job_id)

        def on_recorded_confirm(error: NearmqError | None) -> None:
            if error is None:
                self._history.add(op, "confirmed", job_id=job_id)
            else:
                self._history.add(op, "refused", job_id=job_id, digest=type(error).__name__)
            on_confirm(error)

        self._transport.publish(message, on_recorded_confirm)

    def stop(self) -> None:
        self._transport.stop()


class _Model:
    """What the writes of one publisher do in their order: the rows, and what each is answered."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}
        self._numbers = 0

    def write(self, rng: random.Random) -> tuple[Job, Effect, str]:
        """Draw a write; return it with its effect and the digest of its answer."""
        keys = rng.sample(range(KEYS), rng.randint(1, 6))
        present = self._rows.keys() & set(keys)
        kind = rng.choice(["upsert", "upsert", "insert", "delete"])
        if kind == "delete":
            effect: dict[int, int | None] = dict.fromkeys(keys)
            for key in present:
                del self._rows[key]
            return DeleteJob(collection="moving", ids=keys), effect, digest_of({"deleted": len(present)})
        self._numbers += 1
        values = dict.fromkeys(keys, self._numbers)
        vectors = np.stack([row(self._numbers)] * len(keys))
        if kind == "insert":
            job: Job = InsertJob(collection="moving", ids=keys, vectors=vectors)
            if present:
                return job, {}, "ALREADY_EXISTS"
            counts: Mapping[str, int] = {"inserted": len(keys)}
        else:
            job = UpsertJob(collection="moving", ids=keys, vectors=vectors)
            counts = {"inserted": len(keys) - len(present), "replaced": len(present)}
        self._rows |= values
        return job, values, digest_of(counts)


class Load:
    """Submits jobs in bursts from a thread of its own, so many, and more at a slower pace until `finish`; for one use.

    Args:
        writes: the share of writes, and of searches that see them.
        burst, pause_s: jobs submitted at once, and the time from one burst to the next.
        timeout_s: the deadline of each job.
        tries: how a store that is away is met: a write is published again, under its id, until the store took or
            refused it, and the next one waits for that, as it depends on it.
    """

    def __init__(
        self,
        client: Client,
        history: History,
        rng: random.Random,
        *,
        jobs: int,
        writes: float = 0.25,
        burst: int = 20,
        pause_s: float = 0.1,
        timeout_s: float = 120.0,
        tries: bool = False,
    ) -> None:
        self.futures: dict[str, Future[Reply]] = {}
        self._client, self._history, self._rng = client, history, random.Random(rng.random())
        self._jobs, self._writes, self._burst, self._pause_s = jobs, writes, burst, pause_s
        self._timeout_s, self._tries = timeout_s, tries
        self._write: tuple[Job, str] | None = None  # the last one, with its id
        self._model = _Model()
        self._vectors = still_vectors()
        self._newest = 0
        self._bursts = threading.Condition()
        self._enough = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def submitted(self) -> int:
        return len(self.futures)

    @property
    def unanswered(self) -> int:
        return sum(not future.done() for future in list(self.futures.values()))

    def await_burst(self, at_least: int = 0) -> None:
        """Return just after a burst was submitted, with at least so many jobs in all."""
        with self._bursts:
            while True:
                assert self._bursts.wait(60), f"no job could be submitted: {self._fault}"
                if len(self.futures) >= at_least:
                    return

    def submit(self, job: Job, *, digest: str = "", effect: Effect | None = None, **options: Any) -> str:
        """Submit a job whose right answer has this digest, if there is only one."""
        job_id = new_job_id()
        kind = type(job).__name__.removesuffix("Job").lower()
        op = f"{kind}.{job.collection}"
        least = getattr(job, "min_version", None)
        self._history.add(op, "submitted", job_id=job_id, version=least, digest=digest, effect=effect)
        future = self._client.submit(job, job_id=job_id, **({"timeout_s": self._timeout_s} | options))
        self.futures[job_id] = future
        future.add_done_callback(lambda done: self._ended(op, job_id, done))
        return job_id

    def finish(self) -> None:
        """Submit no more than what is due, and wait until every job is answered, given up or cancelled."""
        self._enough.set()
        self._thread.join()
        assert self._fault is None, f"the load ended early: {self._fault!r}"
        while self._tries and not self._is_write_done(patience_s=self._timeout_s):
            time.sleep(self._pause_s)
        for future in list(self.futures.values()):
            if not future.cancelled():
                future.exception()

    def abandon(self) -> None:
        """Submit no more."""
        self._jobs = 0
        self._enough.set()

    def _run(self) -> None:
        try:
            while len(self.futures) < self._jobs or not self._enough.is_set():
                for _ in range(self._burst):
                    self._submit_one()
                with self._bursts:
                    self._bursts.notify_all()
                is_due = len(self.futures) < self._jobs
                time.sleep(self._pause_s if is_due else self._pause_s * _SLOWER)
        except BaseException as error:
            self._fault = error

    def _submit_one(self) -> None:
        drawn = self._rng.random()
        if drawn < self._writes:
            if self._tries and not self._is_write_done():
                return
            job, effect, digest = self._model.write(self._rng)
            self._write = job, self.submit(job, digest=digest, effect=effect)
        elif drawn < self._writes * 1.5:
            least = self._newest or None
            self.submit(SearchJob(collection="moving", vectors=row(0)[None], limit=KEYS, min_version=least))
        else:
            key = self._rng.randrange(STILL_ROWS)
            self.submit(SearchJob(collection="still", vectors=self._vectors[[key]], limit=1), digest=digest_of([[key]]))

    def _is_write_done(self, patience_s: float = 0.0) -> bool:
        """Whether the last write is; if the store was away, publish it again."""
        if self._write is None:
            return True
        job, job_id = self._write
        try:
            error = self.futures[job_id].exception(patience_s)
        except TimeoutError:
            return False
        if not isinstance(error, StoreUnavailable):
            return True
        self.futures[job_id] = self._client.submit(job, job_id=job_id, timeout_s=self._timeout_s)
        return False

    def _ended(self, op: str, job_id: str, done: Future[Reply]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            if op.endswith(".moving"):
                self._newest = max(self._newest, done.result().version or 0)
        elif not isinstance(error, NearmqError) or error.code in ("TIMEOUT", "BROKER_UNAVAILABLE", "QUEUE_FULL"):
            self._history.add(op, "expired", job_id=job_id, digest=getattr(error, "code", repr(error)))
