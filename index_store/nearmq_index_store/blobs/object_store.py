"""Blobs in a folder (`file:`), in memory (`memory:`) and in an S3 bucket (`s3:`), through obstore.

The one module that imports obstore.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, MemoryStore, S3Store
from ulid import ULID

from nearmq_index_store.blobs.chunks import byte_views
from nearmq_index_store.blobs.protocol import Buffer, check_conditional_size, check_key, check_prefix
from nearmq_index_store.errors import BlobNotFound, StoreUnavailable

if TYPE_CHECKING:
    from obstore import GetOptions  # not there when the program runs

#: Below this an object goes up in one request; above it in parts of this size, some at a time.
PART_BYTES = 8 << 20
PARTS_AT_A_TIME = 4

#: One HTTP request, connecting included: 8 MiB at 2 Mbit/s.
REQUEST_TIMEOUT = timedelta(seconds=30)
CONNECT_TIMEOUT = timedelta(seconds=5)
#: After this no request is tried again, so an operation on a bucket that does not answer ends within a minute.
RETRY_TIMEOUT = timedelta(seconds=30)
MAX_RETRIES = 3

#: Rejected conditional puts whose key is absent after all, before the store counts as unavailable.
CONDITIONAL_ATTEMPTS = 5

LIST_PAGE = 1_000

_STAGING = ".staging"

Backend = LocalStore | MemoryStore | S3Store


class ObjectStore:
    """A BlobStore over one of obstore's stores.

    A put is durable when the backend says so: a bucket does, memory lives as long as the process.
    """

    def __init__(self, backend: Backend, *, store_id: str, conditional: Backend | None = None) -> None:
        """Take an obstore store, and for put_if_absent one that never repeats a request."""
        self._backend = backend
        self._conditional = conditional or backend
        self.id = store_id

    @property
    def durability(self) -> str | None:
        """Nothing is lost, but for memory."""
        return "nothing outlives this process" if isinstance(self._backend, MemoryStore) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:  # noqa: ARG002 - no cache
        """Read with one request; a range outside the object takes a second one to see its length."""
        with self._translated("read", key):
            if start == 0 and end is None:
                return memoryview(obstore.get(self._backend, key).bytes())
            if end is not None and end <= start:
                obstore.head(self._backend, key)
                return b""
            wanted: GetOptions = {"range": {"offset": start} if end is None else (start, end)}
            try:
                return memoryview(obstore.get(self._backend, key, options=wanted).bytes())
            except BaseError as error:
                # A range that begins at or after the end is an error of every backend, with no type of its own.
                if "range" not in str(error).lower() or start < obstore.head(self._backend, key)["size"]:
                    raise
                return b""

    def put(self, key: str, *parts: Buffer) -> None:
        """Write with one request, or as a multipart upload that shows nothing before it is complete."""
        check_key(key)
        views = byte_views(parts)
        with self._translated("write", key):
            if sum(len(view) for view in views) <= PART_BYTES:
                obstore.put(self._backend, key, b"".join(views), use_multipart=False)
            else:
                obstore.put(self._backend, key, iter(views), chunk_size=PART_BYTES, max_concurrency=PARTS_AT_A_TIME)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write with one conditional request, `If-None-Match: *` on S3."""
        check_key(key)
        check_conditional_size(key, data)
        with self._translated("write", key):
            for _ in range(CONDITIONAL_ATTEMPTS):
                with suppress(AlreadyExistsError):
                    obstore.put(self._conditional, key, data, mode="create", use_multipart=False)
                    return True
                # S3 also answers so (409) while another's conditional put is under way, and that one may yet fail.
                if self.exists(key):
                    return False
        raise StoreUnavailable(f"{self.id} rejects a conditional put of {key!r} although the key is absent")

    def exists(self, key: str) -> bool:
        """Ask for the object's head."""
        with self._translated("look up", key):
            try:
                obstore.head(self._backend, key)
            except FileNotFoundError:
                return False
            return True

    def which_exist(self, keys: Sequence[str]) -> Iterator[bool]:
        """Ask for one head after the other."""
        return map(self.exists, keys)

    def delete(self, key: str) -> None:
        """Remove the object."""
        # A missing key raises on a folder only.
        with self._translated("delete", key), suppress(FileNotFoundError):
            obstore.delete(self._backend, key)

    def free_buffers(self) -> None:
        """Do nothing: buffers end with each call."""

    def list(self, prefix: str) -> Iterator[str]:
        """List the objects below a folder, a page of them at a time."""
        check_prefix(prefix)
        with self._translated("list", prefix):
            for batch in obstore.list(self._backend, prefix, chunk_size=LIST_PAGE):
                yield from (entry["path"] for entry in batch)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            if verb == "read" and isinstance(error, FileNotFoundError):
                raise BlobNotFound(f"no blob {key!r} in {self.id}") from error
            # The first line is obstore's message; a dump of its internals follows.
            reason = str(error).partition("\n")[0][:300]
            raise StoreUnavailable(f"{self.id} cannot {verb} {key!r}: {reason}") from error


