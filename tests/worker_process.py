"""Worker processes that a test may kill."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NEARMQ = str(Path(sys.executable).parent / "nearmq")


@contextmanager
def worker_process(
    broker_url: str, store: str, *options: str, program: Sequence[str] = (NEARMQ, "worker", "run")
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, which takes some seconds; at the end it is killed if it still lives."""
    command = [*program, "--url", broker_url, "--store", store, "--log-level", "warning", *options]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
