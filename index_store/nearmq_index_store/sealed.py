"""Small objects as bytes: a line of JSON and a line with the BLAKE3 of the first, so that no flipped byte passes."""

from typing import Generic, TypeVar

import msgspec
from blake3 import blake3

from nearmq_index_store.blobs.protocol import MAX_CONDITIONAL_BYTES, BlobStore
from nearmq_index_store.blobs.signed import MAGIC
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


def unseal(data: bytes, where: str) -> bytes:
    """Return the JSON of what `seal` made.

    Raises:
        IndexCorrupt: cut or changed bytes.
    """
    if data.startswith(MAGIC):
        raise IndexCorrupt(f"{where} is signed, and this process has no key: name its file, --signing-key-file")
    payload, _, digest = data.partition(b"\n")
    if digest != b"%s\n" % blake3(payload).hexdigest().encode():
        raise IndexCorrupt(f"{where} does not match its digest ({len(data)} bytes)")
    return payload


class Reader(Generic[T]):
    """Reads one kind of Struct back.

    Made where the Struct is defined, before there are threads: msgspec learns the types of a Struct when it is first
    read, and a second thread that reads it meanwhile ends the process (0.22.0, SIGSEGV).
    """

    def __init__(self, kind: type[T]) -> None:
        self._decode = msgspec.json.Decoder(kind).decode

    def read(self, store: BlobStore, key: str, where: str) -> T:
        """Read a sealed object of at most MAX_BYTES; `where` names it in errors.

        Raises:
            BlobNotFound: no blob has this key.
            IndexCorrupt: cut or changed bytes, another format, or values out of bounds.
        """
        try:
            return self.decode(unseal(bytes(store.get(key, 0, MAX_BYTES + 1)), where), where)
        except IndexCorrupt:
            return self.decode(unseal(bytes(store.get(key, 0, MAX_BYTES + 1, refresh=True)), where), where)

    def decode(self, payload: bytes, where: str) -> T:
        """Read JSON whose bytes were verified already.

        Raises:
            IndexCorrupt: another format, or values out of bounds.
        """
        try:
            stored = _read_format(payload).format
            if stored != FORMAT:
                raise IndexCorrupt(f"{where} has format {stored}, this release reads format {FORMAT}")
            return self._decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise IndexCorrupt(f"{where} cannot be read: {error}") from error


class _Format(msgspec.Struct):
    format: int


_read_format = msgspec.json.Decoder(_Format).decode
