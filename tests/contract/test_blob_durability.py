"""What a kill leaves: of a writer, of the Redis server."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from nearmq_index_store.blobs import FolderStore
from nearmq_index_store.blobs.redis import RedisStore
from nearmq_index_store.errors import StoreUnavailable
from tests import servers
from tests.contract.conftest import Place

ALWAYS_SYNCED = ("--appendonly", "yes", "--appendfsync", "always")


@contextlib.contextmanager
def child(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python in a process that is killed with SIGKILL at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


_WRITER = """
import sys
from nearmq_index_store.blobs import open_store

store = open_store(sys.argv[1], sys.argv[2] or None)
for number in range(1000):
    print(number, flush=True)
    store.put(f"blobs/{number}", *[bytes([number]) * 5_000_000] * 6)
"""


def test_a_writer_killed_in_a_put_leaves_whole_blobs_only(shared_place: Place):
    with child(_WRITER, shared_place.url, shared_place.cache_url or "") as writer:
        for begun in range(3):
            assert writer.stdout.readline() == f"{begun}\n"
        time.sleep(0.005)
        writer.kill()
        begun = int(([*map(int, writer.stdout.read().split())] or [begun])[-1])
    store = shared_place.open()
    for number in range(begun):  # whose puts had returned
        assert bytes(store.get(f"blobs/{number}")) == bytes([number]) * 30_000_000
    listed = sorted(store.list("blobs/"))
    assert len(listed) in (begun, begun + 1)
    for key in listed:
        assert len(store.get(key)) == 30_000_000


_STAGER = """
import sys
from pathlib import Path
from nearmq_index_store.blobs import FolderStore

with FolderStore(Path(sys.argv[1]))._staged((b"written and synced, but not there yet",)):
    print("staged", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_swept_of_what_a_killed_writer_staged_and_of_nothing_else(tmp_path: Path):
    with child(_STAGER, str(tmp_path)) as stager:
        assert stager.stdout.readline() == "staged\n"
        store = FolderStore(tmp_path)
        [staged] = (tmp_path / ".staging").iterdir()  # in use: its writer lives
        assert list(store.list(".staging/")) == []
    FolderStore(tmp_path)
    assert not staged.exists()


_CHUNK_WRITER = """
import sys
from nearmq_index_store.blobs.redis import RedisStore

store = RedisStore(sys.argv[1])
send = store._server.pipeline

def stop_before_the_chunks_are_made_to_stay(*commands):
    if commands[0][0] == "PERSIST":
        print("staged", flush=True)
        sys.stdin.read()
    return send(*commands)

store._server.pipeline = stop_before_the_chunks_are_made_to_stay
store.put("blobs/killed", b"x" * 9_000_000)
"""


def test_chunks_of_a_killed_put_expire_and_those_of_a_finished_one_stay(redis_url: str):
    store = RedisStore(redis_url)
    store.put("blobs/finished", b"x" * 9_000_000)
    with child(_CHUNK_WRITER, redis_url) as writer:
        assert writer.stdout.readline() == "staged\n"
    assert list(store.list("blobs/")) == ["blobs/finished"]
    with redis.Redis.from_url(redis_url) as client:
        lifetimes = {key: client.ttl(key) for key in client.keys("nearmq:chunk:*")}
    assert len(lifetimes) == 6
    for key, lifetime in lifetimes.items():
        assert lifetime == -1 if b"blobs/finished" in key else 0 < lifetime <= 3_600


def test_what_a_put_wrote_survives_a_kill_of_a_redis_that_always_syncs(private_redis: Callable[..., servers.Redis]):
    server = private_redis(*ALWAYS_SYNCED)
    store = RedisStore(server.url)
    assert store.durability is None
    data = random.Random(3).randbytes(10_000_000)
    store.put("c/blob", data)
    assert store.put_if_absent("c/m/1", b"manifest")
    server.kill()
    with pytest.raises(StoreUnavailable):
        store.get("c/blob")
    server.start()
    for reader in (store, RedisStore(server.url)):
        assert bytes(reader.get("c/blob")) == data
        assert not reader.put_if_absent("c/m/1", b"another")
        assert sorted(reader.list("c/")) == ["c/blob", "c/m/1"]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What os does, in order, with the path or, for a link or rename, the path that appears."""
    seen: list[tuple[str, str]] = []

    def watch(name: str, path_of: Callable[..., str]) -> None:
        real = getattr(os, name)

        def watched(*args: object, **kwargs: object) -> object:
            result = real(*args, **kwargs)
            seen.append((name, path_of(*args)))
            return result

        monkeypatch.setattr(os, name, watched)

    watch("fsync", lambda descriptor: str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    watch("link", lambda _, target, **__: str(target))
    watch("replace", lambda _, target: str(target))
    return seen


def test_a_folder_syncs_bytes_before_their_name_and_names_before_it_returns(
    tmp_path: Path, steps: list[tuple[str, str]]
):
    store = FolderStore(tmp_path)
    for write, appears in ((store.put, "replace"), (store.put_if_absent, "link")):
        steps.clear()
        write(f"{appears}/m/1", b"manifest")
        (first, staged), *rest = steps
        assert (first, Path(staged).parent) == ("fsync", tmp_path / ".staging")
        assert rest == [
            (appears, str(tmp_path / appears / "m" / "1")),
            ("fsync", str(tmp_path / appears / "m")),
            ("fsync", str(tmp_path / appears)),
            ("fsync", str(tmp_path)),
        ]
