"""The seam to whatever keeps the blobs: a folder, a bucket, memory, Redis, or Redis as a cache before one of the others.

The protocol is ours and may change with its adapters; `tests/contract/test_blob_store.py` holds all of them to it.
"""

from collections.abc import Iterator
from typing import Protocol

#: Anything that gives its bytes without a copy: bytes, memoryview, mmap, a contiguous numpy array.
Buffer = bytes | bytearray | memoryview


class BlobStore(Protocol):
    """A flat map from keys to immutable bytes, with one atomic step: put-if-absent.

    Keys are relative paths of `[A-Za-z0-9._-]` words between slashes. Any method may be called from any thread.
    Every method raises StoreUnavailable when the store cannot be reached in time or refuses.
    When `put` or `put_if_absent` has returned, what it wrote survives a kill of this process and of the machine, as far
    as the store was configured to promise it (`durability` says so in words).
    """

    @property
    def id(self) -> str:
        """Which store this is: equal for two adapters over the same data, without credentials. Cache keys carry it."""
        ...

    @property
    def durability(self) -> str | None:
        """What a crash may lose although a put had returned, as one sentence for the log; None when nothing."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> Buffer:
        """Read the bytes start..end (end not included; None is to the last; beyond the last is cut).

        Raises:
            BlobNotFound: no blob has this key.
        """
        ...

    def put(self, key: str, *parts: Buffer) -> None:
        """Write the parts, joined, under a key that nobody else writes; a key that is there is replaced.

        A reader sees nothing or all of it; a kill leaves nothing that `list` or `get` shows.
        """
        ...

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write when the key is absent, and say whether this call did; of any number of racing calls exactly one does.

        After StoreUnavailable the outcome is unknown: read the key back.
        """
        ...

    def exists(self, key: str) -> bool:
        """Say whether the key is there."""
        ...

    def delete(self, key: str) -> None:
        """Remove the key; a key that is not there is no error."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the prefix (a folder path that ends with `/`), in any order."""
        ...
