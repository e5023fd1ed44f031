"""Small objects as bytes: a line of JSON and a line with the BLAKE3 of the first, so that no flipped byte passes."""

from typing import TypeVar

import msgspec
from blake3 import blake3

from nearmq_index_store.blobs.protocol import MAX_CONDITIONAL_BYTES, BlobStore
from nearmq_index_store.errors import IndexCorrupt

#: The number of the store's format that this release writes, and the only one it reads.
FORMAT = 1

#: No sealed object is longer, since all are made by put-if-absent; of a longer blob no more is read.
MAX_BYTES = MAX_CONDITIONAL_BYTES

T = TypeVar("T")


def seal(value: msgspec.Struct) -> bytes:
    """Return the bytes to store for a Struct that has a `format`."""
    payload = msgspec.json.encode(value)
    return b"%s\n%s\n" % (payload, blake3(payload).hexdigest().encode())


def unseal(data: bytes, kind: type[T], where: str) -> T:
    """Read what `seal` made; `where` names it in errors.

    Raises:
        IndexCorrupt: cut or changed bytes, another format, or values out of bounds.
    """
    payload, _, digest = data.partition(b"\n")
    if digest != b"%s\n" % blake3(payload).hexdigest().encode():
        raise IndexCorrupt(f"{where} does not match its digest ({len(data)} bytes)")
    return decode(payload, kind, where)


def read_sealed(store: BlobStore, key: str, kind: type[T], where: str) -> T:
    """Read a sealed object of at most MAX_BYTES.

    Raises:
        BlobNotFound: no blob has this key.
        IndexCorrupt: as for `unseal`.
    """
    data = bytes(store.get(key, 0, MAX_BYTES + 1))
    try:
        return unseal(data, kind, where)
    except IndexCorrupt:
        return unseal(bytes(store.get(key, 0, MAX_BYTES + 1, refresh=True)), kind, where)


def decode(payload: bytes, kind: type[T], where: str) -> T:
    """Read JSON whose bytes were verified already.

    Raises:
        IndexCorrupt: another format, or values out of bounds.
    """
    try:
        stored = msgspec.json.decode(payload, type=_Format).format
        if stored != FORMAT:
            raise IndexCorrupt(f"{where} has format {stored}, this release reads format {FORMAT}")
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise IndexCorrupt(f"{where} cannot be read: {error}") from error


class _Format(msgspec.Struct):
    format: int
