"""Job ids: UUIDv7, so that an id carries the time at which its job was made."""

import os
import secrets
import time
from collections import deque

#: A system call for each id would take half of its time, and the interpreter's lock each time.
_DRAWN_AT_ONCE = 256
_RANDOM_BYTES = 10

_drawn: deque[bytes] = deque()
if hasattr(os, "register_at_fork"):  # else a forked process would make the ids of its parent
    os.register_at_fork(after_in_child=_drawn.clear)


def new_job_id() -> str:
    """Make a job id; safe for many threads.

    Source: RFC 9562, section 5.7; Python's own uuid7 comes with 3.14.
    """
    unix_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(_random())
    low = 0b10 << 62 | random & (1 << 62) - 1
    return f"{unix_ms >> 16:08x}-{unix_ms & 0xFFFF:04x}-7{random >> 68:03x}-{low >> 48:04x}-{low & (1 << 48) - 1:012x}"


def _random() -> bytes:
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            drawn = secrets.token_bytes(_RANDOM_BYTES * _DRAWN_AT_ONCE)
            _drawn.extend(drawn[start : start + _RANDOM_BYTES] for start in range(0, len(drawn), _RANDOM_BYTES))
