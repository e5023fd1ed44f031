"""Signing a store that was not signed, or was by a key that is to go: the same objects, with another signature."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nearmq_index_store.blobs.protocol import BlobStore, is_put_once
from nearmq_index_store.blobs.signed import MAGIC, SignedStore
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import BlobNotFound
from nearmq_index_store.names import PREFIX
from nearmq_index_store.sealed import unseal


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """How many objects were found with the first key's signature, with another key's, and with none."""

    first: int
    other: int
    unsigned: int


def sign_all(
    store: BlobStore,
    keys: Sequence[bytes],
    *,
    trust_unsigned: bool,
    dry_run: bool = False,
    on_object: Callable[[int], None] = lambda _: None,
) -> Signed:
    """Put the first key's signature on all that has none or another key's; blobs need none.

    May be killed and run again, and beside readers and writers that accept all keys.

    Args:
        store: the store itself, not signed.
        keys: the first is to sign, the others are accepted.
        trust_unsigned: sign what has no signature too, which is only compared with its digest.
        on_object: told how many objects are done.

    Raises:
        IndexCorrupt: something has no signature, that of a key that is not given, or fails its digest.
    """
    signed = SignedStore(store, keys, accept_unsigned=trust_unsigned)
    counts = {"first": 0, "other": 0, "unsigned": 0}
    for number, key in enumerate(_keys(store, Catalog(signed)), 1):
        try:
            stored, data = bytes(store.get(key)), bytes(signed.get(key))
        except BlobNotFound:  # a claim or a hold that ended, a version that was collected
            continue
        unseal(data, key)
        kind = _kind(signed, key, stored)
        counts[kind] += 1
        if kind != "first" and not dry_run:
            signed.put(key, data)
        on_object(number)
    return Signed(**counts)


def _kind(signed: SignedStore, key: str, stored: bytes) -> str:
    if not stored.startswith(MAGIC):
        return "unsigned"
    return "first" if signed.signer(key, stored) == 0 else "other"


def _keys(store: BlobStore, catalog: Catalog) -> Iterator[str]:
    """Everything that is not a blob: the names' chains, and what lies beside the blobs of each collection."""
    yield from list(store.list(PREFIX))
    for collection_id in sorted(catalog.every_id()):
        yield from [key for key in store.list(f"{collection_id}/") if not is_put_once(key)]
