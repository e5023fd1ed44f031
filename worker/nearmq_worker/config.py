"""All settings of a worker, in one frozen value: made once from options and environment, checked whole, handed down."""

import os
import re
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


def shared_spool() -> Path:
    """Return the folder in which the workers of this user on this host keep files, unless told otherwise."""
    return Path(tempfile.gettempdir(), f"nearmq-spool-{os.geteuid()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """Settings of one worker process.

    Attributes:
        store: the store's url; the truth.
        cache: a Redis url put before the store; worth it where the store is a bucket.
        signing_key_file: keys, one a line, by which what names blobs is signed, and refused where it is not.
        url: the broker's; unused in embedded mode.
        prefix: first word of the exchanges' and queues' names.
        queues: the job queues to consume; None for the shared ones. A special pool's queue takes read jobs.
        name: told in replies and logs, and part of the control queue's name.
        threads: compute threads. One a core; more gains nothing, since a search holds its core.
        memory_bytes: budget of the loaded segments, and of what they keep of filters, at most as much again. Segments
            beyond it are loaded again for each search that needs them, so give it the collection's size, up to twice
            that for many filters, and leave room for one batch's results.
        spool: folder for the files that segments are mapped from, of this user alone; kept for the next worker and
            shared by all on the host that name it. None is one of this process's own, not kept.
        spool_bytes: most bytes that are kept there; None is as many as `memory_bytes`. Worth all segments that the
            host's workers search. The disk needs room for so many, and for those in use beyond it.
        prefetch: deliveries taken ahead. Large enough to batch what waits; all of it is delivered again when the worker
            dies, so not larger.
        prefetch_bytes: the same in bytes of job bodies.
        batch_queries: most queries searched together; bounds the memory of one batch and the wait of its last job.
        batch_bytes: most bodies of row writes committed together, as one segment; more make fewer versions, and a
            longer wait of the first job.
        segment_bytes: vectors of the largest segment that compaction makes. Larger ones are searched faster; it takes
            some two to three times as much memory.
        result_hits: most hits of one job, queries x limit; 12 bytes each and some four copies on their way.
        result_bytes: most bytes of the fields and vectors that one job reads, as they are stored; on their way into a
            reply they take some ten times as many.
        reply_part_bytes: a longer reply is sent in parts.
        reply_pattern: hardened mode (docs/security.md): a regular expression that the whole name of a reply queue has
            to match; replies then go through the exchange of replies, and the default one may be denied to the worker.
        deadline_s: most seconds a job may compute, where its own deadline is later; well under the broker's consumer
            timeout of 30 min.
        grace_s: most seconds that a stop waits for the jobs in progress.
    """

    store: str = field(default="file:./nearmq-data", repr=False)  # its url may hold a password
    cache: str | None = field(default=None, repr=False)
    signing_key_file: Path | None = None
    url: str = field(default="amqp://guest:guest@localhost:5672/%2F", repr=False)
    prefix: str = DEFAULT_PREFIX
    queues: tuple[str, ...] | None = None
    name: str = field(default_factory=default_name)
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    memory_bytes: int = 2 * _GIB
    spool: Path | None = None
    spool_bytes: int | None = None
    prefetch: int = 512
    prefetch_bytes: int = 256 * _MIB
    batch_queries: int = 4_096
    batch_bytes: int = 16 * _MIB
    segment_bytes: int = 256 * _MIB
    result_hits: int = 16_777_216
    result_bytes: int = 256 * _MIB
    reply_part_bytes: int = 8 * _MIB
    reply_pattern: str | None = None
    deadline_s: float = 60.0
    grace_s: float = 30.0

    @property
    def most_spool_bytes(self) -> int:
        """What `spool_bytes` is by default or says."""
        return self.memory_bytes if self.spool_bytes is None else self.spool_bytes

    @property
    def work_folder(self) -> Path:
        """Where files are on their way into the store."""
        return Path(tempfile.gettempdir()) if self.spool is None else self.spool

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "threads": (1, 1_024),
            "memory_bytes": (16 * _MIB, 1 << 50),
            "most_spool_bytes": (0, 1 << 50),
            "prefetch": (1, 65_535),
            "prefetch_bytes": (_MIB, 1 << 40),
            "batch_queries": (1, 1_048_576),
            "batch_bytes": (1, 1 << 30),
            "segment_bytes": (_MIB, 1 << 34),
            "result_hits": (1, 1 << 32),
            "result_bytes": (_MIB, 1 << 40),
            "reply_part_bytes": (1_024, 16 * _MIB),
            "deadline_s": (0.001, 1_500),
            "grace_s": (0, 3_600),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidArgument(f"{name} is {value}, allowed are {low} to {high}", field=name)
        try:
            re.compile(self.reply_pattern or "")
        except re.error as error:
            raise InvalidArgument(
                f"reply_pattern {self.reply_pattern!r} is no regular expression: {error}", field="reply_pattern"
            ) from error
