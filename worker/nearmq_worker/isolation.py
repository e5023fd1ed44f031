"""Running one job in a process of its own, so that a job which ends its process takes no neighbour with it."""

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TypeVar

Argument = TypeVar("Argument")


class ChildDied(Exception):
    """The process ended without a result.

    Attributes:
        exitcode: as multiprocessing gives it: negative for a signal; None when it ran out of time and was killed.
    """

    def __init__(self, exitcode: int | None, message: str) -> None:
        super().__init__(message)
        self.exitcode = exitcode


def run_isolated(function: Callable[[Argument], bytes], argument: Argument, *, timeout_s: float) -> bytes:
    """Call `function(argument)` in a new process and return its result.

    The process is spawned, not forked: threads and index libraries do not survive a fork. It starts from nothing, which
    takes some seconds of importing, so this is for the few jobs that need it.

    Args:
        function: importable by its module and name.
        argument: anything that can be pickled.
        timeout_s: counted from the start of the process.

    Raises:
        ChildDied: it crashed, was killed, raised (the traceback is on stderr), or ran out of time.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(function, argument, sender), name="nearmq-isolated", daemon=True)
    deadline = time.monotonic() + timeout_s
    with contextlib.closing(receiver):
        child.start()
        sender.close()  # so that the child's death ends the pipe
        try:
            if not receiver.poll(max(0.0, deadline - time.monotonic())):
                raise ChildDied(None, f"the job took longer than {timeout_s:g} s in its own process")
            return receiver.recv_bytes()
        except (EOFError, OSError):  # before its result, or in the midst of it
            child.join()
            raise ChildDied(child.exitcode, f"the job's own process {_ending(child.exitcode)}") from None
        finally:
            child.kill()
            child.join()
            child.close()


def _run(function: Callable[[Argument], bytes], argument: Argument, sender: Connection) -> None:
    # Ctrl-C reaches the whole group of processes: the worker decides what it means, and lets the job finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sender.send_bytes(function(argument))


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"exited with status {exitcode}"
