"""Garbage collection on every kind of store, and beside writers, readers and other collectors."""

import itertools
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nearmq_index_store import intents, ledger
from nearmq_index_store.blobs import BlobStore, Buffer, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome, Write
from nearmq_index_store.compaction.claims import claim_key, claimed
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, StoreError, VersionExpired
from nearmq_index_store.gc import Garbage, collect_garbage, find_garbage, mark, sweep
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.head import Heads
from nearmq_index_store.holds import HOLD_S, hold
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_index_store.verifying import verify
from tests.segments import schema_of, table_of, vector_field

SCHEMA = schema_of(vector_field(4, "L2"))


def staged(store: BlobStore, collection_id: str, first: int, folder: Path, partition: str = "_default") -> SegmentEntry:
    """A segment of two rows that no version names yet."""
    built_in = folder / f"{first}"
    built_in.mkdir(parents=True)
    vectors = np.full((2, 4), first, dtype=np.float32)
    built = build_segment(table_of([first, first + 1], vector=vectors), SCHEMA, built_in, threads=1)
    return store_segment(store, collection_id, partition, built)


class Books:
    """A collection whose versions put segments and replace them."""

    def __init__(self, store: BlobStore, folder: Path, name: str = "books") -> None:
        self.store, self.folder, self.name = store, folder, name
        self.catalog = Catalog(store)
        self.id = self.catalog.create(name, SCHEMA, job_id=f"create {name}").collection_id
        self._numbers = itertools.count()

    def add(self, partition: str = "_default") -> Outcome:
        number = next(self._numbers)
        with hold(self.store, self.id) as renew:
            renew()
            entry = staged(self.store, self.id, number * 10, self.folder, partition)
            return self.catalog.append(self.id, [entry], job_id=f"{self.id} {number}", create_partitions=True)

    def replace(self) -> Outcome:
        """Two versions, the second without the segment of the first."""
        self.add("p")
        return self.catalog.drop_partition(self.name, "p", job_id=f"{self.id} {next(self._numbers)}")

    def everything(self) -> set[str]:
        return set(self.store.list(f"{self.id}/"))

    def blobs(self) -> set[str]:
        return {key for key in self.everything() if key.count("/") == 1}

    def named(self) -> set[str]:
        """The blobs that the newest version names."""
        snapshot = Catalog(self.store).snapshot(self.name)
        own = {ref.blob.key for ref in snapshot.manifest.pages}
        return own | {blob.key for entry in snapshot.segments for blob in entry.blobs()}

    def is_whole(self) -> bool:
        return list(verify(Catalog(self.store), self.name)) == []


@pytest.fixture
def books(store: BlobStore, tmp_path: Path) -> Books:
    return Books(store, tmp_path)


@pytest.fixture
def in_memory(tmp_path: Path) -> Books:
    return Books(open_store("memory:"), tmp_path)


def fail(collection_id: str, error: IndexCorrupt) -> None:
    raise AssertionError(collection_id) from error


def collect(store: BlobStore, *, keep_s: float = 0, **options: Any) -> list[Garbage]:
    """Collect now what all versions but the newest named; a ULID counts milliseconds, hence the clock."""
    ids = sorted(Catalog(store).every_id())
    options = {"on_problem": fail, "clock": lambda: time.time() + 0.002, **options}
    return collect_garbage(Catalog(store), ids, keep_s=keep_s, grace_s=0, **options)


def test_what_no_retained_version_names_goes_and_all_else_stays(books: Books):
    for _ in range(3):
        books.add()
        books.replace()
    orphan = staged(books.store, books.id, 1_000, books.folder)
    expected = books.blobs() - books.named()
    assert {blob.key for blob in orphan.blobs()} < expected

    [removed] = collect(books.store)

    assert removed.blobs == expected
    assert books.blobs() == books.named()
    assert books.is_whole()
    assert sorted(key for key in books.everything() if "/m/" in key) == [
        f"{books.id}/m/{version:020d}" for version in (removed.oldest, removed.head.version)
    ]
    assert Catalog(books.store).snapshot("books").manifest == removed.head
    books.add()
    assert books.is_whole()


