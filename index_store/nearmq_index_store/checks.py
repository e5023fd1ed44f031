"""What `nearmq doctor` looks at in the store and its cache: the entry point `store` of the group `nearmq.checks`."""

from collections.abc import Iterator, Mapping

from ulid import ULID

from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.blobs.redis_server import RedisServer
from nearmq_index_store.errors import InvalidArgument, StoreError

#: Check, status (`ok`, `note`, `problem`, `unreachable`), and what was found with what to do.
Finding = tuple[str, str, str]


def check_store(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Open the store of `settings["store"]`, write, read and delete a blob of a few bytes, and ping the cache."""
    url, cache = settings.get("store"), settings.get("cache")
    if url is None:
        yield "store", "note", "none is set (NEARMQ_STORE or --store), so none is tried"
    else:
        yield from _reported("store", _use(url))
    if cache is not None:
        yield from _reported("cache", _ping(cache))


def _use(url: str) -> Iterator[Finding]:
    store = open_store(url)
    yield "store", "ok", store.id
    _round_trip(store, f"doctor/{ULID()}")
    yield "store access", "ok", "a blob was written, found, read and deleted"
    lost = store.durability
    yield ("durability", "note", lost) if lost else ("durability", "ok", "a crash loses nothing that was acknowledged")


def _round_trip(store: BlobStore, key: str) -> None:
    store.put(key, b"nearmq doctor")
    try:
        if not store.exists(key) or bytes(store.get(key)) != b"nearmq doctor":
            raise InvalidArgument("the store did not give back what was just written to it", field="store")
    finally:
        store.delete(key)


def _ping(url: str) -> Iterator[Finding]:
    server = RedisServer(url, connect_timeout_s=3, reply_timeout_s=3, retries=0)
    server.command("PING")
    policy = server.eviction_policy()
    yield "cache", "ok", server.id
    if policy == "noeviction":
        yield (
            "cache eviction",
            "note",
            "maxmemory-policy is noeviction: when it is full it keeps the old; set allkeys-lru",
        )


def _reported(check: str, steps: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from steps
    except InvalidArgument as error:
        yield check, "problem", error.message
    except StoreError as error:
        yield check, "unreachable", error.message
