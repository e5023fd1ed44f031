"""The shared spool: what it gives is verified, whoever wrote it, whoever was killed, and however many ask at once."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

from nearmq.errors import InvalidArgument, ResourceExhausted
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.digest import PAGE_BYTES, RANGE_BYTES, put_blob
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import BlobRef
from nearmq_worker.spool_files import SpoolFiles

SIZE = RANGE_BYTES + PAGE_BYTES + 5


class Counted:
    """A store before another that counts the bytes read, and calls `before` each read."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self.read = 0
        self.before: Callable[[], None] = lambda: None

    def get(self, *arguments: Any, **options: Any) -> Any:
        self.before()
        data = self._store.get(*arguments, **options)
        self.read += len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def store() -> Counted:
    return Counted(open_store("memory:"))


def blob(store: Counted, seed: int, size: int = SIZE) -> tuple[BlobRef, bytes]:
    data = bytes([seed]) * (size - 1) + b"!"
    return put_blob(store, "c", data), data


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


def test_a_second_spool_on_the_folder_reads_nothing_from_the_store(store: Counted, tmp_path: Path):
    ref, data = blob(store, 1)
    assert SpoolFiles(store, tmp_path, 10 * SIZE).map(ref) == data
    read = store.read
    assert read >= SIZE
    assert SpoolFiles(store, tmp_path, 10 * SIZE).map(ref) == data
    assert store.read == read


def test_a_spool_that_is_closed_while_it_fetches_keeps_nobody_waiting(store: Counted, tmp_path: Path):
    ref, _ = blob(store, 1, 8 * RANGE_BYTES)
    spool = SpoolFiles(store, tmp_path, 2 * ref.bytes)
    has_begun, may_go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def map_it() -> None:
        with contextlib.suppress(CancelledError, RuntimeError):
            spool.map(ref)
        ended.set()

    def before() -> None:
        if threading.current_thread().name.startswith("nearmq-fetch"):
            has_begun.set()
            may_go_on.wait(10)

    store.before = before
    threading.Thread(target=map_it, daemon=True).start()
    assert has_begun.wait(10)
    spool.close()
    may_go_on.set()
    assert ended.wait(10)


def test_an_empty_blob_is_mapped(store: Counted, tmp_path: Path):
    assert SpoolFiles(store, tmp_path, SIZE).map(put_blob(store, "c", b"")) == b""


@pytest.mark.parametrize("moment", ["a later write", "a restart of the machine"])
def test_what_may_have_changed_is_verified_and_only_what_did_is_fetched(store: Counted, tmp_path: Path, moment: str):
    ref, data = blob(store, 1)
    SpoolFiles(store, tmp_path, 10 * SIZE).map(ref)
    path = tmp_path / ref.digest
    with path.open("r+b") as file:
        file.seek(SIZE - 3)
        file.write(b"x")
    if moment == "a restart of the machine":
        os.utime(path, (1, 1))
    store.read = 0
    assert SpoolFiles(store, tmp_path, 10 * SIZE).map(ref) == data
    assert 0 < store.read < RANGE_BYTES


def test_a_file_that_was_not_finished_is_never_given(store: Counted, tmp_path: Path):
    ref, data = blob(store, 1)
    (tmp_path / ref.digest).write_bytes(b"\0" * SIZE)
    assert SpoolFiles(store, tmp_path, 10 * SIZE).map(ref) == data


def test_only_a_file_that_is_whole_and_nobodys_to_remove_is_found(store: Counted, tmp_path: Path):
    ref, data = blob(store, 1)
    files = SpoolFiles(store, tmp_path, 10 * SIZE)
    assert files.find(ref) is None
    assert names(tmp_path) == set()
    files.map(ref)
    assert files.find(ref) == data
    os.utime(tmp_path / ref.digest, (1, 1))
    assert files.find(ref) is None
    assert files.map(ref) == data
    (tmp_path / ref.digest).write_bytes(data[1:])
    assert files.find(ref) is None


def test_a_damaged_blob_is_refused_and_the_mended_one_given(store: Counted, tmp_path: Path):
    ref, data = blob(store, 1)
    stored = bytes(store.get(ref.key))
    store.put(ref.key, b"x" + stored[1:])
    files = SpoolFiles(store, tmp_path, 10 * SIZE)
    with pytest.raises(IndexCorrupt):
        files.map(ref)
    store.put(ref.key, stored)
    assert files.map(ref) == data


def test_the_least_recently_used_file_makes_room_but_none_in_use(store: Counted, tmp_path: Path):
    refs = [blob(store, number)[0] for number in range(5)]
    files = SpoolFiles(store, tmp_path, 3 * SIZE)
    held = files.map(refs[0])
    for ref in (refs[1], refs[2], refs[1]):
        files.map(ref)
    files.map(refs[3])
    assert names(tmp_path) == {refs[0].digest, refs[1].digest, refs[3].digest}
    others = [files.map(refs[1]), files.map(refs[3])]
    assert files.map(refs[4])[:1] == b"\4"
    assert names(tmp_path) == {refs[0].digest, refs[1].digest, refs[3].digest}, "a file without room goes with its map"
    assert held[:1] == b"\0"
    del held, others
    files.map(refs[4])
    assert refs[4].digest in names(tmp_path)


def test_one_fetch_serves_all_who_ask_at_once(store: Counted, tmp_path: Path):
    ref, data = blob(store, 1)
    given: list[bool] = []

    def ask() -> None:
        given.append(SpoolFiles(store, tmp_path, 10 * SIZE).map(ref) == data)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert given == [True] * 6
    assert store.read < 2 * SIZE


def test_who_waits_goes_on_when_the_one_that_fetches_is_killed(tmp_path: Path):
    url = f"file:{tmp_path / 'store'}"
    store = Counted(open_store(url))
    ref, data = blob(store, 1)
    script = (
        "import sys, time; from tests.unit.test_spool import *\n"
        f"store = Counted(open_store({url!r}))\n"
        "def stall():\n  print(flush=True)\n  time.sleep(60)\n"
        "store.before = stall\n"
        f"SpoolFiles(store, Path({str(tmp_path / 'spool')!r}), {10 * SIZE}).map({ref!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    given: list[bytes] = []
    waiting = threading.Thread(
        target=lambda: given.append(bytes(SpoolFiles(store, tmp_path / "spool", 10 * SIZE).map(ref)))
    )
    waiting.start()
    time.sleep(0.1)
    assert not given
    process.send_signal(signal.SIGKILL)
    waiting.join(30)
    process.wait()
    process.stdout.close()
    assert given == [data]


def test_a_folder_that_others_may_write_is_refused(store: Counted, tmp_path: Path):
    tmp_path.chmod(0o777)
    with pytest.raises(InvalidArgument, match="mode 777, expected a folder that only user"):
        SpoolFiles(store, tmp_path, SIZE)


def test_a_full_disk_is_said(store: Counted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ref, data = blob(store, 1)

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    files = SpoolFiles(store, tmp_path, 10 * SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(ResourceExhausted, match=r"no room for .* No space left"):
            files.map(ref)
    assert files.map(ref) == data
