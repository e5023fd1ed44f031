"""Blobs that verify themselves, whole or a range alone.

A blob as stored is its payload, then its page table: the 32-byte BLAKE3 digest of each page of 1 MiB, the last one
shorter. The blob's digest is the BLAKE3 of that table. So a range needs the table, checked by the digest, and its own
pages, checked by the table; pages can be read and checked in any order by any number of threads.
"""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import BinaryIO

from blake3 import blake3
from ulid import ULID

from nearmq_index_store.blobs.chunks import chunked
from nearmq_index_store.blobs.protocol import BlobStore, Buffer
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt
from nearmq_index_store.manifest import BlobRef

PAGE_BYTES = 1 << 20
DIGEST_BYTES = 32

#: What copy_blob reads at a time: the chunk of a Redis and the block of a cache, so that none is read twice or joined.
RANGE_BYTES = 4 << 20


def put_blob(store: BlobStore, collection_id: str, *parts: Buffer, not_before: str = "") -> BlobRef:
    """Write the parts, joined, under a key of their own: `<collection>/<ULID>-<digest>`.

    Durable when it returns, as far as the store promises it. The parts must not change meanwhile.

    Args:
        not_before: the least ULID; a commit gives its base's horizon, since garbage collection removes what is staged
            before it, and clocks need not agree.
    """
    table = b"".join(blake3(page).digest() for page in chunked(parts, PAGE_BYTES))
    digest = blake3(table).hexdigest()
    key = f"{collection_id}/{_ulid(not_before)}-{digest}"
    store.put(key, *parts, table)
    return BlobRef(key=key, bytes=sum(memoryview(part).nbytes for part in parts), digest=digest)


def read_blob(store: BlobStore, ref: BlobRef) -> bytes:
    """Read a whole blob, verified.

    Raises:
        IndexCorrupt: the blob is missing (then BlobNotFound is the cause), or is not what was put.
        StoreUnavailable: the store cannot be reached.
    """
    stored_bytes = ref.bytes + _table_bytes(ref)
    for refresh in (False, True):
        stored = _get(store, ref, 0, stored_bytes, refresh=refresh)
        payload, table = stored[: ref.bytes], stored[ref.bytes :]
        if _is_table(ref, table) and _are_pages(payload, table, ref.bytes):
            return bytes(payload)
    raise IndexCorrupt(f"blob {ref.key!r} fails its digest")


