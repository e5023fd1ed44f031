"""All settings of a worker, in one frozen value: made once from options and environment, checked whole, handed down."""

import os
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from nearmq.errors import InvalidArgument
from nearmq.topology import DEFAULT_PREFIX

_GIB = 1 << 30
_MIB = 1 << 20


def default_name() -> str:
    """Return the host's name and the process id, by which logs and replies tell workers apart."""
    return f"{socket.gethostname()}-{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Settings of one worker process.

    Attributes:
        store: the store's url; the truth.
        cache: a Redis url put before the store; worth it where the store is a bucket.
        url: the broker's; unused in embedded mode.
        prefix: first word of the exchanges' and queues' names.
        queues: the job queues to consume; None for the shared ones. A special pool's queue takes read jobs.
        name: told in replies and logs, and part of the control queue's name.
        threads: compute threads. One a core; more gains nothing, since a search holds its core.
        memory_bytes: budget of the loaded segments. Segments beyond it are loaded again for each search that needs
            them, so give it the collection's size and leave room for one batch's results.
        spool: folder for segments on their way into memory; needs room for as many bytes as `memory_bytes`.
        prefetch: deliveries taken ahead. Large enough to batch what waits; all of it is delivered again when the worker
            dies, so not larger.
        prefetch_bytes: the same in bytes of job bodies.
        batch_queries: most queries searched together; bounds the memory of one batch and the wait of its last job.
        result_hits: most hits of one job, queries x limit; 12 bytes each and some four copies on their way.
        reply_part_bytes: a longer reply is sent in parts.
        deadline_s: most seconds a job may compute, where its own deadline is later; well under the broker's consumer
            timeout of 30 min.
        grace_s: most seconds that a stop waits for the jobs in progress.
    """

    store: str = "file:./nearmq-data"
    cache: str | None = None
    url: str = "amqp://guest:guest@localhost:5672/%2F"
    prefix: str = DEFAULT_PREFIX
    queues: tuple[str, ...] | None = None
    name: str = field(default_factory=default_name)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    memory_bytes: int = 2 * _GIB
    spool: Path = field(default_factory=lambda: Path(tempfile.gettempdir()))
    prefetch: int = 512
    prefetch_bytes: int = 256 * _MIB
    batch_queries: int = 4_096
    result_hits: int = 16_777_216
    reply_part_bytes: int = 8 * _MIB
    deadline_s: float = 60.0
    grace_s: float = 30.0

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "threads": (1, 1_024),
            "memory_bytes": (16 * _MIB, 1 << 50),
            "prefetch": (1, 65_535),
            "prefetch_bytes": (_MIB, 1 << 40),
            "batch_queries": (1, 1_048_576),
            "result_hits": (1, 1 << 32),
            "reply_part_bytes": (1_024, 16 * _MIB),
            "deadline_s": (0.001, 1_500),
            "grace_s": (0, 3_600),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidArgument(f"{name} is {value}, allowed are {low} to {high}", field=name)
