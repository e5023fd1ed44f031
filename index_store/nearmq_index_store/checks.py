"""What `nearmq doctor` looks at in the store and its cache: the entry point `store` of the group `nearmq.checks`."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from ulid import ULID

from nearmq_index_store.blobs import BlobStore, SignedStore, open_store
from nearmq_index_store.blobs.redis_server import RedisServer
from nearmq_index_store.errors import IndexCorrupt, InvalidArgument, StoreError
from nearmq_index_store.names import PREFIX
from nearmq_index_store.sealed import unseal

#: Check, status (`ok`, `note`, `problem`, `unreachable`), and what was found with what to do.
Finding = tuple[str, str, str]

#: The permissions of a file that concern others than its owner and its group.
_OTHERS = 0o007


def check_store(settings: Mapping[str, str]) -> Iterator[Finding]:
    """Open the store of `settings["store"]`, write, read and delete a blob of a few bytes, and ping the cache.

    With `settings["signing_key_file"]`, see whether what the store says of itself has a signature of these keys.
    """
    url, cache, keys = settings.get("store"), settings.get("cache"), settings.get("signing_key_file")
    if url is None:
        yield "store", "note", "none is set (NEARMQ_STORE or --store), so none is tried"
    else:
        yield from _reported("store", _use(url, None if keys is None else Path(keys)))
    if cache is not None:
        yield from _reported("cache", _ping(cache))


def _use(url: str, keys: Path | None) -> Iterator[Finding]:
    store = open_store(url, signing_key_file=keys)
    yield "store", "ok", store.id
    _round_trip(store, f"doctor/{ULID()}")
    yield "store access", "ok", "a blob was written, found, read and deleted"
    lost = store.durability
    yield ("durability", "note", lost) if lost else ("durability", "ok", "a crash loses nothing that was acknowledged")
    yield from _signatures(store, keys)


def _round_trip(store: BlobStore, key: str) -> None:
    store.put(key, b"nearmq doctor")
    try:
        if not store.exists(key) or bytes(store.get(key)) != b"nearmq doctor":
            raise InvalidArgument("the store did not give back what was just written to it", field="store")
    finally:
        store.delete(key)


def _signatures(store: BlobStore, keys: Path | None) -> Iterator[Finding]:
    """Read one object as the workers would; the names are the first that they read."""
    if keys is not None and keys.stat().st_mode & _OTHERS:
        yield "signing keys", "note", f"{keys} can be read by everybody: chmod o= it"
    for key in store.list(PREFIX):
        try:
            unseal(bytes(store.get(key)), key)
        except IndexCorrupt as error:
            yield "signatures", "problem", error.message
            return
        break
    yield (
        "signatures",
        "ok",
        "of these keys" if isinstance(store, SignedStore) else "no keys are set, and none is needed",
    )


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
