"""Server processes of peers, and queues of a run's own for them."""

import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pika

from benchmarks.data import ROOT

_END_S = 10.0


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package as a program."""
    return [sys.executable, "-m", name, *arguments]


def program(name: str) -> str:
    """Return the path of a program of this environment."""
    return str(Path(sys.executable).parent / name)


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server, quietly; it is ended with the context."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def queue(url: str, *, kind: str = "classic") -> Iterator[str]:
    """Declare a durable queue, deleted with the context."""
    name = f"bench.{uuid.uuid4().hex}"
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(name, durable=True, arguments={"x-queue-type": kind})
    try:
        yield name
    finally:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            connection.channel().queue_delete(name)
