"""Memory that is free but still this process's own, given back to the system."""

import ctypes

#: glibc's; other C libraries have none, and give back by themselves.
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def trim_heap() -> None:
    """Give back what the allocator keeps for later; it keeps whatever was once allocated in pieces of up to 32 MiB."""
    if _malloc_trim is not None:
        _malloc_trim(0)
