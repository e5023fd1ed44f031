"""A worker that writes its part of a history, by its log. Run as a program, or in a process that was forked.

Its suspects' process imports it too.

The query of all 666 ends the process that searches it; that of all 777 takes a while.
"""

import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from nearmq_worker import segment_search, telemetry
from nearmq_worker.commands import app
from tests.chaos.history import History, Phase

#: Name of the variable with the path of the history.
HISTORY = "NEARMQ_TEST_HISTORY"
SLOW_S = 8.0

#: The log events that are written down.
PHASES: dict[str, Phase] = {
    telemetry.WORKER_STARTED: "started",
    telemetry.JOB_ANSWERED: "computed",
    "connected": "connected",
    "connection lost": "lost",
}

search_part = segment_search.search_part


def deadly_search_part(segment: Any, queries: Any, *arguments: Any, **options: Any) -> Any:
    if (queries == 666).any():
        signal.raise_signal(signal.SIGSEGV)
    if (queries == 777).any():
        time.sleep(SLOW_S)
    return search_part(segment, queries, *arguments, **options)


segment_search.search_part = deadly_search_part


class Recorder(logging.Handler):
    """Puts log events into a history."""

    def __init__(self, history: History) -> None:
        super().__init__(logging.INFO)
        self._history = history

    def emit(self, record: logging.LogRecord) -> None:
        phase = PHASES.get(record.msg)
        if phase is not None:
            op = getattr(record, "connection", getattr(record, "type", "worker"))
            self._history.add(op, phase, job_id=getattr(record, "job_id", ""), version=getattr(record, "version", None))


def record(history: History) -> Recorder:
    """Let a history hear of this process's log, and return what to remove from the loggers again."""
    recorder = Recorder(history)
    for name in ("nearmq", "nearmq_worker"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(recorder)
    return recorder


def run(history: Path, log: Path, *arguments: str) -> None:
    """Be a worker from now on, in a process that was forked for that."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")  # what would start itself anew is another program
    sys.modules["__main__"] = sys.modules[__name__]  # what the suspects' process imports
    record(History(history, f"worker {os.getpid()}"))
    app(args=["run", "--name", f"forked-{os.getpid()}", *arguments])


if __name__ == "__main__":
    record(History(Path(os.environ[HISTORY]), f"worker {os.getpid()}"))
    app(args=["run", *sys.argv[1:]])
