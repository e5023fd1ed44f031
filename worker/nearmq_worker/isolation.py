"""Running suspect jobs in a process of their own, so that a job which ends its process takes no neighbour with it."""

import faulthandler
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, NamedTuple, TypeVar

Argument = TypeVar("Argument")

#: How often a call that takes long is asked whether it should be given up.
_ASK_EVERY_S = 0.25

#: Called once in the new process; what it returns is called with each argument.
Prepare = Callable[[], Callable[[Argument], bytes]]


class ChildDied(Exception):
    """The process ended without a result.

    Attributes:
        exitcode: as multiprocessing gives it: negative for a signal; None when it ran out of time and was killed.
    """

    def __init__(self, exitcode: int | None, message: str) -> None:
        super().__init__(message)
        self.exitcode = exitcode


class Stopped(Exception):
    """The call was given up, with the process that made it."""


class _Child(NamedTuple):
    process: BaseProcess
    pipe: Connection


class IsolatedProcess(Generic[Argument]):
    """A process that makes one call at a time, started by the first and by the first after a death.

    It is spawned, not forked: threads and index libraries do not survive a fork. It starts from nothing, which takes
    some seconds of importing, so it is kept between calls: after a crash, every job that the worker held comes back as
    a suspect, some hundred of them. For one thread.

    Args:
        prepare: importable by its module and name, or a partial of such a function.
    """

    def __init__(self, prepare: "Prepare[Argument]") -> None:
        self._prepare = prepare
        self._child: _Child | None = None

    def run(self, argument: Argument, *, timeout_s: float, stop_if: Callable[[], bool] = lambda: False) -> bytes:
        """Call the prepared function with an argument that can be pickled, and return its result.

        Raises:
            Stopped: `stop_if`, which is asked before and now and then, said so.
            ChildDied: the process crashed, was killed, raised (the traceback is on stderr), or ran out of time, which
                is counted from the start of the process if this call starts it.
        """
        if stop_if():
            raise Stopped
        child = self._child = self._child or self._start()
        try:
            child.pipe.send(argument)
            result = child.pipe.recv_bytes() if _has_result(child, timeout_s, stop_if) else None
        except (EOFError, BrokenPipeError, ConnectionResetError):
            child.process.join()
            exitcode = child.process.exitcode
            self.close()
            raise ChildDied(exitcode, f"the job's own process {_ending(exitcode)}") from None
        if result is None:
            self.close()
            if stop_if():
                raise Stopped
            raise ChildDied(None, f"the job took longer than {timeout_s:g} s in its own process")
        return result

    def close(self) -> None:
        """End the process; the next call starts another. May come twice."""
        child, self._child = self._child, None
        if child is not None:
            child.process.kill()
            child.process.join()
            child.process.close()
            child.pipe.close()

    def _start(self) -> _Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._prepare, theirs), name="nearmq-isolated", daemon=True)
        process.start()
        theirs.close()  # so that the child's death ends the pipe
        return _Child(process, ours)


def _serve(prepare: "Prepare[Argument]", pipe: Connection) -> None:
    # Ctrl-C reaches the whole group of processes: the worker decides what it means, and lets the job finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    function = prepare()
    while True:
        try:
            argument = pipe.recv()
        except EOFError:  # the worker is gone
            return
        pipe.send_bytes(function(argument))


def _has_result(child: _Child, timeout_s: float, stop_if: Callable[[], bool]) -> bool:
    """Wait for a result; say whether it came, or the child's death, before the time was over and nobody stopped it."""
    deadline = time.monotonic() + timeout_s
    while not child.pipe.poll(min(_ASK_EVERY_S, max(0.0, deadline - time.monotonic()))):
        if stop_if() or time.monotonic() >= deadline:
            return False
    return True


def _ending(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"exited with status {exitcode}"
