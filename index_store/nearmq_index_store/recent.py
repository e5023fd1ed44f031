"""A bounded memory of what was used last."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A map that keeps its last used entries, up to a bound; may be used by any number of threads.

    Args:
        bound: how much is kept, in whatever `weigh` counts: entries, where it is left out.
        weigh: what an entry counts; the newest is kept even when it alone is above the bound.
    """

    def __init__(self, bound: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._bound = bound
        self._weigh = weigh
        self._held = 0
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """What the entries come to, as `weigh` counts."""
        return self._held

    def get(self, key: K) -> V | None:
        """Return the value, None when it is not (or no longer) there."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Add or replace; the entries used longest ago go when there is no room."""
        with self._lock:
            self._drop(key)
            self._entries[key] = value
            self._held += self._weigh(value)
            while self._held > self._bound and len(self._entries) > 1:
                self._drop(next(iter(self._entries)))

    def forget(self, key: K) -> None:
        """Remove; a key that is not there is no error."""
        with self._lock:
            self._drop(key)

    def _drop(self, key: K) -> None:
        if key in self._entries:
            self._held -= self._weigh(self._entries.pop(key))
