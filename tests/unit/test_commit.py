"""The commit protocol and the names: each job takes effect once, whatever fails and whoever races."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from ulid import ULID

from nearmq_index_store.blobs import BlobStore, Buffer, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Outcome
from nearmq_index_store.digest import put_blob, read_blob
from nearmq_index_store.draft import Draft
from nearmq_index_store.errors import (
    AlreadyExists,
    CollectionNotFound,
    IndexCorrupt,
    InvalidArgument,
    PartitionNotFound,
    StoreError,
    StoreUnavailable,
)
from nearmq_index_store.head import Heads
from nearmq_index_store.intents import Counts
from nearmq_index_store.manifest import KeysEntry, Manifest, SegmentEntry, manifest_key
from nearmq_index_store.schema import IndexSpec, Schema, VectorField

FIELD = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="FLAT"))
SCHEMA = Schema(vector_fields=(FIELD,))


class Faults:
    """A store before another that fails one chosen call, before it took effect or after."""

    def __init__(self, store: BlobStore, *, failing_call: int, is_after: bool, error: type[BaseException]) -> None:
        self._store = store
        self._failing_call = failing_call
        self._is_after = is_after
        self._error = error
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self._store, name)
        if not callable(operation):
            return operation

        def call(*arguments: Any, **options: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            if number == self._failing_call and not self._is_after:
                raise self._error(f"call {number}, {name}, failed before it took effect")
            result = operation(*arguments, **options)
            if number == self._failing_call:
                raise self._error(f"call {number}, {name}, failed after it took effect")
            return result

        return call


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def store() -> BlobStore:
    return open_store("memory:")


@pytest.fixture
def catalog(store: BlobStore) -> Catalog:
    return Catalog(store)


def segment(store: BlobStore, collection_id: str, number: int) -> SegmentEntry:
    blob = put_blob(store, collection_id, b"%d" % number)
    keys = KeysEntry(blob=blob, min=number, max=number)
    return SegmentEntry(id=f"{number:026d}", partition="_default", rows=1, rows_blob=blob, keys=keys, indexes={})


def answer(action: Callable[[], Outcome]) -> object:
    """What a client sees of a job: its version, or its error."""
    try:
        outcome = action()
    except StoreUnavailable:
        raise
    except StoreError as error:
        return type(error), error.message
    return outcome.collection_id, outcome.version


def test_racing_writers_apply_each_commit_once_and_leave_no_gap(store: BlobStore):
    writers, commits = 8, 20
    collection_id = Catalog(store).create("books", SCHEMA, job_id="create").collection_id
    start = threading.Barrier(writers)

    def write(writer: int) -> list[int]:
        catalog = Catalog(store)
        start.wait()
        numbers = range(writer * commits, (writer + 1) * commits)
        return [
            catalog.append(collection_id, [segment(store, collection_id, number)], job_id=f"job {number}").version
            for number in numbers
        ]

    with ThreadPoolExecutor(writers) as executor:
        versions = list(executor.map(write, range(writers)))

    snapshot = Catalog(store).snapshot("books")
    assert sorted(itertools.chain(*versions)) == list(range(2, 2 + writers * commits))
    assert all(mine == sorted(mine) for mine in versions)
    assert sorted(int(entry.id) for entry in snapshot.segments) == list(range(writers * commits))


def test_two_workers_with_the_same_jobs_apply_each_once(store: BlobStore):
    Catalog(store).create("books", SCHEMA, job_id="create")
    start = threading.Barrier(4)

    def write(_worker: int) -> list[object]:
        catalog = Catalog(store)
        start.wait()
        return [
            *(answer(lambda n=n: catalog.create_partition("books", f"p{n}", job_id=f"job {n}")) for n in range(10)),
            answer(lambda: catalog.create("pens", SCHEMA, job_id="pens")),
            answer(lambda: catalog.rename("pens", "inks", job_id="inks")),
            answer(lambda: catalog.drop("inks", job_id="drop")),
        ]

    with ThreadPoolExecutor(4) as executor:
        answers = list(executor.map(write, range(4)))

    assert answers.count(answers[0]) == 4
    assert Catalog(store).snapshot("books").manifest.version == 11
    assert Catalog(store).list() == ["books"]


def test_racing_creators_of_one_name_make_one_collection(store: BlobStore):
    start = threading.Barrier(8)

    def create(worker: int) -> object:
        start.wait()
        return answer(lambda: Catalog(store).create("books", SCHEMA, job_id=f"create {worker}"))

    with ThreadPoolExecutor(8) as executor:
        answers = list(executor.map(create, range(8)))

    assert sum(version == 1 for _, version in answers) == 1
    assert sum(kind is AlreadyExists for kind, _ in answers) == 7


#: One job of each kind, on what `furnish` made: pens with a partition, and inks, which was cups once.
JOBS: dict[str, Callable[[Catalog], Manifest]] = {
    "create": lambda catalog: catalog.create("books", SCHEMA, job_id="job"),
    "create what is there": lambda catalog: catalog.create("pens", SCHEMA, job_id="job"),
    "create under a former name": lambda catalog: catalog.create("cups", SCHEMA, job_id="job"),
    "rename": lambda catalog: catalog.rename("pens", "books", job_id="job"),
    "rename back": lambda catalog: catalog.rename("inks", "cups", job_id="job"),
    "drop": lambda catalog: catalog.drop("pens", job_id="job"),
    "drop under the new name": lambda catalog: catalog.drop("inks", job_id="job"),
    "create a partition": lambda catalog: catalog.create_partition("pens", "new", job_id="job"),
    "create a partition that is there": lambda catalog: catalog.create_partition("pens", "2024", job_id="job"),
    "drop a partition": lambda catalog: catalog.drop_partition("pens", "2024", job_id="job"),
}


def furnish(store: BlobStore) -> None:
    catalog = Catalog(store)
    catalog.create("pens", SCHEMA, job_id="pens")
    catalog.create_partition("pens", "2024", job_id="2024")
    catalog.create("cups", SCHEMA, job_id="cups")
    catalog.rename("cups", "inks", job_id="inks")


def state(store: BlobStore) -> list[tuple[str, tuple[str, ...]]]:
    """All collections with their partitions, as a process sees them that starts now."""
    catalog = Catalog(store)
    return [(name, catalog.snapshot(name).manifest.partitions) for name in catalog.list()]


def interrupted(job: Callable[[Catalog], Manifest], error: type[BaseException]) -> Iterator[BlobStore]:
    """Furnished stores on which the job was interrupted at its n-th call, before or after the effect, for each n."""
    for is_after in (False, True):
        for number in itertools.count():
            store = open_store("memory:")
            furnish(store)
            faults = Faults(store, failing_call=number, is_after=is_after, error=error)
            with suppress(error, StoreError):
                job(Catalog(faults))
            if faults.calls <= number:
                break
            yield store


@pytest.mark.parametrize("error", [StoreUnavailable, Killed])
@pytest.mark.parametrize("name", JOBS)
def test_a_job_interrupted_at_any_call_and_redelivered_takes_effect_once(name: str, error: type[BaseException]):
    job = JOBS[name]
    clean = open_store("memory:")
    furnish(clean)
    _, expected = answer(lambda: job(Catalog(clean)))
    for store in interrupted(job, error):
        first = answer(lambda store=store: job(Catalog(store)))
        again = answer(lambda store=store: job(Catalog(store)))

        assert first == again
        assert first[1] == expected
        assert state(store) == state(clean)


@pytest.mark.parametrize("name", JOBS)
def test_a_process_killed_at_any_step_leaves_no_name_stuck(name: str):
    job = JOBS[name]
    for store in interrupted(job, Killed):
        catalog = Catalog(store)
        for word in ("pens", "books", "cups", "inks"):
            with suppress(CollectionNotFound):
                catalog.drop(word, job_id=f"drop {word}")
            catalog.create(word, SCHEMA, job_id=f"anew {word}")
        assert [name for name, _ in state(store)] == ["books", "cups", "inks", "pens"]

        first, after_first = answer(lambda store=store: job(Catalog(store))), state(store)
        assert answer(lambda store=store: job(Catalog(store))) == first
        assert state(store) == after_first


def test_a_reader_sees_a_collection_under_one_name_at_every_step_of_a_rename():
    for store in interrupted(JOBS["rename"], Killed):
        catalog = Catalog(store)
        names = catalog.list()

        assert names in (["inks", "pens"], ["books", "inks"])
        for name in ("pens", "books"):
            if name in names:
                assert catalog.snapshot(name).manifest.name == name
            else:
                with pytest.raises(CollectionNotFound):
                    catalog.snapshot(name)


def test_a_redelivered_drop_does_not_end_the_namesake_made_since(store: BlobStore, catalog: Catalog):
    catalog.create("books", SCHEMA, job_id="create")
    dropped = catalog.drop("books", job_id="drop")
    anew = catalog.create("books", SCHEMA, job_id="create anew")

    assert Catalog(store).drop("books", job_id="drop") == dropped
    assert Catalog(store).snapshot("books").manifest.collection_id == anew.collection_id


def test_a_redelivered_job_is_not_applied_to_the_namesake_made_since(store: BlobStore, catalog: Catalog):
    catalog.create("books", SCHEMA, job_id="create")
    done = catalog.create_partition("books", "2024", job_id="partition")
    catalog.rename("books", "tomes", job_id="rename")
    catalog.create("books", SCHEMA, job_id="create anew")

    assert Catalog(store).create_partition("books", "2024", job_id="partition") == done
    assert Catalog(store).snapshot("books").manifest.partitions == ("_default",)


def test_a_refused_job_is_refused_again_when_it_would_succeed_now(catalog: Catalog):
    catalog.create("books", SCHEMA, job_id="create")
    catalog.create_partition("books", "2024", job_id="partition")
    with pytest.raises(AlreadyExists) as first:
        catalog.create_partition("books", "2024", job_id="refused")
    catalog.drop_partition("books", "2024", job_id="drop")

    with pytest.raises(AlreadyExists, match="has a partition '2024' already") as again:
        catalog.create_partition("books", "2024", job_id="refused")
    assert (first.value.message, first.value.field) == (again.value.message, again.value.field)


def test_the_dropped_manifest_fences_a_writer_that_started_before_it(store: BlobStore, catalog: Catalog):
    collection_id = catalog.create("books", SCHEMA, job_id="create").collection_id
    late = Catalog(store)
    late.snapshot("books")
    catalog.drop("books", job_id="drop")

    with pytest.raises(CollectionNotFound, match="'books' was dropped"):
        late.append(collection_id, [segment(store, collection_id, 1)], job_id="late")
    with pytest.raises(CollectionNotFound):
        late.snapshot("books")
    assert late.list() == []


def test_a_put_that_lands_after_it_was_given_up_is_taken_in_once(store: BlobStore):
    class Late(Faults):
        """Fails the first put_if_absent, and does it when the same key is tried again."""

        delayed: tuple[str, Buffer] | None = None
        is_done = False

        def put_if_absent(self, key: str, data: Buffer) -> bool:
            if self.delayed is None:
                self.delayed = (key, data)
                raise StoreUnavailable("no answer in time")
            if not self.is_done:
                self.is_done = store.put_if_absent(*self.delayed)
            return store.put_if_absent(key, data)

    created = Catalog(store).create("books", SCHEMA, job_id="create")
    late = Late(store, failing_call=-1, is_after=False, error=StoreUnavailable)

    added = Catalog(late).append(created.collection_id, [segment(store, created.collection_id, 1)], job_id="append")

    assert added.version == 2
    assert Catalog(store).snapshot("books").manifest.version == 2


def test_a_win_under_the_floor_is_a_ghost_and_is_made_again(store: BlobStore):
    created = Catalog(store).create("books", SCHEMA, job_id="create")
    behind = Catalog(store)
    behind.snapshot("books")

    def collect_then_agree(draft: Draft) -> Counts:
        if draft.base.version == 1:  # between head() and the put others commit, and gc removes what they replaced
            ahead = Catalog(store)
            for number in range(4):
                ahead.create_partition("books", f"p{number}", job_id=f"p{number}")
            collect(store, created.collection_id, floor=4)
        return {}

    made = behind.commit(created.collection_id, collect_then_agree, job_id="late")

    assert made.version == 6
    assert Catalog(store).snapshot("books").manifest.partitions == ("_default", "p0", "p1", "p2", "p3")


def test_a_reader_outrun_by_garbage_collection_finds_the_head(store: BlobStore, catalog: Catalog):
    created = catalog.create("books", SCHEMA, job_id="create")
    behind = Catalog(store)
    behind.snapshot("books")
    for number in range(20):
        catalog.create_partition("books", f"p{number}", job_id=f"p{number}")
    collect(store, created.collection_id, floor=15)

    assert behind.snapshot("books").manifest.version == 21
    assert Catalog(store).snapshot("books").manifest.version == 21


def collect(store: BlobStore, collection_id: str, *, floor: int) -> None:
    """What garbage collection will do to manifests."""
    Heads(store).raise_floor(collection_id, floor)
    for version in range(1, floor):
        store.delete(manifest_key(collection_id, version))


def test_own_blobs_staged_before_the_horizon_are_put_again(store: BlobStore, catalog: Catalog):
    collection_id = catalog.create("books", SCHEMA, job_id="create").collection_id
    old = segment(store, collection_id, 1)
    catalog.append(collection_id, [old], job_id="before")

    def raise_horizon(draft: Draft) -> Counts:
        draft.manifest = msgspec.structs.replace(draft.manifest, horizon=str(ULID()))
        return {}

    staged = segment(store, collection_id, 2)
    time.sleep(0.002)  # a ULID counts milliseconds
    catalog.commit(collection_id, raise_horizon, job_id="gc")
    horizon = catalog.snapshot("books").manifest.horizon
    catalog.append(collection_id, [staged], job_id="after")

    kept, again = Catalog(store).snapshot("books").segments
    assert kept == old
    assert all(blob.staged >= horizon for blob in again.blobs())
    assert read_blob(store, again.rows_blob) == b"2"


def test_a_missing_page_is_corrupt(store: BlobStore, catalog: Catalog):
    collection_id = catalog.create("books", SCHEMA, job_id="create").collection_id
    catalog.append(collection_id, [segment(store, collection_id, 1)], job_id="append")
    page = catalog.snapshot("books").manifest.pages[0]
    store.delete(page.blob.key)

    with pytest.raises(IndexCorrupt, match="is missing"):
        Catalog(store).snapshot("books")
    with pytest.raises(IndexCorrupt, match="is missing"):
        Catalog(store).append(collection_id, [segment(store, collection_id, 2)], job_id="append more")


def test_a_reader_whose_page_is_collected_meanwhile_reads_the_new_head(store: BlobStore, catalog: Catalog):
    collection_id = catalog.create("books", SCHEMA, job_id="create").collection_id
    catalog.append(collection_id, [segment(store, collection_id, 1)], job_id="append")
    page = catalog.snapshot("books").manifest.pages[0]

    class Overtaken(Faults):
        def get(self, key: str, *arguments: Any, **options: Any) -> Buffer:
            if key == page.blob.key:
                catalog.append(collection_id, [segment(store, collection_id, 2)], job_id="append more")
                store.delete(key)
            return store.get(key, *arguments, **options)

    reader = Catalog(Overtaken(store, failing_call=-1, is_after=False, error=StoreUnavailable))
    assert len(reader.snapshot("books").segments) == 2


def test_a_collection_with_a_missing_page_can_be_renamed_and_dropped(store: BlobStore, catalog: Catalog):
    collection_id = catalog.create("books", SCHEMA, job_id="create").collection_id
    catalog.append(collection_id, [segment(store, collection_id, 1)], job_id="append")
    page = catalog.snapshot("books").manifest.pages[0]
    store.delete(page.blob.key)

    Catalog(store).rename("books", "tomes", job_id="rename")
    Catalog(store).drop("tomes", job_id="drop")
    assert Catalog(store).list() == []


def test_a_flushed_store_is_unavailable_once_and_then_empty(store: BlobStore, catalog: Catalog):
    catalog.create("books", SCHEMA, job_id="create")
    catalog.snapshot("books")
    for key in [*store.list("names/"), *store.list(f"{catalog.snapshot('books').manifest.collection_id}/")]:
        store.delete(key)

    with pytest.raises(StoreUnavailable, match="is gone"):
        catalog.snapshot("books")
    with pytest.raises(CollectionNotFound):
        catalog.snapshot("books")
    catalog.create("books", SCHEMA, job_id="create anew")
    assert catalog.snapshot("books").manifest.version == 1


def test_each_bad_argument_is_an_error_that_names_it(catalog: Catalog):
    catalog.create("books", SCHEMA, job_id="create")
    catalog.create("pens", SCHEMA, job_id="pens")
    catalog.create_partition("books", "2024", job_id="2024")
    wrong: list[tuple[type[StoreError], str, Callable[[], object]]] = [
        (AlreadyExists, "'books' exists already", lambda: catalog.create("books", SCHEMA, job_id="1")),
        (AlreadyExists, "'books' exists already", lambda: catalog.rename("pens", "books", job_id="2")),
        (CollectionNotFound, "no collection 'boks'", lambda: catalog.rename("boks", "tomes", job_id="3")),
        (CollectionNotFound, "no collection 'boks'", lambda: catalog.drop("boks", job_id="4")),
        (CollectionNotFound, "no collection 'boks'", lambda: catalog.snapshot("boks")),
        (InvalidArgument, "is the old one", lambda: catalog.rename("pens", "pens", job_id="5")),
        (InvalidArgument, "collection name '../pens'", lambda: catalog.create("../pens", SCHEMA, job_id="6")),
        (
            InvalidArgument,
            "1 to 8 vector fields, got 0",
            lambda: catalog.create("x", Schema(vector_fields=()), job_id="7"),
        ),
        (
            InvalidArgument,
            "'vector' is taken",
            lambda: catalog.create("x", Schema(vector_fields=(FIELD, FIELD)), job_id="8"),
        ),
        (InvalidArgument, "must be 1 to 32768, got 0", lambda: catalog.create("x", with_field(dim=0), job_id="9")),
        (
            InvalidArgument,
            "one of L2, IP, COSINE, got 'l2'",
            lambda: catalog.create("x", with_field(metric="l2"), job_id="10"),
        ),
        (
            PartitionNotFound,
            "no partition '2025', did you mean '2024'",
            lambda: catalog.drop_partition("books", "2025", job_id="11"),
        ),
        (InvalidArgument, "cannot be dropped", lambda: catalog.drop_partition("books", "_default", job_id="12")),
    ]
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()


def with_field(**changes: object) -> Schema:
    return Schema(vector_fields=(msgspec.structs.replace(FIELD, **changes),))
