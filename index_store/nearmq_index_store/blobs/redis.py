"""Blobs in Redis as the only store, and Redis as a cache of blocks.

Keys, `<word>` being the first word of a blob's key, so that what one transaction touches shares a slot of a cluster:

    nearmq:blob:{<word>}/<rest>           header, made last: token, size, chunk size; a small blob's bytes follow it
    nearmq:chunk:{<key>:<token>}:<n>      bytes of a larger blob
    nearmq:index:{<word>}                 sorted set of the keys that have a header, for `list`
    nearmq:cache:{<key>}:<n>              block of a cached blob
"""

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Self

from nearmq_index_store.blobs.chunks import byte_views, chunked
from nearmq_index_store.blobs.protocol import (
    Buffer,
    check_conditional_size,
    check_key,
    check_prefix,
    is_put_once,
)
from nearmq_index_store.blobs.redis_server import RedisServer
from nearmq_index_store.errors import BlobNotFound, InvalidArgument, StoreUnavailable
from nearmq_index_store.recent import Recent

#: One command moves at most this much, some 2 ms of the server's only thread (1 to 4 MB were measured the fastest).
CHUNK_BYTES = 4 << 20

#: Chunks of a put that was killed expire after this; a put that takes longer fails.
STAGING_S = 3_600

CONNECT_TIMEOUT_S = 3.0
#: For one reply, WAITAOF's included; with the retries a store that does not answer is given up within a minute.
REPLY_TIMEOUT_S = 10.0
RETRIES = 2

#: A cache that hangs holds up a read this long, once (`cached.py` then leaves it alone for a while).
CACHE_CONNECT_TIMEOUT_S = 1.0
CACHE_REPLY_TIMEOUT_S = 2.0
#: Blocks that nobody deletes, of blobs collected elsewhere, leave even a cache that does not evict.
CACHE_EXPIRY_S = 7 * 86_400

LIST_PAGE = 1_000

#: Larger blobs whose headers are remembered.
_CHUNKED_KEPT = 64