def test_once_all_is_collected_there_is_nothing_to_do_and_no_version_is_made(in_memory: Books):
    in_memory.replace()
    while any(collect(in_memory.store)):
        pass
    version = Catalog(in_memory.store).snapshot("books").manifest.version

    assert [len(garbage) for garbage in collect(in_memory.store)] == [0]
    assert Catalog(in_memory.store).snapshot("books").manifest.version == version


def test_a_version_stays_readable_for_the_time_that_is_asked_for(in_memory: Books):
    store = in_memory.store
    versions = [in_memory.add().version for _ in range(3)]
    dropped = in_memory.replace().version
    heads = Heads(store)

    collect(store, keep_s=3_600)
    assert [len(heads.open(heads.manifest(in_memory.id, version)).segments) for version in versions] == [1, 2, 3]

    # All was replaced an hour ago but the last version, whose time is not over.
    collect(store, keep_s=3_600, clock=lambda: time.time() + 3_700)
    with pytest.raises(VersionExpired, match="version 4"):
        heads.manifest(in_memory.id, versions[-1])
    assert heads.manifest(in_memory.id, dropped).version == dropped
    assert in_memory.is_whole()


def test_a_dry_run_says_what_would_go_and_changes_nothing(in_memory: Books):
    in_memory.replace()
    before = in_memory.everything()

    [found] = collect(in_memory.store, dry_run=True)

    assert in_memory.everything() == before
    [removed] = collect(in_memory.store)
    assert (found.blobs, found.versions) == (removed.blobs, removed.versions)


def test_an_import_staged_before_the_horizon_still_commits(books: Books):
    books.replace()
    entry = staged(books.store, books.id, 1_000, books.folder)
    garbage = find_garbage(books.catalog.readers.heads, books.id, keep_s=0, clock=lambda: time.time() + 0.002)
    assert garbage is not None
    marked = mark(Catalog(books.store), garbage)

    books.catalog.append(books.id, [entry], job_id="import")
    sweep(Heads(books.store), marked)

    assert books.is_whole()
    assert books.blobs() == books.named()


def test_what_is_staged_under_a_hold_is_there_hours_later(in_memory: Books):
    store = in_memory.store
    in_memory.replace()
    with hold(store, in_memory.id) as renew:
        renew()
        entry = staged(store, in_memory.id, 1_000, in_memory.folder)
        collect(store, clock=lambda: time.time() + HOLD_S - 1)
        assert {blob.key for blob in entry.blobs()} <= in_memory.blobs()
        in_memory.catalog.append(in_memory.id, [entry], job_id="import")
    assert in_memory.is_whole()


def test_the_hold_of_a_killed_import_ends(in_memory: Books):
    store = in_memory.store
    killed = hold(store, in_memory.id)
    killed.__enter__()()
    staged(store, in_memory.id, 1_000, in_memory.folder)

    collect(store, clock=lambda: time.time() + HOLD_S + 1)

    assert not any("/hold/" in key for key in in_memory.everything())
    assert in_memory.blobs() == in_memory.named()


def test_what_is_committed_between_the_look_and_the_mark_stays(in_memory: Books):
    in_memory.replace()
    entry = staged(in_memory.store, in_memory.id, 1_000, in_memory.folder)
    heads = Heads(in_memory.store)
    garbage = find_garbage(heads, in_memory.id, keep_s=0, clock=lambda: time.time() + 0.002)
    assert garbage is not None
    in_memory.catalog.append(in_memory.id, [entry], job_id="import")

    sweep(heads, mark(in_memory.catalog, garbage))

    assert {blob.key for blob in entry.blobs()} < in_memory.named()
    assert in_memory.is_whole()


def test_rows_that_a_commit_staged_before_the_horizon_are_staged_anew(in_memory: Books):
    store = in_memory.store

    class Overtaken:
        """Lets another writer and a collector pass before the first manifest is put."""

        is_overtaken = False

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def put_if_absent(self, key: str, data: Buffer) -> bool:
            if not self.is_overtaken:
                self.is_overtaken = True
                in_memory.replace()
                collect(store)
            return store.put_if_absent(key, data)

    rows = GivenRows(ids=[1, 2], vectors=np.zeros((2, 4), np.float32), scalars={})
    [outcome] = Catalog(Overtaken()).write("books", [Write(job_id="upsert", intent=intents.upsert(rows))])

    assert outcome.counts == {"inserted": 2, "replaced": 0}
    assert in_memory.is_whole()
    [entry] = Catalog(store).snapshot("books").segments
    assert min(blob.staged for blob in entry.blobs()) >= Catalog(store).snapshot("books").manifest.horizon


