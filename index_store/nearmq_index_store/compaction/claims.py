"""Claims: of several workers that could take the same step, one does.

Nothing depends on it: two who compact the same segments waste work, and one of them is abandoned at its commit.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import BlobNotFound, StoreError
from nearmq_index_store.sealed import FORMAT, Reader, seal

#: How long a claim counts when nobody renews it, which its holder does four times as often: more than the clocks of
#: workers differ, and as long as the partition of a killed one lies idle, unless its job is delivered again before.
CLAIM_S = 120.0


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim says: whose it is, and when it ends, in seconds since 1970."""

    format: int = FORMAT
    owner: str
    ends_s: float


_CLAIMS = Reader(Claim)


def claim_key(collection_id: str, partition: str) -> str:
    """The key of the claim on a partition."""
    return f"{collection_id}/claims/{partition}"


@contextmanager
def claimed(
    store: BlobStore, collection_id: str, partition: str, *, owner: str, lasts_s: float = CLAIM_S
) -> Iterator[bool]:
    """Claim a partition for as long as the context; give False when somebody else has it.

    Args:
        owner: a job id; the same one takes over its own claim, since whoever had it is gone.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    key = claim_key(collection_id, partition)
    found = _read(store, key)
    if found is not None and (found.owner == owner or found.ends_s < time.time()):
        store.delete(key)
    is_ours = store.put_if_absent(key, _claim(owner, lasts_s))
    left = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(store, key, owner, lasts_s, left), name="nearmq-claim", daemon=True
    )
    if is_ours:
        renewing.start()
    try:
        yield is_ours
    finally:
        left.set()
        if is_ours:
            renewing.join()
            with suppress(StoreError):
                _delete_own(store, key, owner)


def _claim(owner: str, lasts_s: float) -> bytes:
    return seal(Claim(owner=owner, ends_s=time.time() + lasts_s))


def _renew(store: BlobStore, key: str, owner: str, lasts_s: float, left: threading.Event) -> None:
    while not left.wait(lasts_s / 4):
        with suppress(StoreError):
            found = _read(store, key)
            if found is None or found.owner != owner:
                return  # it had ended, and somebody else has it
            store.put(key, _claim(owner, lasts_s))


def _delete_own(store: BlobStore, key: str, owner: str) -> None:
    found = _read(store, key)
    if found is not None and found.owner == owner:
        store.delete(key)


def _read(store: BlobStore, key: str) -> Claim | None:
    try:
        return _CLAIMS.read(store, key, f"claim {key}")
    except BlobNotFound:
        return None