class VerifiedBlob:
    """A blob opened for verified reads of ranges; any thread may read."""

    def __init__(self, store: BlobStore, ref: BlobRef) -> None:
        """Read the page table and verify it.

        Raises:
            IndexCorrupt: the blob is missing (then BlobNotFound is the cause), or its table is not what was put.
            StoreUnavailable: the store cannot be reached.
        """
        self._store = store
        self._ref = ref
        for refresh in (False, True):
            self._table = _get(store, ref, ref.bytes, ref.bytes + _table_bytes(ref), refresh=refresh)
            if _is_table(ref, self._table):
                return
        raise IndexCorrupt(f"the page table of blob {ref.key!r} fails its digest")

    def read(self, start: int, end: int) -> memoryview:
        """Read the payload's bytes start..end (end not included; beyond the last is cut).

        Reads and checks the whole pages that hold them.

        Raises:
            IndexCorrupt: the blob is missing, or a page is not what was put.
            StoreUnavailable: the store cannot be reached.
        """
        end = min(end, self._ref.bytes)
        if end <= start:
            return memoryview(b"")
        first, last = start // PAGE_BYTES, -(-end // PAGE_BYTES)
        base, stop = first * PAGE_BYTES, min(last * PAGE_BYTES, self._ref.bytes)
        table = self._table[first * DIGEST_BYTES : last * DIGEST_BYTES]
        for refresh in (False, True):
            pages = _get(self._store, self._ref, base, stop, refresh=refresh)
            if _are_pages(pages, table, stop - base):
                return pages[start - base : end - base]
        raise IndexCorrupt(f"bytes {base} to {stop} of blob {self._ref.key!r} fail their digests")

    def holds(self, start: int, data: Buffer) -> bool:
        """Say whether these are the payload's bytes from `start` on, to the end of a page."""
        first = start // PAGE_BYTES
        table = self._table[first * DIGEST_BYTES : (first + -(-len(data) // PAGE_BYTES)) * DIGEST_BYTES]
        return _are_pages(memoryview(data), table, len(data))


def copy_blob(store: BlobStore, ref: BlobRef, file: BinaryIO, *, threads: int = 4) -> None:
    """Write a blob's payload to a file, from its current position, every byte verified before it is written.

    Holds at most `threads` ranges of RANGE_BYTES in memory. After an error the file holds a verified beginning.

    Raises:
        IndexCorrupt: the blob is missing, or a page is not what was put.
        StoreUnavailable: the store cannot be reached.
    """
    blob = VerifiedBlob(store, ref)
    with ThreadPoolExecutor(threads, thread_name_prefix="nearmq-copy") as executor:
        reads: deque[Future[memoryview]] = deque()
        try:
            for start in range(0, ref.bytes, RANGE_BYTES):
                if len(reads) == threads:
                    file.write(reads.popleft().result())
                reads.append(executor.submit(blob.read, start, start + RANGE_BYTES))
            while reads:
                file.write(reads.popleft().result())
        finally:
            executor.shutdown(wait=False, cancel_futures=True)


def fill_file(store: BlobStore, ref: BlobRef, file: int, executor: Executor, *, resumed: bool = False) -> None:
    """Bring the blob's payload into an open file of its size, every byte verified before it is written.

    Args:
        file: a descriptor, for reading and writing. After an error it holds some of the payload's ranges.
        executor: whose threads fetch the ranges, each one of RANGE_BYTES at a time.
        resumed: the file may hold some ranges already, which are verified, and fetched only when they fail.

    Raises:
        IndexCorrupt: the blob is missing, or a page is not what was put.
        StoreUnavailable: the store cannot be reached.
        CancelledError, RuntimeError: the executor was shut down.
    """
    blob = VerifiedBlob(store, ref)

    def fill(start: int) -> None:
        if not (resumed and blob.holds(start, os.pread(file, RANGE_BYTES, start))):
            os.pwrite(file, blob.read(start, start + RANGE_BYTES), start)

    ranges: list[Future[None]] = []
    try:
        ranges.extend(executor.submit(fill, start) for start in range(0, ref.bytes, RANGE_BYTES))
        for done in ranges:
            done.result()
    finally:  # the file is the caller's to close
        # Of those cancelled nobody would tell `wait` once the executor is shut down.
        wait([left for left in ranges if not left.cancel()])


def _ulid(not_before: str) -> str:
    """A ULID of one's own, so that no two puts share a key, also where the clock is behind."""
    own = str(ULID())
    if own >= not_before:
        return own
    return str(ULID.from_timestamp(ULID.from_str(not_before).milliseconds + 1))


def _get(store: BlobStore, ref: BlobRef, start: int, end: int, *, refresh: bool) -> memoryview:
    """Read a range; `refresh` is the second try, since what failed its digest may have come from a cache."""
    try:
        return memoryview(store.get(ref.key, start, end, refresh=refresh))
    except BlobNotFound as error:
        raise IndexCorrupt(f"blob {ref.key!r} is missing") from error


def _table_bytes(ref: BlobRef) -> int:
    return -(-ref.bytes // PAGE_BYTES) * DIGEST_BYTES


def _is_table(ref: BlobRef, table: memoryview) -> bool:
    return len(table) == _table_bytes(ref) and blake3(table).hexdigest() == ref.digest


def _are_pages(data: memoryview, table: memoryview, expected_bytes: int) -> bool:
    if len(data) != expected_bytes:
        return False
    digests: Sequence[bytes] = [blake3(page).digest() for page in chunked((data,), PAGE_BYTES)]
    return b"".join(digests) == table
