"""Interleavings of several workers, drawn from a seed: one runs at a time, and all else is chosen at its store calls.

What a run does is decided by its seed alone, so that a failing one can be run again alone.
"""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ulid

from nearmq_index_store.blobs import BlobStore
from nearmq_index_store.errors import StoreUnavailable


class Killed(BaseException):
    """This worker ends here."""


class Turns:
    """Lets one of several threads run at a time, and chooses anew at each of their steps.

    Args:
        linger: how often the running thread goes on without another being considered.
    """

    def __init__(self, rng: random.Random, *, linger: float = 0.0) -> None:
        self._rng = rng
        self._linger = linger
        self._gates: dict[str, threading.Lock] = {}  # of the threads that wait for a turn
        self._asleep: dict[str, int] = {}  # until which step
        self._step = 0
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()

    def start(self, name: str, run: Callable[[], None]) -> None:
        """Add a thread; before `play`."""
        gate = _closed()

        def body() -> None:
            gate.acquire()
            try:
                run()
            finally:
                self._pass_on()

        self._gates[name] = gate
        self._threads.append(threading.Thread(target=body, name=name))
        self._threads[-1].start()

    def wait(self, steps: int = 0) -> None:
        """Called by a thread before each step: give the turn back and wait for the next, at least so many steps."""
        self._step += 1
        if not steps and self._rng.random() < self._linger:
            return
        name = threading.current_thread().name
        if steps:
            self._asleep[name] = self._step + steps
        self._gates[name] = gate = _closed()
        self._pass_on()
        gate.acquire()

    def play(self) -> None:
        """Hand out turns until all threads have ended."""
        self._pass_on()
        self._over.wait()
        for thread in self._threads:
            thread.join()

    def _pass_on(self) -> None:
        if not self._gates:
            self._over.set()
            return
        names = sorted(self._gates)
        awake = [name for name in names if self._asleep.get(name, 0) <= self._step]
        chosen = self._rng.choice(awake or names)
        self._gates.pop(chosen).release()


class Shaken:
    """The store as one worker sees it: each call waits for its turn, may lose its answer, or be the worker's last."""

    def __init__(self, store: BlobStore, turns: Turns, rng: random.Random) -> None:
        self._store, self._turns, self._rng = store, turns, rng

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._turns.wait()
            fate = self._rng.random()
            if fate < 0.01:
                raise Killed
            if fate < 0.02:
                raise StoreUnavailable("never sent")
            result = list(operation(*arguments)) if name == "list" else operation(*arguments, **options)
            if fate < 0.04:
                raise StoreUnavailable("the answer is lost")
            if fate < 0.05:
                raise Killed
            return result

        return call


class Clock:
    """The time of all workers, which only moves when it is told to; each reads it with an error of its own."""

    def __init__(self, rng: random.Random) -> None:
        self.now_s = 1_750_000_000.0
        self.errors_s: dict[str, float] = {}
        self._rng = rng

    def read(self) -> float:
        """The time as the running thread's machine has it."""
        return self.now_s + self.errors_s.get(threading.current_thread().name, 0.0)

    @contextmanager
    def in_ulids(self) -> Iterator[None]:
        """Make ULIDs from this clock and the seed."""
        before = ulid.default_generator
        ulid.default_generator = ulid.ULIDGenerator(
            clock=lambda: int(self.read() * 1_000), randomness=self._random_bytes, policy=ulid.LaxMonotonicPolicy()
        )
        try:
            yield
        finally:
            ulid.default_generator = before

    def _random_bytes(self, _timestamp_ms: int) -> bytes:
        return self._rng.randbytes(10)


def _closed() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate
