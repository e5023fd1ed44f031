"""Holds: who stages blobs for hours asks garbage collection to leave them alone until they are committed.

No version is wrong without one: a commit never names what may have been collected. But what was collected cannot be
committed either, and an import would have to start over.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec
from ulid import ULID

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import BlobNotFound, StoreError
from nearmq_index_store.sealed import FORMAT, Reader, seal

#: How long a hold counts after it was renewed: longer than any segment takes to build. So long, too, a killed import
#: keeps all garbage that was made after it began.
HOLD_S = 6 * 3_600.0


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What a hold says: when it ends if it is not renewed, in seconds since 1970."""

    format: int = FORMAT
    ends_s: float


_HOLDS = Reader(Hold)


def holds_prefix(collection_id: str) -> str:
    """The folder of a collection's holds; their names are ULIDs, which say from when on staged blobs are held."""
    return f"{collection_id}/hold/"


@contextmanager
def hold(
    store: BlobStore, collection_id: str, *, since: str | None = None, clock: Callable[[], float] = time.time
) -> Iterator[Callable[[], None]]:
    """Give a function that holds what is staged in a collection, and renews the hold when called again.

    It raises StoreUnavailable.

    Args:
        since: a ULID from which on staged blobs are held; then the hold outlasts an error, for whoever goes on, until
            it is released. None is from now on.
    """
    begin = since or str(ULID())
    key = _key(collection_id, begin)

    def renew() -> None:
        store.put(key, seal(Hold(ends_s=clock() + HOLD_S)))

    is_done = False
    try:
        yield renew
        is_done = True
    finally:
        if is_done or since is None:
            release(store, collection_id, begin)


def release(store: BlobStore, collection_id: str, since: str) -> None:
    """End a hold, as far as the store can be reached; else it ends by itself."""
    with suppress(StoreError):
        store.delete(_key(collection_id, since))


def begin_of_holds(store: BlobStore, keys: Iterable[str], now_s: float) -> tuple[str, list[str]]:
    """Return the lowest ULID that is held by some holds, `Z`s when none is, and the keys of those that have ended."""
    begin, ended = "Z" * 26, []
    for key in keys:
        try:
            ends_s = _HOLDS.read(store, key, f"hold {key}").ends_s
        except BlobNotFound:
            continue
        if ends_s < now_s:
            ended.append(key)
        else:
            begin = min(begin, key.rpartition("/")[2][:10] + "0" * 16)  # of blobs of the same millisecond too
    return begin, ended


def _key(collection_id: str, since: str) -> str:
    return f"{holds_prefix(collection_id)}{since}"
