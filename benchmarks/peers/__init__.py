"""The systems that jobs are also put through: each a server that searches the same graph, and a client that drives it.

Each module has `NAME`, and `serving(stage, graph)`: a context in which its server runs, which gives a function from
jobs in flight and seconds to figures. Run as a program, it is the server. Libraries of the group `bench` are imported
on top of the module that compares with them, so one that cannot be installed is missed when its module is imported.
"""

import importlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from benchmarks.measuring import Figures
from benchmarks.stage import Built, Stage

#: What a run of some jobs in flight for some seconds gives.
Drive = Callable[[int, float], Figures]


class Peer(Protocol):
    """A module of this package."""

    NAME: str

    def serving(self, stage: Stage, graph: Built) -> AbstractContextManager[Drive]:
        """Run its server, which is ready when the context is entered, and return its client."""


ECHOES = ("guaranteed_echo", "bare_echo")
SEARCHES = ("tutorial", "celery_tasks", "dramatiq_actors", "milvus_lite")
#: Where jobs wait for each other, and some hundred take minutes: half a second a query on 200,000 rows, and no faster
#: in batches, since milvus-lite gathers the newest version of every row for each search.
MOST_IN_FLIGHT = {"milvus_lite": 1}


def load(names: Iterable[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    """Return the peers that are installed, and of the others, why they cannot be had."""
    found: dict[str, Peer] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            found[name] = importlib.import_module(f"benchmarks.peers.{name}")
        except ImportError as error:
            missing[name] = str(error)
    return found, missing
