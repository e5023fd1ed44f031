"""Small notes in Redis that may be lost at any time: what saves work when it is there, and costs nothing when not.

nearmq:note:<key>                     the bytes of a note, which expires
"""

from collections.abc import Mapping, Sequence

from nearmq_index_store.blobs.redis import CACHE_CONNECT_TIMEOUT_S, CACHE_REPLY_TIMEOUT_S
from nearmq_index_store.blobs.redis_server import RedisServer


class RedisNotes:
    """Notes by key, on a server that may evict them. Safe for many threads.

    Every method raises StoreUnavailable when the server cannot be reached in time, or refuses.
    """

    def __init__(self, url: str) -> None:
        """Prepare a client; nothing is sent before the first note.

        Raises:
            InvalidArgument: the URL is malformed.
        """
        self._server = RedisServer(
            url, connect_timeout_s=CACHE_CONNECT_TIMEOUT_S, reply_timeout_s=CACHE_REPLY_TIMEOUT_S, retries=0
        )

    def put(self, notes: Mapping[str, bytes], expiry_s: int) -> None:
        """Write notes, sent together."""
        self._server.pipeline(*(("SET", _key(key), note, "EX", expiry_s) for key, note in notes.items()))

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """Read the notes of some keys, None for each that is not there, in one turn."""
        return self._server.pipeline(*(("GET", _key(key)) for key in keys))


def _key(key: str) -> str:
    return f"nearmq:note:{key}"
