"""Verified copies of blobs in a folder that all workers of one user on a host share, within a bound of bytes.

A blob's copy is one file from its first byte to its removal, named by the blob's digest; what has not the whole payload
is told by its modification time. When every page was verified it is set to the mark of this start of the machine, which
any later write changes; so a file with the mark is trusted as it is, and one without (a killed worker's, or from before
the machine's last start, when what was written may have been lost) is verified page by page, and what fails is fetched.
Beyond that it is as good as the disk: the pages of any mapped file are read again, unverified, when memory was short.

A lock (flock) says what goes on with a file. Exclusive: it is being filled; others wait, and take it over when whoever
filled it is killed. Shared: somebody has it mapped, for a lock lasts as long as the map. None: it may be removed, the
least recently used first, to make room. A file for which no room can be made has no name, and goes with its map.
"""

import fcntl
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from nearmq.errors import InvalidArgument, ResourceExhausted
from nearmq_index_store.blobs import BlobStore
from nearmq_index_store.digest import fill_file
from nearmq_index_store.manifest import BlobRef
from nearmq_index_store.mapped import map_file

#: The names of blobs' files; and of one that is locked while room is made.
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_LOCK = "lock"

#: Ranges that are fetched at once, for all files together. Two keep a Redis busy (132 MB in 102 ms; three in 97), and
#: the allocator keeps two ranges' worth of memory, 8 MB, for each thread that ever read one: malloc_trim leaves it.
_FETCH_THREADS = 2

#: How long another worker may take to fill a file before this one fetches a copy of its own.
_PATIENCE_S = 60.0
_POLL_S = 0.01


class SpoolFiles:
    """The files of one folder. Safe for many threads, and for many processes."""

    def __init__(self, store: BlobStore, folder: Path, limit_bytes: int) -> None:
        """Make the folder where it is missing.

        Raises:
            InvalidArgument: others may write there, who could change what was verified.
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise InvalidArgument(
                f"spool {folder} belongs to user {status.st_uid} with mode {stat.S_IMODE(status.st_mode):o}, expected "
                f"a folder that only user {os.geteuid()} may write",
                field="spool",
            )
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._mark_ns = _mark_ns()
        self._fetching = ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="nearmq-fetch")

    def close(self) -> None:
        """Fetch no more; what is mapped stays. May come twice."""
        self._fetching.shutdown(wait=False, cancel_futures=True)

    def map(self, ref: BlobRef) -> memoryview:
        """Return a blob's payload, verified, as a map of its file.

        Raises:
            IndexCorrupt: the blob is missing, or fails its digest.
            StoreUnavailable: the store did not answer.
            ResourceExhausted: the disk is full.
        """
        file = self._open(ref)
        try:
            return map_file(file)
        finally:
            os.close(file)

    def find(self, ref: BlobRef) -> memoryview | None:
        """Return what `map` does where that is here already, whole; None where it is to be fetched or waited for."""
        try:
            file = os.open(self._folder / ref.digest, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return map_file(file) if self._is_whole(file, ref) and self._take(file, ref) else None
        finally:
            os.close(file)

    def _open(self, ref: BlobRef) -> int:
        """Return a descriptor of the blob's file, whole, under a shared lock."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            file = os.open(self._folder / ref.digest, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._take(file, ref):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)
            time.sleep(_POLL_S)
        return self._own_copy(ref)

    def _take(self, file: int, ref: BlobRef) -> bool:
        """Lock a file, and fill it where it is not whole; False where that has to wait for somebody else."""
        whole = self._is_whole(file, ref)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if whole else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(file).st_nlink == 0:  # it was removed before it was locked
            return False
        if not self._is_whole(file, ref):
            self._fill(file, ref)
        os.utime(file, ns=(time.time_ns(), self._mark_ns))  # when it was used last, and that it is whole
        fcntl.flock(file, fcntl.LOCK_SH)
        return True

    def _is_whole(self, file: int, ref: BlobRef) -> bool:
        status = os.fstat(file)
        return status.st_size == ref.bytes and status.st_mtime_ns == self._mark_ns

    def _fill(self, file: int, ref: BlobRef) -> None:
        resumed = os.fstat(file).st_size == ref.bytes
        if not resumed:
            with self._locked():
                if not self._make_room(ref.bytes):
                    (self._folder / ref.digest).unlink()
                self._allocate(file, ref.bytes)
        self._fetch(file, ref, resumed=resumed)

    def _own_copy(self, ref: BlobRef) -> int:
        with tempfile.TemporaryFile(dir=self._folder) as unnamed:
            file = os.dup(unnamed.fileno())
        try:
            self._allocate(file, ref.bytes)
            self._fetch(file, ref, resumed=False)
        except BaseException:
            os.close(file)
            raise
        return file

    def _fetch(self, file: int, ref: BlobRef, *, resumed: bool) -> None:
        try:
            fill_file(self._store, ref, file, self._fetching, resumed=resumed)
        finally:
            self._store.free_buffers()

    def _allocate(self, file: int, size: int) -> None:
        """Give a file its size and its place on the disk, so that no write to it fails later."""
        try:
            os.ftruncate(file, 0)
            if size:
                os.posix_fallocate(file, 0, size)
        except OSError as error:
            os.ftruncate(file, 0)
            raise ResourceExhausted(f"spool {self._folder} has no room for {size} bytes: {error.strerror}") from error

    def _make_room(self, wanted: int) -> bool:
        """Remove files that nobody uses until so many bytes fit, and say whether they do. Holds the folder's lock."""
        if wanted > self._limit_bytes:
            return False
        files = [(path, path.stat()) for path in self._folder.iterdir() if _DIGEST.match(path.name)]
        excess = wanted + sum(status.st_size for _, status in files) - self._limit_bytes
        for path, status in sorted(files, key=lambda file: file[1].st_atime_ns):
            if excess <= 0:
                break
            if status.st_size and _remove_unused(path):
                excess -= status.st_size
        return excess <= 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock, under which alone files lose their names."""
        with (self._folder / _LOCK).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _remove_unused(path: Path) -> bool:
    with path.open("rb") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
        return True
    return False


def _mark_ns() -> int:
    """A modification time that says: verified since the machine started. Where that cannot be told, a process's own."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        start = os.urandom(16)
    return int.from_bytes(blake3(start).digest(4)) % 2**31 * 1_000_000_000  # whole seconds fit every file system