def test_a_reader_of_an_older_version_reads_the_new_head(books: Books):
    reader = Catalog(books.store)
    books.add()
    old = reader.snapshot("books")
    for _ in range(3):
        books.replace()
    collect(books.store)

    with pytest.raises(VersionExpired):
        reader._heads.manifest(books.id, old.manifest.version)
    assert {entry.id for entry in reader.snapshot("books").segments} == {entry.id for entry in old.segments}


def test_a_job_is_found_in_the_newer_ledger_when_the_older_is_removed_meanwhile(
    in_memory: Books, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ledger, "MAX_RECENT_JOBS", 2)
    store, catalog = in_memory.store, in_memory.catalog
    first = catalog.create_partition("books", "p0", job_id="p0")
    for number in range(1, 6):
        catalog.create_partition("books", f"p{number}", job_id=f"p{number}")
    older = {old.blob.key for old in catalog.snapshot("books").manifest.ledger.older}
    overtaken_at: list[str] = []

    class Overtaken:
        """Lets other writers and a collector pass when a part of the ledger is read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def get(self, key: str, *arguments: Any, **options: Any) -> Buffer:
            if key in older and not overtaken_at:
                overtaken_at.append(key)
                for number in range(6, 12):
                    catalog.create_partition("books", f"p{number}", job_id=f"p{number}")
                collect(store)
            return store.get(key, *arguments, **options)

    assert Catalog(Overtaken()).create_partition("books", "p0", job_id="p0") == first
    assert not store.exists(overtaken_at[0])


def test_of_a_dropped_collection_only_what_answers_late_jobs_stays(books: Books):
    for _ in range(3):
        books.add()
    late = Catalog(books.store)
    late.snapshot("books")
    with claimed(books.store, books.id, "_default", owner="killed"):
        key = claim_key(books.id, "_default")
        claim = bytes(books.store.get(key))
    books.store.put(key, claim)
    dropped = books.catalog.drop("books", job_id="drop")
    collect(books.store, keep_s=3_600)
    assert books.blobs()

    collect(books.store)

    assert books.everything() == {f"{books.id}/floor/{1:020d}", f"{books.id}/m/{dropped.version:020d}"}
    with pytest.raises(CollectionNotFound, match="was dropped"):
        late.append(books.id, [staged(books.store, books.id, 1_000, books.folder)], job_id="late")
    assert Catalog(books.store).create("books", SCHEMA, job_id="create books").version == 1
    with pytest.raises(CollectionNotFound):
        Catalog(books.store).snapshot("books")
    Catalog(books.store).create("books", SCHEMA, job_id="create anew")
    collect(books.store)
    assert books.blobs() == set()  # the late writer's
    assert Catalog(books.store).snapshot("books").manifest.collection_id != books.id


def test_names_work_when_the_versions_that_their_jobs_made_are_gone(in_memory: Books):
    store, catalog = in_memory.store, in_memory.catalog
    catalog.rename("books", "tomes", job_id="rename")
    for number in range(3):
        catalog.create_partition("tomes", f"p{number}", job_id=f"p{number}")
    collect(store)

    assert Catalog(store).create("books", SCHEMA, job_id="create books").version == 1
    with pytest.raises(CollectionNotFound):
        Catalog(store).snapshot("books")
    Catalog(store).create("books", SCHEMA, job_id="create anew")
    Catalog(store).drop("tomes", job_id="drop")
    assert Catalog(store).list() == ["books"]


def test_a_collection_that_cannot_be_read_is_left_alone_and_named(in_memory: Books, tmp_path: Path):
    in_memory.replace()
    in_memory.add()
    page = in_memory.catalog.snapshot("books").manifest.pages[0]
    other = Books(in_memory.store, tmp_path / "other", "films")
    in_memory.store.delete(page.blob.key)
    before = in_memory.everything()
    problems: list[str] = []

    removed = collect(in_memory.store, on_problem=lambda collection_id, _error: problems.append(collection_id))

    assert in_memory.everything() == before
    assert problems == [in_memory.id]
    assert [garbage.head.collection_id for garbage in removed] == [other.id]


def test_a_floor_is_never_lowered_by_collectors_at_the_same_time(store: BlobStore):
    floors = list(range(1, 41))
    random.Random(1).shuffle(floors)
    lowest: list[int] = []

    def raise_and_look(version: int) -> None:
        heads = Heads(store)
        heads.raise_floor("0" * 8, version)
        lowest.append(Heads(store).floor("0" * 8) - version)

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(raise_and_look, floors))

    assert min(lowest) >= 0
    assert Heads(store).floor("0" * 8) == 40


def test_a_collector_whose_mark_another_one_has_removed_leaves_the_blobs_alone(in_memory: Books):
    store = in_memory.store

    class Overtaken:
        """Lets another collector pass when the mark was put."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def put_if_absent(self, key: str, data: Buffer) -> bool:
            is_put = store.put_if_absent(key, data)
            in_memory.replace()
            collect(store)
            return is_put

    slow = Catalog(Overtaken())
    in_memory.replace()
    entry = staged(store, in_memory.id, 1_000, in_memory.folder)
    garbage = find_garbage(slow.readers.heads, in_memory.id, keep_s=0, clock=lambda: time.time() + 0.002)
    assert garbage is not None
    in_memory.catalog.append(in_memory.id, [entry], job_id="import")

    sweep(slow.readers.heads, mark(slow, garbage))

    assert {blob.key for blob in entry.blobs()} < in_memory.named()
    assert in_memory.is_whole()


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """A store that ends its process at the n-th call."""

    def __init__(self, store: BlobStore, calls: int) -> None:
        self._store, self._left = store, calls

    def __getattr__(self, name: str) -> Any:
        operation: Callable[..., Any] = getattr(self._store, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise Killed
            return operation(*arguments, **options)

        return call


def test_a_collector_killed_at_any_call_leaves_every_version_from_the_floor_whole_and_the_next_ends_its_work(
    in_memory: Books,
):
    store = in_memory.store
    for calls in itertools.count():
        in_memory.add()
        in_memory.replace()
        catalog = Catalog(Mortal(store, calls))
        is_killed = True
        with suppress(Killed):
            heads = catalog.readers.heads
            garbage = find_garbage(heads, in_memory.id, keep_s=0, clock=lambda: time.time() + 0.002)
            sweep(heads, mark(catalog, garbage), threads=1)
            is_killed = False
        assert unreadable(store, in_memory.id) == []
        assert in_memory.is_whole()
        collect(store)
        assert in_memory.blobs() == in_memory.named()
        if not is_killed:
            break
    assert calls > 20


def unreadable(store: BlobStore, collection_id: str) -> list[int]:
    """The versions from the floor to the head of which something is missing."""
    heads = Heads(store)
    head = heads.head(collection_id)
    bad = []
    for version in range(max(heads.floor(collection_id), 1), head.version + 1):
        try:
            snapshot = heads.open(heads.manifest(collection_id, version))
        except StoreError:
            bad.append(version)
            continue
        if not all(store.exists(blob.key) for entry in snapshot.segments for blob in entry.blobs()):
            bad.append(version)
    return bad


def test_several_collectors_and_writers_at_the_same_time_lose_nothing(store: BlobStore, tmp_path: Path):
    names = ["a", "b", "c"]
    shelves = [Books(store, tmp_path / name, name) for name in names]
    are_written = [False]

    def write(books: Books) -> None:
        for _ in range(6):
            books.add()
            books.replace()

    def collect_all() -> None:
        while not are_written[0]:
            collect(store, keep_s=random.Random(1).choice([0, 0.01, 0.1]))

    with ThreadPoolExecutor(5) as executor:
        collectors = [executor.submit(collect_all) for _ in range(2)]
        writers = [executor.submit(write, books) for books in shelves]
        try:
            for writer in writers:
                writer.result()
        finally:
            are_written[0] = True
        for collector in collectors:
            collector.result()
    collect(store)

    for books in shelves:
        assert len(Catalog(store).snapshot(books.name).segments) == 6
        assert books.is_whole()
        assert books.blobs() == books.named()