class FolderStore(ObjectStore):
    """A BlobStore in a folder: reads are obstore's, writes are ours, since obstore never calls fsync.

    A write is staged, synced, and only then linked or renamed to its key, so that not even a crash of the machine shows
    a key whose bytes are not there. Staging files end in `#<number>`, as obstore's own do, and are never listed; a lock
    tells the ones in use from those a kill left behind.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder when it is missing, and remove what killed writers left.

        Raises:
            StoreUnavailable: the folder cannot be made or written.
        """
        self._folder = folder.resolve()
        self._staging = self._folder / _STAGING
        self._durable_folders = {self._folder}
        self.id = f"file:{self._folder}"
        with self._translated("open", _STAGING):
            missing = [path for path in (self._staging, *self._staging.parents) if not path.exists()]
            self._staging.mkdir(parents=True, exist_ok=True)
            for path in missing:
                _sync(path.parent)
            self._sweep()
            super().__init__(LocalStore(self._folder), store_id=self.id)

    def put(self, key: str, *parts: Buffer) -> None:
        """Stage, sync, rename, sync the folder."""
        path = self._folder / check_key(key)
        with self._translated("write", key), self._staged(parts) as staged:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.replace(path)
            self._make_durable(path.parent)

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Stage, sync, link (which one of several racing calls can), sync the folder."""
        path = self._folder / check_key(key)
        check_conditional_size(key, data)
        with self._translated("write", key), self._staged((data,)) as staged:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.hardlink_to(staged)
            except FileExistsError:
                return False
            self._make_durable(path.parent)
            return True

    @contextmanager
    def _staged(self, parts: tuple[Buffer, ...]) -> Iterator[Path]:
        """Give a file that holds the parts and has been synced; it is gone afterwards unless it was renamed."""
        path, file = self._new_staging_file()
        with file:
            try:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
                yield path
            finally:
                path.unlink(missing_ok=True)

    def _new_staging_file(self) -> tuple[Path, BinaryIO]:
        while True:
            path = self._staging / f"{ULID()}#1"
            file = path.open("xb")
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
            file.close()  # swept between its making and its lock

    def _sweep(self) -> None:
        for path in self._staging.iterdir():
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _make_durable(self, folder: Path) -> None:
        """Sync the folder, and once in this process the folders above it, which somebody made."""
        _sync(folder)
        for made in (folder, *folder.parents):
            if made in self._durable_folders:
                break
            _sync(made.parent)
        self._durable_folders.add(folder)


def memory_store() -> ObjectStore:
    """Make an empty store that lives as long as this process, for tests and trials."""
    return ObjectStore(MemoryStore(), store_id=f"memory:{ULID()}")


def bucket_store(bucket: str, prefix: str) -> ObjectStore:
    """Open an S3 bucket, or a server that speaks S3; keys get the prefix.

    Credentials, region and endpoint come from AWS's own environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
    `AWS_REGION`, `AWS_ENDPOINT_URL`, ...) or the instance's role; AWS's profile files are not read.

    Raises:
        StoreUnavailable: there is no such bucket, or it does not answer or refuses within a minute.
    """
    backend = _s3(bucket, prefix, max_retries=MAX_RETRIES)
    # Of a repeated conditional put nobody knows whose write it was that the second one met.
    store = ObjectStore(
        backend, store_id=f"s3://{bucket}/{prefix}".rstrip("/"), conditional=_s3(bucket, prefix, max_retries=0)
    )
    for _ in store.list("names/"):
        break
    return store


def _s3(bucket: str, prefix: str, *, max_retries: int) -> S3Store:
    return S3Store(
        bucket,
        prefix=prefix or None,
        # As with AWS's own tools the endpoint's scheme decides; without this an http endpoint is refused.
        client_options={"allow_http": True, "connect_timeout": CONNECT_TIMEOUT, "timeout": REQUEST_TIMEOUT},
        retry_config={"max_retries": max_retries, "retry_timeout": RETRY_TIMEOUT},
    )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
