"""A cache before a store: it answers reads of put-once blobs where it can, the store everything else."""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, Protocol, TypeVar

from blake3 import blake3

from nearmq_index_store.blobs.chunks import chunked
from nearmq_index_store.blobs.protocol import BlobStore, Buffer, is_put_once
from nearmq_index_store.errors import StoreUnavailable

#: What the cache holds of a blob at a time: some pages of its digest (`digest.py`), one command of a Redis.
BLOCK_BYTES = 4 << 20

#: How long a cache that failed is left alone; then one call tries it again.
PAUSE_S = 5.0

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


class BlockCache(Protocol):
    """What a cache has to do; ours to change. It may forget anything at any time, and raise StoreUnavailable."""

    @property
    def id(self) -> str:
        """Which cache this is, without credentials, for the log."""
        ...

    def get(self, key: str, block: int) -> Buffer | None:
        """Read a block, whole as it was put; None when it is not there."""
        ...

    def put(self, key: str, block: int, data: Buffer) -> None:
        """Write a block of at most BLOCK_BYTES."""
        ...

    def delete(self, key: str, block: int) -> bool:
        """Remove a block, and say whether it was there."""
        ...

    def free_buffers(self) -> None:
        """As of a BlobStore."""
        ...


class CachedStore:
    """A BlobStore whose truth is the origin; the cache may fail, be flushed or evict at any time and no read fails.

    Blobs are cached in blocks of BLOCK_BYTES, by the origin's id, the key and the block's number; a shorter block is
    the last. A read that misses one block is answered by the origin as a whole (and so is one to the end of a blob of
    whole blocks, which no cached block tells; `digest.py` always says how far).
    """

    def __init__(self, origin: BlobStore, cache: BlockCache, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._origin = origin
        self._cache = cache
        self._prefix = blake3(origin.id.encode()).hexdigest()[:16]
        self._clock = clock
        self._lock = threading.Lock()
        self._failing = False
        self._paused_until = 0.0

    @property
    def id(self) -> str:
        """The origin's."""
        return self._origin.id

    @property
    def durability(self) -> str | None:
        """The origin's."""
        return self._origin.durability

    def __repr__(self) -> str:
        return f"CachedStore({self._origin!r}, {self._cache!r})"

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:
        """Read whole blocks from the cache, or from the origin and then into the cache, and cut the range out."""
        if not is_put_once(key) or (end is not None and end <= start):
            return self._origin.get(key, start, end)
        first = start // BLOCK_BYTES
        last = None if end is None else (end - 1) // BLOCK_BYTES
        blocks = None if refresh else self._read_cache(key, first, last)
        if blocks is None:
            blocks = self._read_origin(key, first, last)
        base = first * BLOCK_BYTES
        return memoryview(blocks)[start - base : None if end is None else end - base]

    def put(self, key: str, *parts: Buffer) -> None:
        """Write to the origin, then to the cache."""
        self._origin.put(key, *parts)
        if is_put_once(key):
            self._fill(key, 0, parts)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write to the origin only, so that a loser leaves no trace."""
        return self._origin.put_if_absent(key, data)

    def exists(self, key: str) -> bool:
        """Ask the origin."""
        return self._origin.exists(key)

    def which_exist(self, keys: Sequence[str]) -> Iterable[bool]:
        """Ask the origin."""
        return self._origin.which_exist(keys)

    def delete(self, key: str) -> None:
        """Remove from the origin, then from the cache; another process that reads just then may cache it again."""
        self._origin.delete(key)
        if is_put_once(key):
            # The origin knows the blob no more, so nobody can say how many blocks there are: until the first gap.
            for block in itertools.count():
                if not self._ask(self._cache.delete, self._cache_key(key), block):
                    break

    def list(self, prefix: str) -> Iterator[str]:
        """Ask the origin."""
        return self._origin.list(prefix)

    def free_buffers(self) -> None:
        """Free the origin's and the cache's."""
        self._origin.free_buffers()
        self._cache.free_buffers()

    def _read_cache(self, key: str, first: int, last: int | None) -> Buffer | None:
        """Read the blocks first..last (included; None is to the blob's last), or None when one is missing."""
        blocks: list[Buffer] = []
        for number in itertools.count(first):
            block = self._ask(self._cache.get, self._cache_key(key), number)
            if block is None:
                return None
            blocks.append(block)
            if number == last or len(block) < BLOCK_BYTES:
                break
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    def _read_origin(self, key: str, first: int, last: int | None) -> Buffer:
        """Read the same from the origin, and put it into the cache."""
        data = self._origin.get(key, first * BLOCK_BYTES, None if last is None else (last + 1) * BLOCK_BYTES)
        self._fill(key, first, (data,))
        return data

    def _fill(self, key: str, first: int, parts: tuple[Buffer, ...]) -> None:
        for number, block in enumerate(chunked(parts, BLOCK_BYTES), first):
            self._ask(self._cache.put, self._cache_key(key), number, block)

    def _cache_key(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    def _ask(
        self, operation: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer | None:
        """Call the cache unless it is left alone; None, as for a miss, when it failed or was not asked."""
        if not self._may_ask():
            return None
        try:
            answer = operation(*args, **kwargs)
        except StoreUnavailable as error:
            self._pause(error)
            return None
        self._failing = False
        return answer

    def _may_ask(self) -> bool:
        if not self._failing:
            return True
        with self._lock:
            now = self._clock()
            if now < self._paused_until:
                return False
            self._paused_until = now + PAUSE_S  # this caller tries, the others go on without
            return True

    def _pause(self, error: StoreUnavailable) -> None:
        with self._lock:
            if not self._failing:
                logger.warning(
                    "cache left alone", extra={"cache": self._cache.id, "pause_s": PAUSE_S, "error": str(error)}
                )
            self._failing = True
            self._paused_until = self._clock() + PAUSE_S
