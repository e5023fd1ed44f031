"""The ACL lines of docs/security.md, given as they stand there to a real Redis."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import redis

from nearmq.errors import StoreUnavailable
from nearmq_index_store import errors as store_errors
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.gc import collect_garbage
from nearmq_index_store.verifying import verify
from tests import servers
from tests.world import embedded_world

pytestmark = pytest.mark.redis

DOCS = Path(__file__).parents[2] / "docs" / "security.md"
LINES = [line.split() for line in DOCS.read_text().splitlines() if line.strip().startswith("ACL SETUSER")]

DENIED = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("SHUTDOWN", "NOSAVE"),
    ("SAVE",),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("ACL", "SETUSER", "more", "on"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("KEYS", "*"),
    ("EVAL", "return 1", "0"),
    ("FUNCTION", "LIST"),
    ("SCRIPT", "FLUSH"),
    ("PUBLISH", "news", "x"),
    ("SUBSCRIBE", "news"),
    ("GET", "others"),
    ("GETRANGE", "others", "0", "-1"),
    ("EXISTS", "others"),
    ("SET", "others", "x"),
    ("UNLINK", "others"),
    ("RENAME", "nearmq:index:{names}", "others"),
]
WRITES = [
    ("SET", "nearmq:blob:{x}/y", "x"),
    ("UNLINK", "nearmq:index:{names}"),
    ("ZADD", "nearmq:index:{names}", "0", "x"),
    ("ZREM", "nearmq:index:{names}", "x"),
    ("PERSIST", "nearmq:index:{names}"),
]


def test_reader_and_writer_do_their_work_and_are_refused_all_else(
    private_redis: Callable[..., servers.Redis],
):
    server = private_redis()
    with redis.Redis.from_url(server.url) as admin:
        admin.set("others", "secret")
        for line in LINES:
            admin.execute_command(*line)
    url_of = {line[2]: server.url.replace("redis://", f"redis://{line[2]}:PASSWORD@") for line in LINES}
    assert set(url_of) == {"nearmq-reader", "nearmq-writer"}

    with embedded_world(url_of["nearmq-writer"]) as world:
        books = world.client.create_collection("books", dim=4, index="HNSW")
        for start in range(3):
            books.upsert([start], np.eye(1, 4, dtype=np.float32) * start)
        books.delete(ids=[0])
        books.compact()
    catalog = Catalog(open_store(url_of["nearmq-writer"]))
    collect_garbage(catalog, [catalog.collection_id("books")], keep_s=0, grace_s=0, on_problem=pytest.fail)
    catalog.store.put("doctor/big", bytes(9_000_000))
    catalog.store.delete("doctor/big")
    assert list(verify(catalog, "books")) == []

    with embedded_world(url_of["nearmq-reader"]) as world:
        books = world.client.collection("books")
        assert books.search(np.eye(1, 4, dtype=np.float32), limit=2)[0].ids.tolist() == [1, 2]
        assert books.count() == 2
        with pytest.raises(StoreUnavailable, match="permission"):
            books.upsert([9], np.eye(1, 4, dtype=np.float32), timeout_s=10)
    with pytest.raises(store_errors.StoreUnavailable):
        open_store(url_of["nearmq-reader"].replace("PASSWORD", "wrong"))

    allowed = {user: [command for command in DENIED + WRITES if may(url, command)] for user, url in url_of.items()}
    assert allowed == {"nearmq-reader": [], "nearmq-writer": WRITES}


def may(url: str, command: tuple[str, ...]) -> bool:
    with redis.Redis.from_url(url) as user:
        try:
            user.execute_command(*command)
        except redis.exceptions.NoPermissionError:
            return False
        return True
