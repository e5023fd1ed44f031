"""Modules of the tests that run beside each other, in processes of their own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a process ended; stdout and stderr together."""

    returncode: int
    output: str


def run_beside(module: str, *arguments: Sequence[str]) -> list[Ended]:
    """Run `python -m MODULE ARGUMENTS` once with each of these arguments, all at the same time."""
    root = Path(__file__).parents[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module, *words],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in arguments
    ]
    try:
        outputs = [process.communicate()[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [Ended(process.returncode, output) for process, output in zip(started, outputs, strict=True)]
