"""Worker processes that a test may kill."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NEARMQ = str(Path(sys.executable).parent / "nearmq")


@contextmanager
def worker_process(
    broker_url: str, store: str, *options: str, program: Sequence[str] = (NEARMQ, "worker", "run")
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, which takes some seconds; at the end it is killed if it still lives."""
    with TemporaryDirectory(prefix="nearmq-spool-") as spool:  # its own: other tests damage what they store
        command = [*program, "--url", broker_url, "--store", store, "--spool", spool, "--log-level", "warning"]
        process = subprocess.Popen([*command, *options])
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
