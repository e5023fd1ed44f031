"""Holding a function of the worker's at a place, until the test has seen what it wants to see."""

import threading
from collections.abc import Callable
from functools import partialmethod
from typing import Any, Self

import pytest

PATIENCE_S = 60


class Gate:
    """A function that waits until the gate is opened."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._reached = threading.Semaphore(0)
        self._opened = threading.Event()
        self.calls = 0

    @classmethod
    def at(cls, monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> Self:
        """Hold every call of a method of a class."""
        gate = cls(getattr(owner, method))
        monkeypatch.setattr(owner, method, partialmethod(gate))
        return gate

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        self._reached.release()
        assert self._opened.wait(PATIENCE_S)
        return self._function(*arguments, **options)

    def reached(self, times: int = 1) -> None:
        """Wait until it was called so often more."""
        for _ in range(times):
            assert self._reached.acquire(timeout=PATIENCE_S)

    def open(self) -> None:
        self._opened.set()
