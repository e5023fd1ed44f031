"""Workers, a client and a load on a broker and a store, all of it written down, and judged at the end."""

import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pika

from nearmq.amqp import AmqpTransport, apply_topology
from nearmq.client import Client
from nearmq.job_ids import new_job_id
from nearmq.jobs import Job
from nearmq.topology import Names, declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from tests.chaos.checker import Verdict, check
from tests.chaos.dead_letters import dead_letters
from tests.chaos.effects import make_moving, write_down_effects
from tests.chaos.history import Entry, History
from tests.chaos.load import DIM, STILL_ROWS, Load, RecordingTransport, still_vectors
from tests.chaos.worker import record
from tests.chaos.worker_process import WorkerProcess
from tests.world import fill

PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One row of the table: a run of one fault."""

    fault: str
    seed: int
    verdict: Verdict
    leaked: int


class Scene:
    """A broker and a store with workers, a client and its load; faults are injected into it, then it is judged.

    Args:
        path: of the history.
        broker_url: of the broker itself, by which the scene is set and looked at.
        worker_url, client_url: the ways to it of workers and client, such as by a proxy; None for the same.
    """

    def __init__(
        self,
        path: Path,
        broker_url: str,
        store_url: str,
        *,
        seed: int,
        worker_url: str | None = None,
        client_url: str | None = None,
        worker_options: tuple[str, ...] = (),
    ) -> None:
        self.rng = random.Random(seed)
        self.history = History(path, "client")
        self.workers: list[WorkerProcess] = []
        self.load: Load | None = None
        self._broker_url, self._store_url = broker_url, store_url
        self._worker_url = worker_url or broker_url
        self._worker_options = worker_options
        self._before: dict[WorkerProcess, int] = {}
        self._transport = RecordingTransport(AmqpTransport(client_url or broker_url), self.history)
        self._client = Client(self._transport)
        self._recorder = record(self.history)

    def open(self, *, workers: int, **load: object) -> None:
        """Make topology and collections, start the workers and the load, and return when a part of it is answered."""
        apply_topology(self._broker_url, declarations())
        self._make_collections()
        self._await_start([self.start_worker(wait=False) for _ in range(workers)], 0)
        self._client.start()
        self.load = Load(self._client, self.history, self.rng, **load)
        self.load.start()
        self.load.await_burst()
        self.await_answers(1)
        self._before = {worker: worker.descriptors() for worker in self.workers}

    def start_worker(self, *, wait: bool = True, code: Path | None = None) -> WorkerProcess:
        options = ("--url", self._worker_url, "--log-level", "info", *self._worker_options)
        since = len(self.history.entries())
        worker = WorkerProcess(self.history, self._store_url, *options, code=code)
        self.workers.append(worker)
        if wait:
            self._await_start([worker], since)
        return worker

    def end(self, worker: WorkerProcess, number: signal.Signals) -> None:
        """Signal a worker that is expected to end by it, and wait; SIGTERM has to end it in order."""
        self.workers.remove(worker)
        worker.send(number)
        code = worker.process.wait(PATIENCE_S)
        assert code == (0 if number == signal.SIGTERM else -number), (
            f"the worker ended with {code}: {worker.last_words()}"
        )

    def await_death(self, number: signal.Signals) -> None:
        """Wait until a worker was ended by this signal, which nobody here has sent."""
        deadline = time.monotonic() + PATIENCE_S
        while not (dead := [worker for worker in self.workers if worker.process.poll() == -number]):
            assert time.monotonic() < deadline, f"no worker died of {number.name}"
            time.sleep(0.02)
        self.workers.remove(dead[0])

    @property
    def reply_to(self) -> str:
        return self._transport.reply_to

    def publish(self, job: Job, *, reply_to: str) -> None:
        """Publish a job of which only what becomes of it in the end is seen here."""
        job_id = new_job_id()
        self.history.add("elsewhere", "submitted", job_id=job_id)
        self._client.publish(job, reply_to=reply_to, job_id=job_id)

    def await_dead_letter(self) -> None:
        self.wait_for(lambda: self._waiting(Names().dead) > 0, "a dead letter")

    def hesitate(self, most_s: float = 0.05) -> None:
        """Let a random time pass, so that a fault meets jobs at any stage."""
        time.sleep(self.rng.uniform(0, most_s))

    @contextlib.contextmanager
    def fault(self, name: str) -> Iterator[None]:
        """Within it, something is broken; at its end that is over."""
        self.history.add(name, "injected")
        yield
        self.history.add(name, "healed")

    def answers(self) -> int:
        return sum(entry.phase == "answered" for entry in self.history.entries())

    def await_answers(self, more: int) -> None:
        """Wait until so many more answers have come."""
        enough = self.answers() + more
        self.wait_for(lambda: self.answers() >= enough, f"{more} more answers")

    def await_entries(self, what: str, matches: Callable[[Entry], bool], count: int = 1, *, since: int = 0) -> None:
        """Wait until so many entries of the history, from a place in it on, match."""
        self.wait_for(lambda: sum(map(matches, self.history.entries()[since:])) >= count, what)

    def wait_for(self, condition: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S) -> None:
        """Wait for something, while no worker may end by itself."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            for worker in self.workers:
                code = worker.process.poll()
                assert code is None, f"a worker ended by itself with {code}: {worker.last_words()}"
            assert time.monotonic() < deadline, f"not in {timeout_s:g} s: {what}"
            time.sleep(0.02)

    def close(self, fault: str, seed: int) -> Outcome:
        """Wait for what is due, stop in order, write down what is left, and judge."""
        self.load.finish()
        # Jobs that were published again may be there although all are answered: their answers have to be right too.
        for pool in ("search", "write"):
            self.wait_for(lambda pool=pool: not self._waiting(Names().queue(pool)), f"the {pool} queue empty")
        leaked = self._leaked()
        for worker in list(self.workers):
            self.end(worker, signal.SIGTERM)
        self.wait_for(lambda: not self._waiting(self._transport.reply_to), "all replies taken")
        self._client.close()
        self._write_down_what_is_left()
        return Outcome(fault=fault, seed=seed, verdict=check(self.history.entries()), leaked=leaked)

    def abandon(self) -> None:
        """End everything, however it is."""
        if self.load is not None:
            self.load.abandon()
        for worker in self.workers:
            worker.kill()
        self._client.close()
        self.history.close()
        for name in ("nearmq", "nearmq_worker"):
            logging.getLogger(name).removeHandler(self._recorder)

    def _make_collections(self) -> None:
        store = open_store(self._store_url)
        field = VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="FLAT"))
        Catalog(store).create("still", Schema(vector_fields=(field,)), job_id="create still")
        make_moving(store)
        fill(store, "still", range(STILL_ROWS), still_vectors())

    def _await_start(self, workers: list[WorkerProcess], since: int) -> None:
        names = {worker.name for worker in workers}
        self.await_entries(
            "every worker started",
            lambda entry: entry.phase == "started" and entry.proc in names,
            len(names),
            since=since,
        )

    def _leaked(self) -> int:
        """Descriptors that the workers have more than before the faults, when nothing is left to do."""
        survivors = [worker for worker in self.workers if worker in self._before]
        deadline = time.monotonic() + 5
        while True:
            leaked = max([0, *(worker.descriptors() - self._before[worker] for worker in survivors)])
            if leaked == 0 or time.monotonic() > deadline:
                return leaked
            time.sleep(0.1)

    def _waiting(self, queue: str) -> int:
        with pika.BlockingConnection(pika.URLParameters(self._broker_url)) as connection:
            return int(connection.channel().queue_declare(queue, passive=True).method.message_count)

    def _write_down_what_is_left(self) -> None:
        for letter in dead_letters(self._broker_url):
            reason = str(letter.get("nearmq-reason") or letter.get("x-first-death-reason"))
            self.history.add("dead letter", "dead", job_id=str(letter["job_id"]), digest=reason)
        write_down_effects(self.history, self._store_url, list(self.load.futures))
