"""A worker as a process that a test may do anything to."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.history import History
from tests.chaos.worker import HISTORY

WORKER = Path(__file__).with_name("worker.py")
REPOSITORY = Path(__file__).parents[2]
#: Its pipe, its sentinel, and the resource tracker's and its pipe.
_SUSPECTS_DESCRIPTORS = 4


class WorkerProcess:
    """One worker; its log is a file beside the history.

    Args:
        code: the folder of another release's three packages; None for those of this one.
    """

    def __init__(self, history: History, store_url: str, *arguments: str, code: Path | None = None) -> None:
        redis = [url for url in (store_url, *arguments) if url.startswith("redis:")]
        self._redis_ports = {urlsplit(url).port for url in redis}
        self.log = history.path.with_suffix(f".worker-{time.monotonic_ns()}.log")
        members = [] if code is None else [str(code / member) for member in ("producer", "index_store", "worker")]
        path = os.pathsep.join([*members, str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {HISTORY: str(history.path), "PYTHONPATH": path}
        command = [sys.executable, str(WORKER), "--store", store_url, *arguments]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)
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
        count = -_SUSPECTS_DESCRIPTORS if _children(self.process.pid) else 0
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
