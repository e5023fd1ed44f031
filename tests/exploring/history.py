"""A store that forgets nothing, and the way to it over a bad network."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from nearmq_index_store.blobs import Buffer
from nearmq_index_store.errors import BlobNotFound, StoreUnavailable
from tests.exploring.turns import Clock, Killed, Turns


class History:
    """A BlobStore in memory; what was deleted, or put again under the same key, is kept aside.

    Attributes:
        ever: by key, what was put there first.
    """

    id = "memory:history"
    durability = None

    def __init__(self) -> None:
        self.ever: dict[str, bytes] = {}
        self._present: dict[str, bytes] = {}

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:  # noqa: ARG002
        if key not in self._present:
            raise BlobNotFound(f"no blob {key!r}")
        return self._present[key][start:end]

    def put(self, key: str, *parts: Buffer) -> None:
        self._present[key] = b"".join(parts)
        self.ever.setdefault(key, self._present[key])

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        if key in self._present:
            return False
        self.put(key, data)
        return True

    def exists(self, key: str) -> bool:
        return key in self._present

    def which_exist(self, keys: Sequence[str]) -> Iterator[bool]:
        return map(self.exists, keys)

    def delete(self, key: str) -> None:
        self._present.pop(key, None)

    def list(self, prefix: str) -> Iterator[str]:
        return iter([key for key in self._present if key.startswith(prefix)])

    def undeleted(self) -> "History":
        """The store as if nothing had been deleted."""
        whole = History()
        whole._present = self.ever
        return whole


class Link:
    """The store as one worker sees it: calls take time and turns, fail before or after their effect, or are the last.

    A put_if_absent that was given up may also take effect later.
    """

    def __init__(self, store: History, network: "Network") -> None:
        self._store = store
        self._network = network

    def __getattr__(self, name: str) -> Any:
        if name == "which_exist":  # which promises no more than one look after the other
            return lambda keys: map(self.exists, keys)
        operation = getattr(self._store, name)
        if not callable(operation):
            return operation

        def call(*arguments: Any, **options: Any) -> Any:
            return self._network.carry(lambda: operation(*arguments, **options), is_put=name == "put_if_absent")

        return call


class Network:
    """What all workers' calls go over."""

    def __init__(self, turns: Turns, clock: Clock, rng: random.Random) -> None:
        self._turns, self._clock, self._rng = turns, clock, rng
        self._late: list[Callable[[], object]] = []

    def carry(self, operation: Callable[[], Any], *, is_put: bool) -> Any:
        self._take_time()
        fate = self._rng.random()
        if fate < 0.004:
            raise Killed
        if fate < 0.008:
            raise StoreUnavailable("never sent")
        if is_put and fate < 0.016:
            self._late.append(operation)
            raise StoreUnavailable("under way")
        result = operation()
        if fate < (0.05 if is_put else 0.012):
            raise StoreUnavailable("the answer is lost")
        if is_put and fate < 0.054:
            raise Killed
        return result

    def end(self) -> None:
        """Let all that is under way take effect."""
        while self._late:
            self._late.pop()()

    def _take_time(self) -> None:
        """Now and then hours, in which this worker stands still and others go on."""
        self._clock.now_s += 0.01
        pause = 0
        if self._rng.random() < 0.01:
            pause = self._rng.choice((10, 40, 120))
            self._clock.now_s += self._rng.choice((1.0, 600.0, 7_200.0))
        self._turns.wait(pause)
        if self._late and self._rng.random() < 0.05:
            self._late.pop(self._rng.randrange(len(self._late)))()
