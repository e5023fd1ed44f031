"""Free ports, waiting for readiness, and ending what was started."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable

#: Below Linux's ephemeral range (32768 and up), so that no outgoing connection takes a port between choice and use, and
#: above 25672, the default RabbitMQ node's distribution port.
PORTS = range(26_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Choose ports of 127.0.0.1 that nobody is bound to right now."""
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.choice(PORTS)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
        return ports


def wait_ready(
    answers: Callable[[], bool], process: subprocess.Popen[bytes] | None, *, what: str, timeout_s: float
) -> None:
    """Wait until `answers()` is true.

    Raises:
        RuntimeError: the process ended first, or nothing answered in time.
    """
    give_up = time.monotonic() + timeout_s
    while not answers():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what} ended with exit code {process.returncode} before it was ready")
        if time.monotonic() > give_up:
            raise RuntimeError(f"{what} was not ready within {timeout_s:g} s")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], number: signal.Signals, *, timeout_s: float = 30) -> None:
    """Send a signal to the process's whole group (it leads a session of its own) and wait; SIGKILL when it lingers."""
    for attempt in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, attempt)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
            return
    raise RuntimeError(f"process {process.pid} outlived SIGKILL")
