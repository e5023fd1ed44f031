"""What happened, as every process saw it: one JSON line an event, appended by clients, workers and the test alike."""

import json
import time
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

#: What a write makes of the rows it names: their value, None where it deletes them.
Effect = Mapping[int, int | None]

Phase = Literal[
    # of a job, seen by its client
    "submitted",
    "published",
    "confirmed",
    "refused",
    "answered",
    "expired",
    # of a job, seen by a worker and in the end
    "computed",
    "dead",
    "committed",
    # of a process and its connections
    "started",
    "connected",
    "lost",
    # of a fault, and of the rows in the end
    "injected",
    "healed",
    "final",
]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event.

    Attributes:
        t: seconds by the machine's monotonic clock, which all its processes share.
        proc: who saw it.
        op: the job's routing key, a connection's name, or a fault's.
        version: of an answer or commit; of a submitted job, the `min_version` it asks for.
        digest: of an answer; of a submitted job, that of the only right answer where one is known; of a dead letter, a
            refusal and an expiry, the reason.
        effect: of a submitted write, what it does; of the final rows, all of them.
    """

    t: float
    proc: str
    op: str
    phase: Phase
    job_id: str = ""
    version: int | None = None
    digest: str = ""
    effect: Effect | None = None


class History:
    """Appends to the file of a history, and reads what everybody appended; safe for many threads and processes."""

    def __init__(self, path: Path, proc: str) -> None:
        self.path = path
        self._proc = proc
        self._file = path.open("ab", buffering=0)  # each line is one write, and O_APPEND keeps lines whole
        self._reader = path.open("rb")
        self._read: list[Entry] = []

    def add(self, op: str, phase: Phase, **rest: object) -> None:
        entry = Entry(t=time.monotonic(), proc=self._proc, op=op, phase=phase, **rest)
        self._file.write(msgspec.json.encode(entry) + b"\n")

    def entries(self) -> list[Entry]:
        """All that was appended so far, in the order of the file; for one thread."""
        while True:
            at = self._reader.tell()
            line = self._reader.readline()
            if not line.endswith(b"\n"):  # the end, or a line that is being written
                self._reader.seek(at)
                return self._read
            self._read.append(msgspec.json.decode(line, type=Entry))

    def close(self) -> None:
        self._file.close()
        self._reader.close()


def read_history(path: Path) -> Iterator[Entry]:
    with path.open("rb") as lines:
        for line in lines:
            yield msgspec.json.decode(line, type=Entry)


def digest_of(value: object) -> str:
    """Digest a value of JSON's types, or mappings of numbers, in any order."""
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