class RedisStore:
    """A BlobStore that keeps everything in one Redis server.

    A put writes chunks that expire, makes them stay, and then makes the header and its place in the index in one
    transaction: a reader sees all or nothing, a kill leaves only what expires, and the index never differs from the
    headers. Where the server has WAITAOF (7.2) a put returns when the append-only file is synced.
    """

    def __init__(self, url: str) -> None:
        """Connect, and see what the server promises.

        Raises:
            InvalidArgument: the URL is malformed, or the server is set to evict keys when its memory is full.
            StoreUnavailable: the server cannot be reached or refuses the login.
        """
        self._server = RedisServer(
            url, connect_timeout_s=CONNECT_TIMEOUT_S, reply_timeout_s=REPLY_TIMEOUT_S, retries=RETRIES
        )
        self.id = self._server.id
        policy = self._server.eviction_policy()
        if policy not in (None, "noeviction"):
            raise InvalidArgument(
                f"{self.id} evicts keys (maxmemory-policy {policy}) and so may be a cache but not the store, "
                "which needs noeviction",
                field="store",
            )
        self._has_waitaof = self._server.has_waitaof()
        # Of blobs that are read range by range, and never replaced.
        self._chunked: Recent[str, _Header] = Recent(_CHUNKED_KEPT)
        worries = [
            None if policy else f"{self.id} does not show whether it evicts blobs",
            None if self._has_waitaof else self._server.what_a_crash_loses(),
        ]
        self.durability = "; ".join(filter(None, worries)) or None

    def __repr__(self) -> str:
        return f"RedisStore({self.id!r})"

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:  # noqa: ARG002 - no cache
        """Read the header with a small blob's bytes in one round trip, then a larger blob chunk by chunk."""
        known = self._chunked.get(key)
        if known is not None:
            return self._read_chunks(key, known, start, known.size if end is None else min(end, known.size))
        last = -1 if end is None else _Header.SIZE + end - 1
        head, inline = self._server.transaction(
            ("GETRANGE", _header_key(key), 0, _Header.SIZE - 1),
            ("GETRANGE", _header_key(key), _Header.SIZE + start, last),
        )
        header = _Header.parse(head)
        if header is None:
            raise BlobNotFound(f"no blob {key!r} in {self.id}")
        if not header.chunk_bytes:
            data: bytes = inline
            return data
        if is_put_once(key):
            self._chunked.put(key, header)
        return self._read_chunks(key, header, start, header.size if end is None else min(end, header.size))

    def put(self, key: str, *parts: Buffer) -> None:
        """Write the chunks, then the header."""
        check_key(key)
        size = sum(len(view) for view in byte_views(parts))
        if size <= CHUNK_BYTES:
            header = _Header.new(size, chunk_bytes=0)
            replaced = self._commit(key, (header.pack(), *parts))
        else:
            header = _Header.new(size, chunk_bytes=CHUNK_BYTES)
            try:
                self._write_chunks(key, header, parts)
            except StoreUnavailable:
                with suppress(StoreUnavailable):
                    self._delete_chunks(key, header)  # a full server would else be full until they expire
                raise
            replaced = self._commit(key, (header.pack(),))
        if replaced is not None and replaced.token != header.token:
            self._delete_chunks(key, replaced)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write header and data as one value with SET NX."""
        check_key(key)
        check_conditional_size(key, data)
        header = _Header.new(len(data), chunk_bytes=0)
        present = self._commit(key, (header.pack(), data), "NX")
        # The token tells our own write, met by a repeated command whose first answer was lost, from another's.
        return present is None or present.token == header.token

    def exists(self, key: str) -> bool:
        """Look for the header."""
        return self.which_exist([key])[0]

    def which_exist(self, keys: Sequence[str]) -> list[bool]:
        """Look for the headers in one round trip."""
        return [bool(found) for found in self._server.pipeline(*(("EXISTS", _header_key(key)) for key in keys))]

    def delete(self, key: str) -> None:
        """Remove the chunks, then the header and its place in the index."""
        header = _Header.parse(self._server.command("GETRANGE", _header_key(key), 0, _Header.SIZE - 1))
        if header is None:
            return
        # The header goes last: a kill between the two leaves a key that can be deleted again, no chunks without a name.
        self._delete_chunks(key, header)
        self._server.transaction(("UNLINK", _header_key(key)), ("ZREM", _index_key(key), key))

    def list(self, prefix: str) -> Iterator[str]:
        """Read the index in order, a page at a time: a key that is there all the while is listed once."""
        check_prefix(prefix)
        after = f"[{prefix}"
        end = f"({prefix[:-1]}0"  # '0' is the character after '/'
        while True:
            page = self._server.command("ZRANGEBYLEX", _index_key(prefix), after, end, "LIMIT", 0, LIST_PAGE)
            yield from (key.decode() for key in page)
            if len(page) < LIST_PAGE:
                return
            after = f"({page[-1].decode()}"

    def free_buffers(self) -> None:
        """Close idle connections."""
        self._server.close_idle()

    def _commit(self, key: str, value: tuple[Buffer, ...], *conditions: str) -> "_Header | None":
        """Make the header and its place in the index visible at once, durably; return the header that was there."""
        transaction = self._server.synced_transaction if self._has_waitaof else self._server.transaction
        present, *_ = transaction(
            ("GETRANGE", _header_key(key), 0, _Header.SIZE - 1),
            ("SET", _header_key(key), b"".join(value), *conditions),
            ("ZADD", _index_key(key), 0, key),
        )
        return _Header.parse(present)

    def _write_chunks(self, key: str, header: "_Header", parts: tuple[Buffer, ...]) -> None:
        names = header.chunk_keys(key)
        for name, chunk in zip(names, chunked(parts, CHUNK_BYTES), strict=True):
            self._server.command("SET", name, chunk, "EX", STAGING_S)
        if not all(self._server.pipeline(*(("PERSIST", name) for name in names))):
            raise StoreUnavailable(f"{self.id} took longer than {STAGING_S} s to write {key!r}")

    def _read_chunks(self, key: str, header: "_Header", start: int, end: int) -> Buffer:
        if end <= start:
            return b""
        size = header.chunk_bytes
        chunks: list[Buffer] = []
        names = header.chunk_keys(key)
        for number in range(start // size, -(-end // size)):
            begin, stop = max(start - number * size, 0), min(end - number * size, size)
            # A whole chunk by GET: GETRANGE makes the server copy it once more.
            whole = stop - begin == min(size, header.size - number * size)
            command = ("GET", names[number]) if whole else ("GETRANGE", names[number], begin, stop - 1)
            chunk = self._server.bulk(stop - begin, *command) or b""
            if len(chunk) != stop - begin:
                return self._read_again(key, header, start, end, missing=number)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _read_again(self, key: str, header: "_Header", start: int, end: int, *, missing: int) -> Buffer:
        """Read a blob that was replaced while it was read; one that was not has lost a chunk."""
        self._chunked.forget(key)
        now = _Header.parse(self._server.command("GETRANGE", _header_key(key), 0, _Header.SIZE - 1))
        if now is None or now.token == header.token:
            raise BlobNotFound(f"chunk {missing} of blob {key!r} is not in {self.id}")
        return self.get(key, start, end)

    def _delete_chunks(self, key: str, header: "_Header") -> None:
        names = header.chunk_keys(key)
        if names:
            self._server.pipeline(*(("UNLINK", name) for name in names))


class RedisCache:
    """A cache of blocks for `CachedStore`: Redis may evict or lose any of them at any time."""

    def __init__(self, url: str) -> None:
        """Prepare a client; nothing is sent before the first block is asked for.

        Raises:
            InvalidArgument: the URL is malformed.
        """
        self._server = RedisServer(
            url, connect_timeout_s=CACHE_CONNECT_TIMEOUT_S, reply_timeout_s=CACHE_REPLY_TIMEOUT_S, retries=0
        )
        self.id = self._server.id

    def __repr__(self) -> str:
        return f"RedisCache({self.id!r})"

    def get(self, key: str, block: int) -> Buffer | None:
        """Read one block; None when the cache does not hold it."""
        data: bytes | None = self._server.command("GET", _block_key(key, block))
        return data

    def put(self, key: str, block: int, data: Buffer) -> None:
        """Write one block, at most CHUNK_BYTES."""
        self._server.command("SET", _block_key(key, block), data, "EX", CACHE_EXPIRY_S)

    def delete(self, key: str, block: int) -> bool:
        """Remove one block, and say whether it was there."""
        return bool(self._server.command("UNLINK", _block_key(key, block)))

    def free_buffers(self) -> None:
        """Close idle connections."""
        self._server.close_idle()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """What stands before a small blob's bytes, or alone when the bytes are in chunks.

    Attributes:
        token: 16 random bytes, one's own for each put.
        size: bytes of the blob.
        chunk_bytes: of every chunk but the last; 0 when the bytes follow the header.
    """

    token: bytes
    size: int
    chunk_bytes: int

    SIZE: ClassVar = 32
    _LAYOUT: ClassVar = struct.Struct("<4s16sQI")
    _MAGIC: ClassVar = b"nmq1"

    @classmethod
    def new(cls, size: int, *, chunk_bytes: int) -> Self:
        return cls(token=os.urandom(16), size=size, chunk_bytes=chunk_bytes)

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Read a header; None when there is none, as GETRANGE answers for a missing key."""
        if not data:
            return None
        magic, token, size, chunk_bytes = cls._LAYOUT.unpack(data)
        if magic != cls._MAGIC:
            raise StoreUnavailable(f"blob header of format {magic!r}, this release reads {cls._MAGIC!r}")
        return cls(token=token, size=size, chunk_bytes=chunk_bytes)

    def pack(self) -> bytes:
        return self._LAYOUT.pack(self._MAGIC, self.token, self.size, self.chunk_bytes)

    def chunk_keys(self, key: str) -> list[str]:
        if not self.chunk_bytes:
            return []
        tag = f"{key}:{self.token.hex()}"
        return [f"nearmq:chunk:{{{tag}}}:{number}" for number in range(-(-self.size // self.chunk_bytes))]


def _header_key(key: str) -> str:
    word, _, rest = key.partition("/")
    return f"nearmq:blob:{{{word}}}/{rest}"


def _index_key(key: str) -> str:
    return f"nearmq:index:{{{key.partition('/')[0]}}}"


def _block_key(key: str, block: int) -> str:
    return f"nearmq:cache:{{{key}}}:{block}"
