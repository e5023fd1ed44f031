"""Running a function in a process of its own."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from nearmq_worker.isolation import ChildDied, IsolatedProcess, Stopped

PATIENCE_S = 60


def same(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return function


def evaluate(expression: str) -> Any:
    return eval(expression, {"os": os, "signal": signal, "time": time})


@pytest.fixture
def isolated() -> Iterator[IsolatedProcess[str]]:
    process: IsolatedProcess[str] = IsolatedProcess(partial(same, evaluate))
    yield process
    process.close()


def test_results_come_back_however_long_from_one_process_for_all_calls(isolated: IsolatedProcess[str]):
    assert isolated.run("bytes(3_000_000)", timeout_s=PATIENCE_S) == bytes(3_000_000)
    pids = {isolated.run("str(os.getpid()).encode()", timeout_s=PATIENCE_S) for _ in range(3)}
    assert len(pids) == 1
    assert pids != {str(os.getpid()).encode()}


@pytest.mark.parametrize(
    ("expression", "exitcode", "message"),
    [
        ("os._exit(3)", 3, "exited with status 3"),
        ("signal.raise_signal(signal.SIGSEGV)", -signal.SIGSEGV, "was ended by SIGSEGV"),
        ("1 / 0", 1, "exited with status 1"),
    ],
)
def test_a_death_tells_how_and_the_next_call_has_a_new_process(
    isolated: IsolatedProcess[str], expression: str, exitcode: int, message: str
):
    with pytest.raises(ChildDied, match=message) as caught:
        isolated.run(expression, timeout_s=PATIENCE_S)
    assert caught.value.exitcode == exitcode
    assert isolated.run("b'alive'", timeout_s=PATIENCE_S) == b"alive"


def test_a_call_that_is_stopped_ends_with_its_process_and_is_not_made_once_it_is(isolated: IsolatedProcess[str]):
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    with pytest.raises(Stopped):
        isolated.run("time.sleep(3600)", timeout_s=PATIENCE_S, stop_if=stopped.is_set)
    with pytest.raises(Stopped):
        isolated.run("os._exit(3)", timeout_s=PATIENCE_S, stop_if=stopped.is_set)
    assert isolated.run("b'alive'", timeout_s=PATIENCE_S) == b"alive"


def test_a_call_that_takes_too_long_is_killed(isolated: IsolatedProcess[str]):
    assert isolated.run("b'started'", timeout_s=PATIENCE_S) == b"started"
    began = time.monotonic()
    with pytest.raises(ChildDied, match=r"longer than 0\.5 s") as caught:
        isolated.run("time.sleep(3600)", timeout_s=0.5)
    assert caught.value.exitcode is None
    assert time.monotonic() - began < PATIENCE_S


def test_ctrl_c_does_not_end_it(isolated: IsolatedProcess[str]):
    assert isolated.run("signal.raise_signal(signal.SIGINT) or b'alive'", timeout_s=PATIENCE_S) == b"alive"
