"""From a store's URL to its adapter."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from nearmq_index_store.blobs.cached import CachedStore
from nearmq_index_store.blobs.object_store import FolderStore, bucket_store, memory_store
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.blobs.signed import SignedStore, read_signing_keys
from nearmq_index_store.errors import InvalidArgument

if TYPE_CHECKING:
    from nearmq_index_store.blobs.redis_notes import RedisNotes

_STORES = "file:, memory:, s3://, redis:// and rediss://"


def open_store(url: str, cache_url: str | None = None, signing_key_file: Path | None = None) -> BlobStore:
    """Open the store of a URL, with a Redis before it as a cache when one is named, signed when keys are.

    Args:
        url: `file:FOLDER`, `memory:`, `s3://BUCKET[/PREFIX]`, `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...`.
            A folder is taken literally (no %20), relative to the working directory unless it starts with `/`.
        cache_url: `redis://...` or `rediss://...`; it may evict, be flushed or be away, and is not connected to here.
        signing_key_file: keys by which manifests and the like are signed, and refused where they are not (`signed.py`).

    Raises:
        InvalidArgument: an unknown scheme, a malformed URL, a Redis that is set to evict blobs, or no keys in the file.
        StoreUnavailable: the store (not the cache) cannot be reached.
    """
    keys = None if signing_key_file is None else read_signing_keys(signing_key_file)
    store = _open_cached(url, cache_url)
    return store if keys is None else SignedStore(store, keys)


def open_notes(url: str, cache_url: str | None = None) -> "RedisNotes | None":
    """Return a place for notes that may be lost: the cache, or the store when that is Redis; None without a Redis.

    Args:
        url, cache_url: as for `open_store`.
    """
    for field, candidate in (("cache", cache_url), ("store", url)):
        if candidate is not None and _split(candidate, field)[0] in ("redis", "rediss"):
            from nearmq_index_store.blobs.redis_notes import RedisNotes  # noqa: PLC0415 - takes some half a second

            return RedisNotes(candidate)
    return None


def _open_cached(url: str, cache_url: str | None) -> BlobStore:
    origin = _open_origin(url)
    if cache_url is None:
        return origin
    scheme, _ = _split(cache_url, "cache")
    if scheme not in ("redis", "rediss"):
        raise InvalidArgument(f"cache url has scheme {scheme!r}, known are redis:// and rediss://", field="cache")
    from nearmq_index_store.blobs.redis import RedisCache  # noqa: PLC0415 - takes some half a second

    return CachedStore(origin, RedisCache(cache_url))


def _open_origin(url: str) -> BlobStore:
    scheme, parts = _split(url, "store")
    match scheme:
        case "file":
            return FolderStore(_folder(url))
        case "memory":
            return memory_store()
        case "s3" if parts.netloc and not parts.query:
            return bucket_store(parts.netloc, parts.path.strip("/"))
        case "s3":
            raise InvalidArgument("s3 url is not s3://BUCKET or s3://BUCKET/PREFIX", field="store")
        case "redis" | "rediss":
            from nearmq_index_store.blobs.redis import RedisStore  # noqa: PLC0415 - takes some half a second

            return RedisStore(url)
    raise InvalidArgument(f"store url has scheme {scheme!r}, known are {_STORES}", field="store")


def _split(url: str, field: str) -> tuple[str, SplitResult]:
    try:
        parts = urlsplit(url)
    except ValueError:
        # The library's message and the URL itself may hold a password.
        raise InvalidArgument(f"{field} url cannot be parsed", field=field) from None
    if not parts.scheme:
        raise InvalidArgument(f"{field} url has no scheme, known are {_STORES}", field=field)
    return parts.scheme, parts


def _folder(url: str) -> Path:
    path = url.removeprefix("file:")
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise InvalidArgument("file url names a host, write file:./FOLDER or file:///FOLDER", field="store")
    if not path:
        raise InvalidArgument("file url names no folder, write file:./FOLDER or file:///FOLDER", field="store")
    return Path(path)
