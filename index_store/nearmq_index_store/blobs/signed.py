"""Signatures on what a store says of itself: who can write the store but has no key cannot make up a version.

Blobs are named by their digest, and what names them is small: manifests, names, floors, the states of imports. Of these
an object as stored is a line with its HMAC-SHA256, then its bytes. The HMAC is over the key that it stands under, too,
so that a signed object is worth nothing in another place. What is signed names all blobs by digest, so it vouches for
every byte that is searched.
"""

import hmac
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nearmq_index_store.blobs.chunks import byte_views
from nearmq_index_store.blobs.protocol import (
    MAX_CONDITIONAL_BYTES,
    BlobStore,
    Buffer,
    check_conditional_size,
    is_put_once,
)
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument

#: What a signed object begins with; then the HMAC in hex, and a line feed.
MAGIC = b"nearmq-signed-1 "
_HEX_BYTES = 64
SIGNATURE_BYTES = len(MAGIC) + _HEX_BYTES + 1

_KEY_BYTES = 32


def read_signing_keys(path: Path) -> tuple[bytes, ...]:
    """Read a file of keys, one a line, each 64 hexadecimal digits (`openssl rand -hex 32`).

    Raises:
        InvalidArgument: it cannot be read, or a line is no key; no message holds a piece of one.
    """
    try:
        lines = path.read_text("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise _refused(f"{path} cannot be read: {error}") from None
    if not lines:
        raise _refused(f"{path} holds no key, expected one of {_HEX_BYTES} hexadecimal digits a line")
    try:
        keys = tuple(bytes.fromhex(line) for line in lines)
    except ValueError:
        keys = ()
    if any(len(key) != _KEY_BYTES for key in keys) or not keys:
        raise _refused(f"{path} holds what is no key, expected {_HEX_BYTES} hexadecimal digits a line") from None
    return keys


class SignedStore:
    """A BlobStore over another one, that signs what is put and refuses what is not signed; blobs pass as they are.

    Args:
        keys: the first signs, all are accepted, so that keys can be changed while workers run.
        accept_unsigned: read what has no signature at all, for whoever is about to sign it.
    """

    def __init__(self, origin: BlobStore, keys: Sequence[bytes], *, accept_unsigned: bool = False) -> None:
        self._origin = origin
        self._keys = tuple(keys)
        self._accept_unsigned = accept_unsigned

    @property
    def id(self) -> str:
        """The origin's."""
        return self._origin.id

    @property
    def durability(self) -> str | None:
        """The origin's."""
        return self._origin.durability

    def __repr__(self) -> str:
        return f"SignedStore({self._origin!r})"

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:
        """Read a blob as it is; of anything else all, verify its signature, and cut the range out.

        Raises:
            IndexCorrupt: it is not signed, or by another key, in another place, or is longer than any that is put.
        """
        if is_put_once(key):
            return self._origin.get(key, start, end, refresh=refresh)
        stored = bytes(self._origin.get(key, 0, MAX_CONDITIONAL_BYTES + 1, refresh=refresh))
        data = stored[SIGNATURE_BYTES:]
        if not stored.startswith(MAGIC):
            if not self._accept_unsigned:
                raise IndexCorrupt(f"{key!r} is not signed: `nearmq store sign` is for a store that is trusted")
            data = stored
        elif self.signer(key, stored) is None:
            raise IndexCorrupt(f"{key!r} is not signed by a key of this process, or was signed for another place")
        return memoryview(data)[start:end]

    def signer(self, key: str, stored: bytes) -> int | None:
        """Return which of the keys has signed an object as stored, counted from 0; None when none has."""
        given, data = stored[:SIGNATURE_BYTES], stored[SIGNATURE_BYTES:]
        for number, secret in enumerate(self._keys):
            if hmac.compare_digest(given, _signature(secret, key, data)):
                return number
        return None

    def put(self, key: str, *parts: Buffer) -> None:
        """Write a blob as it is, anything else signed and of at most the size that put_if_absent takes."""
        if is_put_once(key):
            self._origin.put(key, *parts)
        else:
            self._origin.put(key, self._signed(key, b"".join(byte_views(parts))))

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write it signed when the key is absent."""
        return self._origin.put_if_absent(key, data if is_put_once(key) else self._signed(key, bytes(data)))

    def exists(self, key: str) -> bool:
        """Ask the origin."""
        return self._origin.exists(key)

    def which_exist(self, keys: Sequence[str]) -> Iterable[bool]:
        """Ask the origin."""
        return self._origin.which_exist(keys)

    def delete(self, key: str) -> None:
        """Remove from the origin."""
        self._origin.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Ask the origin."""
        return self._origin.list(prefix)

    def free_buffers(self) -> None:
        """Free the origin's."""
        self._origin.free_buffers()

    def _signed(self, key: str, data: bytes) -> bytes:
        signed = _signature(self._keys[0], key, data) + data
        check_conditional_size(key, signed)
        return signed


def _signature(secret: bytes, key: str, data: bytes) -> bytes:
    # No key of a blob holds a zero byte, so it ends the key.
    return b"%s%s\n" % (MAGIC, hmac.digest(secret, b"%s\0%s" % (key.encode(), data), "sha256").hex().encode())


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(f"signing key file: {message}", field="signing_key_file")
