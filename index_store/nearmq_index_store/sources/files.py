"""A file that rows are read from: where it lies, what messages call it, and how a changed one is told."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that stays as it is while it is read.

    Attributes:
        path: where it is read from.
        shown: what messages call it; another than `path` for a copy of what came by a pipe or out of memory.
        identity: differs when the content does, such as `1024 bytes, modified 1790000000.000000000`.
    """

    path: Path
    shown: Path
    identity: str

    @classmethod
    def at(cls, path: Path) -> Self:
        """A file told from a changed one by its size and the time when it was modified, so that none is read for it."""
        status = path.stat()
        seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
        return cls(path=path, shown=path, identity=f"{status.st_size} bytes, modified {seconds}.{nanoseconds:09d}")

    @classmethod
    def copied(cls, path: Path, shown: str) -> Self:
        """A copy, whose own time says nothing: told from another by its content."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
        return cls(path=path, shown=Path(shown), identity=f"{path.stat().st_size} bytes, digest {digest}")
