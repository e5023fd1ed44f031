"""The seam to whatever keeps the blobs: a folder, a bucket, memory, Redis, or Redis as a cache before another.

The protocol is ours and may change with its adapters; `tests/contract/test_blob_store.py` holds all of them to it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from nearmq_index_store.errors import InvalidArgument

#: Anything that gives its bytes without a copy: bytes, memoryview, mmap, a contiguous numpy array.
Buffer = bytes | bytearray | memoryview

#: The most that put_if_absent takes: one Redis value that blocks its server for some 2 ms.
MAX_CONDITIONAL_BYTES = 4 << 20

#: Keys as `digest.put_blob` makes them, with their bytes' digest in the name.
_PUT_ONCE = re.compile(r"[^/]+/[0-9A-HJKMNP-TV-Z]{26}-[0-9a-f]{64}\Z")

_WORD = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+"
_KEY = re.compile(rf"{_WORD}(?:/{_WORD})*\Z")
_PREFIX = re.compile(rf"(?:{_WORD}/)+\Z")


def check_key(key: str) -> str:
    """Return the key, or raise InvalidArgument when it is no relative path of `[A-Za-z0-9._-]` words."""
    if not _KEY.match(key):
        raise InvalidArgument(f"blob key {key!r} is not a path of [A-Za-z0-9._-] words between single slashes")
    return key


def is_put_once(key: str) -> bool:
    """Say whether a key is of a blob: named by its digest, put once, so that no copy of it can be stale or forged.

    Manifests, names and whatever else is small and read by its place is put under another kind of key.
    """
    return _PUT_ONCE.match(key) is not None


def check_prefix(prefix: str) -> str:
    """Return the prefix, or raise InvalidArgument when it is no folder path that ends with `/`."""
    if not _PREFIX.match(prefix):
        raise InvalidArgument(f"list prefix {prefix!r} is not a path of [A-Za-z0-9._-] words that ends with '/'")
    return prefix


def check_conditional_size(key: str, data: Buffer) -> None:
    """Raise InvalidArgument when the data are more than put_if_absent takes, or than can be signed."""
    if len(data) > MAX_CONDITIONAL_BYTES:
        raise InvalidArgument(
            f"{key!r} is to be written with {len(data)} bytes, at most {MAX_CONDITIONAL_BYTES} are allowed unless its "
            "name is its digest"
        )


class BlobStore(Protocol):
    """A flat map from keys to immutable bytes, with one atomic step: put-if-absent.

    Keys are relative paths of `[A-Za-z0-9._-]` words (none is `.` or `..`) between slashes; a write under another key,
    or a list of a prefix that is no such path with a `/` at its end, raises InvalidArgument.
    Any method may be called from any thread.
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

    def get(self, key: str, start: int = 0, end: int | None = None, *, refresh: bool = False) -> Buffer:
        """Read the bytes start..end (end not included; None is to the last; beyond the last is cut).

        Args:
            refresh: pass by any cache and replace what it holds, since what it gave has failed its digest.

        Raises:
            BlobNotFound: no blob has this key.
        """
        ...

    def put(self, key: str, *parts: Buffer) -> None:
        """Write the parts, joined, under a key that nobody else writes; a key that is there is replaced.

        Of any size where `is_put_once(key)`; else a store that signs takes as much as put_if_absent does.

        A reader sees nothing or all of it; a kill leaves nothing that `list` or `get` shows.
        """
        ...

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Write when the key is absent, and say whether this call did; of any number of racing calls exactly one does.

        More than MAX_CONDITIONAL_BYTES raises InvalidArgument. After StoreUnavailable the outcome is unknown: read the
        key back.
        """
        ...

    def exists(self, key: str) -> bool:
        """Say whether the key is there."""
        ...

    def which_exist(self, keys: Sequence[str]) -> Iterable[bool]:
        """Say of each key whether it is there, looked up one after the other.

        Sent together where the store can; where it cannot, none is looked up before the answer is asked for.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the key; a key that is not there is no error."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the prefix (a folder path that ends with `/`), in any order."""
        ...

    def free_buffers(self) -> None:
        """Let go of memory that past calls left with idle connections; for after reading much."""
        ...
