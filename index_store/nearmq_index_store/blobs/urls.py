"""From a store's URL to its adapter."""

from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from nearmq_index_store.blobs.cached import CachedStore
from nearmq_index_store.blobs.object_store import FolderStore, bucket_store, memory_store
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import InvalidArgument

_STORES = "file:, memory:, s3://, redis:// and rediss://"


def open_store(url: str, cache_url: str | None = None) -> BlobStore:
    """Open the store of a URL, with a Redis before it as a cache when one is named.

    Args:
        url: `file:FOLDER`, `memory:`, `s3://BUCKET[/PREFIX]`, `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://...`.
            A folder is taken literally (no %20), relative to the working directory unless it starts with `/`.
        cache_url: `redis://...` or `rediss://...`; it may evict, be flushed or be away, and is not connected to here.

    Raises:
        InvalidArgument: an unknown scheme, a malformed URL, or a Redis that is set to evict blobs.
        StoreUnavailable: the store (not the cache) cannot be reached.
    """
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
