"""Job ids: UUIDv7, so that an id carries the time at which its job was made."""

import secrets
import time
import uuid


def new_job_id() -> str:
    """Make a job id.

    Source: RFC 9562, section 5.7; Python's own uuid7 comes with 3.14.
    """
    unix_ms = time.time_ns() // 1_000_000
    value = (unix_ms & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))
