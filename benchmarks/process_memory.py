"""What a process has in memory, by Linux's own count."""

import re
from pathlib import Path


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory of a process that no file backs."""
    return _status(str(pid), "RssAnon")


def peak_bytes() -> int:
    """Return the most that this program ever had resident; getrusage would count what its parent had before."""
    return _status("self", "VmHWM")


def _status(pid: str, field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None, "only Linux counts this"
    return int(found[1]) * 1_024
