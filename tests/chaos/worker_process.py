"""A worker as a process that a test may do anything to."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.history import History
from tests.chaos.worker import HISTORY, run

WORKER = Path(__file__).with_name("worker.py")
REPOSITORY = Path(__file__).parents[2]
#: The suspects' pipe and the two of their sentinel; a program's resource tracker has one too, a fork's it shares.
_SUSPECTS_DESCRIPTORS = 3
#: Most of the processor time of a worker in a fault test was its start, and most of that imports: it is forked from a
#: process that has imported what it needs and has used none of it. Other tests start `nearmq worker run` as it is.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.chaos.worker", "nearmq_worker.service", "faiss"])


class Forked:
    """A worker of this release, as `subprocess.Popen` would show it."""

    def __init__(self, history: Path, log: Path, *arguments: str) -> None:
        self._process = _FORKS.Process(target=run, args=(history, log, *arguments))
        self._process.start()
        self.pid: int = self._process.pid or 0

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("a worker", timeout_s or 0.0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class WorkerProcess:
    """One worker; its log is a file beside the history.

    Args:
        code: the folder of another release's three packages; None for those of this one.
    """

    def __init__(self, history: History, store_url: str, *arguments: str, code: Path | None = None) -> None:
        redis = [url for url in (store_url, *arguments) if url.startswith("redis:")]
        self._redis_ports = {urlsplit(url).port for url in redis}
        self.log = history.path.with_suffix(f".worker-{time.monotonic_ns()}.log")
        arguments = ("--store", store_url, *arguments)
        self.process: Forked | subprocess.Popen[bytes]
        if code is None:
            self.process = Forked(history.path, self.log, *arguments)
        else:
            members = [str(code / member) for member in ("producer", "index_store", "worker")]
            path = os.pathsep.join([*members, str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
            environment = os.environ | {HISTORY: str(history.path), "PYTHONPATH": path}
            with self.log.open("wb") as log:
                self.process = subprocess.Popen([sys.executable, str(WORKER), *arguments], env=environment, stderr=log)
        self.name = f"worker {self.process.pid}"

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def descriptors(self) -> int:
        """Sockets, pipes and the like, but none that are kept on purpose.

        Those are the files of segments, the connections that a pool has to store and cache, and the pipes to the
        suspects' process, which ends when there was no suspect for 30 s.
        """
        kept = _sockets_to(self.process.pid, self._redis_ports)
        children = len(_children(self.process.pid))
        count = -_SUSPECTS_DESCRIPTORS - (children - 1) if children else 0
        for descriptor in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(descriptor.readlink())
                count += not target.startswith("/") and target not in kept
        return count

    def last_words(self) -> str:
        """The end of its log."""
        return "".join(self.log.read_text(errors="replace").splitlines(keepends=True)[-12:])


def _children(pid: int) -> list[str]:
    """The processes that any thread of a process has started."""
    return [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def _sockets_to(pid: int, ports: set[int | None]) -> set[str]:
    """The sockets of a process's network that lead to some ports, as its descriptors name them."""
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{row[9]}]" for row in rows if int(row[2].rpartition(":")[2], 16) in ports}
