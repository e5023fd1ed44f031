"""`nearmq worker run`: the worker as a program."""

import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer

from nearmq.tls_files import completed
from nearmq.topology import DEFAULT_PREFIX
from nearmq_index_store.command_options import Cache, SigningKey, Store, read_size
from nearmq_worker.config import WorkerConfig, shared_spool
from nearmq_worker.huge_pages import have_huge_pages

app = typer.Typer(help="Run workers.", no_args_is_help=True)

_DEFAULTS = WorkerConfig()
#: A worker that cannot reach its broker.
_EXIT_UNREACHABLE = 3


def _size(default: int) -> str:
    return f"{default >> 20}MiB"


@app.callback()
def _worker() -> None:
    """Run workers."""


@app.command()
def run(
    *,
    url: Annotated[
        str,
        typer.Option(
            envvar="NEARMQ_URL", callback=completed, help="The broker: amqp[s]://user:password@host:port/vhost."
        ),
    ] = _DEFAULTS.url,
    store: Store = _DEFAULTS.store,
    cache: Cache = None,
    signing_key_file: SigningKey = None,
    threads: Annotated[
        int, typer.Option(envvar="NEARMQ_THREADS", help="Compute threads; one a core is best.", show_default="cores")
    ] = _DEFAULTS.threads,
    memory: Annotated[
        str, typer.Option(envvar="NEARMQ_MEMORY", help="Budget of loaded segments, such as 4GiB.")
    ] = _size(_DEFAULTS.memory_bytes),
    spool: Annotated[
        Path | None,
        typer.Option(
            envvar="NEARMQ_SPOOL",
            help="Folder of the files that segments are mapped from, kept for the next worker and shared on this host.",
            show_default="the user's own in the temporary folder",
        ),
    ] = None,
    spool_size: Annotated[
        str | None,
        typer.Option(envvar="NEARMQ_SPOOL_SIZE", help="Most bytes kept there.", show_default="as --memory"),
    ] = None,
    queues: Annotated[
        list[str] | None,
        typer.Option(
            "--queues", "-Q", envvar="NEARMQ_QUEUES", help="Job queues to consume.", show_default="shared ones"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(envvar="NEARMQ_NAME", help="Told in replies and logs.", show_default="host-pid")
    ] = None,
    prefix: Annotated[
        str, typer.Option(envvar="NEARMQ_PREFIX", help="First word of the exchanges' and queues' names.")
    ] = DEFAULT_PREFIX,
    prefetch: Annotated[
        int, typer.Option(envvar="NEARMQ_PREFETCH", help="Deliveries of each queue taken ahead.")
    ] = _DEFAULTS.prefetch,
    prefetch_memory: Annotated[
        str, typer.Option(envvar="NEARMQ_PREFETCH_MEMORY", help="The same in bytes of bodies, all queues together.")
    ] = _size(_DEFAULTS.prefetch_bytes),
    batch_queries: Annotated[
        int, typer.Option(envvar="NEARMQ_BATCH_QUERIES", help="Most queries searched together.")
    ] = _DEFAULTS.batch_queries,
    result_hits: Annotated[
        int, typer.Option(envvar="NEARMQ_RESULT_HITS", help="Most hits of one job: queries x limit.")
    ] = _DEFAULTS.result_hits,
    result_memory: Annotated[
        str, typer.Option(envvar="NEARMQ_RESULT_MEMORY", help="Most bytes of fields and vectors that one job reads.")
    ] = _size(_DEFAULTS.result_bytes),
    reply_part: Annotated[
        str, typer.Option(envvar="NEARMQ_REPLY_PART", help="A longer reply is sent in parts of this size.")
    ] = _size(_DEFAULTS.reply_part_bytes),
    reply_pattern: Annotated[
        str | None,
        typer.Option(
            envvar="NEARMQ_REPLY_PATTERN",
            help="Hardened mode: replies go through the exchange of replies alone, to names that match this.",
            show_default="any queue",
        ),
    ] = None,
    deadline: Annotated[
        float, typer.Option(envvar="NEARMQ_DEADLINE", help="Most seconds that a job may compute.")
    ] = _DEFAULTS.deadline_s,
    grace: Annotated[
        float, typer.Option(envvar="NEARMQ_GRACE", help="Most seconds that a stop waits for jobs in progress.")
    ] = _DEFAULTS.grace_s,
    log_level: Annotated[str, typer.Option(envvar="NEARMQ_LOG_LEVEL", help="debug, info, warning or error.")] = "info",
    log_format: Annotated[
        Literal["console", "json"], typer.Option(envvar="NEARMQ_LOG_FORMAT", help="For people, or for machines.")
    ] = "console",
) -> None:
    """Take jobs from RabbitMQ and answer them, until SIGTERM or Ctrl-C; a second one ends the worker at once."""
    have_huge_pages()
    from threadpoolctl import threadpool_limits  # noqa: PLC0415  not before the command is known

    from nearmq_index_store.indexes import load_faiss  # noqa: PLC0415  not before the command is known
    from nearmq_worker.logs import configure_logging  # noqa: PLC0415  not before the command is known
    from nearmq_worker.service import Worker  # noqa: PLC0415  not before the command is known

    configure_logging(log_level, log_format)
    faulthandler.enable()  # a crash in native code says where it was
    config = WorkerConfig(
        url=url,
        store=store,
        cache=cache,
        signing_key_file=signing_key_file,
        threads=threads,
        memory_bytes=read_size(memory),
        spool=spool or shared_spool(),
        spool_bytes=None if spool_size is None else read_size(spool_size),
        queues=tuple(queues) if queues else None,
        name=name or _DEFAULTS.name,
        prefix=prefix,
        prefetch=prefetch,
        prefetch_bytes=read_size(prefetch_memory),
        batch_queries=batch_queries,
        result_hits=result_hits,
        result_bytes=read_size(result_memory),
        reply_part_bytes=read_size(reply_part),
        reply_pattern=reply_pattern,
        deadline_s=deadline,
        grace_s=grace,
    )
    # A compute thread holds the interpreter for 5 ms by default while others wait; measured at 16 queries a batch
    # beside a busy thread: 2,039 queries a second at 5 ms, 6,546 at 0.2 ms.
    sys.setswitchinterval(0.0002)
    load_faiss()
    # Jobs leave hardly any cycles; with Python's settings the search for them took an eighth of a one-query job.
    gc.freeze()
    gc.set_threshold(20_000)
    threadpool_limits(1)  # the compute threads are the parallelism: one native thread a call
    worker = Worker(config)
    _stop_on_signals(worker.request_stop)
    worker.start()
    if not worker.run():
        os._exit(_EXIT_UNREACHABLE)  # its threads are stuck, so an orderly exit would be too


def _stop_on_signals(request_stop: Callable[[], None]) -> None:
    """Stop in order at the first SIGTERM or SIGINT, at once at the second."""
    requested = False

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal requested
        if requested:
            sys.stderr.write("stopped at once, jobs in progress go to other workers\n")
            os._exit(128 + number)
        requested = True
        request_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
