"""The replies of reads whose acknowledgement could not be sent: such a job comes again, and is not computed again.

When the consuming connection is lost, the broker delivers all that was unsettled there to somebody else, also the jobs
whose answers are being computed and leave by the other connection. Their replies are kept as they are confirmed: in
memory, and as notes in Redis where the store or its cache is there, so that whoever gets the job answers it with them.
Nothing is written for a job that is acknowledged, and nothing is looked up for one that is not redelivered, so the
ordinary way of a job pays nothing.

The note holds the reply itself: a job is answered again, never left out, whatever became of the first reply. Writes
need none, for the ledger has their results.
"""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Protocol

from nearmq.topology import QUEUE_TYPES
from nearmq.transport import Message
from nearmq_index_store.errors import StoreError
from nearmq_index_store.recent import Recent
from nearmq_worker.telemetry import REPLIES_NOT_NOTED

logger = logging.getLogger(__name__)

#: A longer reply is not kept: to send and keep it costs more than most searches.
_LONGEST_REPLY = 64 << 10
#: Bytes of replies in memory; in Redis there are at most so many of each lost connection.
_MOST_BYTES = 16 << 20
#: A job comes again as soon as the broker notices, within two heartbeats, and then waits for its turn.
_EXPIRY_S = 600


class Notes(Protocol):
    """Notes that workers share and that may be lost, as `RedisNotes`; raises StoreError when it cannot be reached."""

    def put(self, notes: dict[str, bytes], expiry_s: int) -> None:
        """Write notes by key."""
        ...

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read the notes of keys, None where there is none."""
        ...


class AnsweredJobs:
    """Replies by job. Safe for many threads; `note` does not wait."""

    def __init__(self, notes: Notes | None = None) -> None:
        self._notes = notes
        self._replies: Recent[str, bytes] = Recent(_MOST_BYTES, weigh=len)
        self._lock = threading.Lock()
        self._unwritten: dict[str, bytes] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="nearmq-notes")

    def note(self, job: Message, reply: bytes) -> None:
        """Keep the reply to a read that will be delivered again, now that the broker has confirmed it."""
        if job.type not in QUEUE_TYPES["search"] or len(reply) > _LONGEST_REPLY:
            return
        key = _key(job)
        self._replies.put(key, reply)
        if self._notes is None:
            return
        with self._lock:
            self._unwritten[key] = reply
            is_first = len(self._unwritten) == 1
        if is_first:
            self._writer.submit(self._write, self._notes)

    def replies(self, jobs: Sequence[Message]) -> list[bytes | None]:
        """Return the reply to each job that was answered before; None where nothing is known of it."""
        keys = [_key(job) for job in jobs]
        found = [self._replies.get(key) for key in keys]
        unknown = [place for place, reply in enumerate(found) if reply is None]
        if self._notes is not None and unknown:
            try:
                noted = self._notes.get([keys[place] for place in unknown])
            except StoreError as error:
                logger.warning(REPLIES_NOT_NOTED, extra={"reason": error.message})
                return found
            for place, reply in zip(unknown, noted, strict=True):
                found[place] = reply
        return found

    def close(self) -> None:
        """Write what is not written yet. May come twice."""
        self._writer.shutdown()

    def _write(self, notes: Notes) -> None:
        with self._lock:
            unwritten, self._unwritten = self._unwritten, {}
        try:
            notes.put(unwritten, _EXPIRY_S)
        except StoreError as error:
            logger.warning(REPLIES_NOT_NOTED, extra={"reason": error.message})


def _key(job: Message) -> str:
    """Return the same for the same job only: an id that was used for another job, too, tells nothing."""
    words = (job.type, job.routing_key, job.message_id, job.correlation_id or "")
    digest = blake2b("\0".join(words).encode(), digest_size=20)
    digest.update(job.body)
    return digest.hexdigest()
