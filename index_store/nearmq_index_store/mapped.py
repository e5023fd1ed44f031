"""Files seen as memory: their pages are read when they are used, and shared by all processes that map them."""

import mmap
import os
from pathlib import Path

import numpy as np


def map_file(file: Path | int) -> memoryview:
    """Map a file, or an open descriptor, which may be closed then; a lock that it holds lasts as long as the map."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return map_file(opened.fileno())
    if os.fstat(file).st_size == 0:  # which cannot be mapped
        return memoryview(b"")
    return memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))


def touch(data: memoryview) -> None:
    """Read a byte of each page, ahead of another thread that is about to read all; holds no interpreter meanwhile."""
    np.frombuffer(data, dtype=np.uint8)[:: mmap.PAGESIZE].max(initial=0)
