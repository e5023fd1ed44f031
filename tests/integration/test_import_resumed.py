"""Imports with a job id: killed anywhere, they go on, build nothing twice, and add each row once."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from ulid import ULID

from nearmq_index_store import intents
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.draft import Draft
from nearmq_index_store.errors import AlreadyExists, InvalidArgument
from nearmq_index_store.gc import find_garbage, mark, sweep
from nearmq_index_store.holds import holds_prefix
from nearmq_index_store.importing import Imported, ImportOptions, Progress, import_rows, import_table
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_index_store.sources import open_source
from nearmq_index_store.verifying import verify

DIM = 16
ROWS = 2_400
SEGMENT_ROWS = 200
SCHEMA = Schema(
    primary_key="int64",
    vector_fields=(VectorField(name="vector", dim=DIM, metric="L2", index=IndexSpec(kind="HNSW")),),
)


COMMAND = "import sys; from nearmq.cli import run; sys.exit(run(sys.argv[1:]))"

#: Ends itself right before, or right after, it puts the manifest.
KILLED_AT_THE_COMMIT = """
import os, signal, sys
from nearmq_index_store.blobs.object_store import FolderStore
from nearmq.cli import run

put_if_absent = FolderStore.put_if_absent

def deadly(self, key, data):
    if "/m/" not in key:
        return put_if_absent(self, key, data)
    if {after}:
        put_if_absent(self, key, data)
    os.kill(os.getpid(), signal.SIGKILL)

FolderStore.put_if_absent = deadly
sys.exit(run(sys.argv[1:]))
"""


class Interrupted(BaseException):
    """Ctrl-C, at a moment of the test's choice."""


class Books:
    """The collection `books`, and the import of `x.npy` into it as the job `nightly`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file:{folder / 'store'}"
        self.catalog = Catalog(open_store(self.url))
        self.catalog.create("books", SCHEMA, job_id="create")
        self.id = self.catalog.snapshot("books").manifest.collection_id
        self.write_source()

    def write_source(self, seed: int = 1) -> None:
        np.save(self.folder / "x.npy", np.random.default_rng(seed).standard_normal((ROWS, DIM), dtype=np.float32))

    def run(self, on_progress: Any = lambda _: None, **options: Any) -> Imported:
        given = {"job_id": "nightly", "segment_bytes": SEGMENT_ROWS * 4 * DIM, "folder": self.folder / "work"}
        return import_rows(
            Catalog(open_store(self.url)),
            "books",
            lambda schema: open_source(self.folder / "x.npy", schema),
            ImportOptions(**{**given, **options}),
            on_progress=on_progress,
        )

    def interrupted(self, segments: int, **options: Any) -> None:
        """Run until so many segments are stored."""

        def interrupt(progress: Progress) -> None:
            if progress.stage == "reading" and progress.rows >= segments * SEGMENT_ROWS:
                raise Interrupted

        with pytest.raises(Interrupted):
            self.run(interrupt, **options)

    def command(self, program: str = COMMAND) -> subprocess.Popen[bytes]:
        arguments = ["import", "books", str(self.folder / "x.npy"), "--job-id", "nightly", "--json"]
        size = ["--segment-size", str(SEGMENT_ROWS * 4 * DIM), "--workdir", str(self.folder / "work")]
        return subprocess.Popen(
            [sys.executable, "-c", program, "store", *arguments, *size, "--store", self.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finished(self) -> dict[str, Any]:
        child = self.command()
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        return json.loads(output)

    def states(self) -> list[str]:
        return [key for key in self.catalog.store.list(f"{self.id}/imports/") if not key.endswith("/job")]

    def kept_segments(self) -> set[str]:
        found = (bytes(self.catalog.store.get(key)).partition(b"\n")[0] for key in self.states())
        return {json.loads(state)["entry"]["id"] for state in found}

    def blobs(self) -> int:
        """Blobs beside manifests and pages' own: three a segment (rows, keys, index), one a page."""
        return sum(1 for key in self.catalog.store.list(f"{self.id}/") if "/m/" not in key)

    def collect(self, *, hours: float) -> None:
        """Collect garbage as it would be so many hours from now."""
        garbage = find_garbage(
            self.catalog.readers.heads, self.id, keep_s=60, clock=lambda: time.time() + 3_600 * hours
        )
        sweep(self.catalog.readers.heads, mark(self.catalog, garbage))

    def assert_whole(self) -> None:
        snapshot = Catalog(self.catalog.store).snapshot("books")
        assert sum(entry.live_rows for entry in snapshot.segments) == ROWS
        assert list(verify(self.catalog, "books")) == []
        assert list(self.catalog.store.list(f"{self.id}/imports/")) == []
        assert list(self.catalog.store.list(holds_prefix(self.id))) == []


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(tmp_path)


def test_an_import_killed_in_the_middle_goes_on_and_builds_no_stored_segment_again(books: Books):
    kept: set[str] = set()
    for segments in (2, 6):
        child = books.command()
        while len(books.states()) < segments and child.poll() is None:
            time.sleep(0.001)
        child.kill()
        child.communicate()
        assert kept < books.kept_segments()
        assert books.catalog.snapshot("books").segments == ()
        kept = books.kept_segments()

    summary = books.finished()

    assert summary["segments"] == ROWS // SEGMENT_ROWS
    assert summary["kept_segments"] == len(kept) >= 6
    assert kept <= {entry.id for entry in books.catalog.snapshot("books").segments}
    books.assert_whole()


@pytest.mark.parametrize("after", [False, True])
def test_an_import_killed_at_its_commit_adds_each_row_once(books: Books, *, after: bool):
    child = books.command(KILLED_AT_THE_COMMIT.format(after=after))
    child.communicate()

    assert child.returncode == -signal.SIGKILL
    assert len(books.states()) == ROWS // SEGMENT_ROWS
    summary = books.finished()
    assert (summary["is_repeat"], summary["rows"], summary["version"]) == (after, ROWS, 2)
    assert summary["kept_segments"] == (0 if after else ROWS // SEGMENT_ROWS)
    assert books.catalog.snapshot("books").manifest.version == 2
    books.assert_whole()


def test_a_finished_import_is_done_for_good(books: Books):
    first = books.run()
    books.catalog.write("books", [Write(job_id="delete", intent=intents.delete(range(ROWS)))])

    again = books.run()

    assert (again.is_repeat, again.version, again.rows, again.segments) == (True, first.version, ROWS, ())
    assert sum(entry.live_rows for entry in books.catalog.snapshot("books").segments) == 0
    other = books.run(job_id="weekly")
    assert not other.is_repeat
    books.assert_whole()


def test_an_import_that_began_otherwise_is_refused_by_what_differs(books: Books):
    books.interrupted(4)
    for options, message in (
        ({"segment_bytes": 999}, "import 'nightly' began with segment size 12800, got 999: expected the same again"),
        ({"partition": "2024", "create_partition": True}, "began with partition _default, got 2024"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            books.run(**options)
    books.write_source(seed=2)
    with pytest.raises(InvalidArgument, match=r"began with source .* bytes, modified .*, got .* bytes, modified"):
        books.run()
    assert len(books.states()) == 4

    assert books.run(job_id="other").kept == 0


def test_segments_that_were_collected_meanwhile_are_built_again(books: Books):
    books.interrupted(6)
    store = books.catalog.store
    entries = [json.loads(bytes(store.get(key)).partition(b"\n")[0])["entry"] for key in books.states()]
    store.delete(entries[0]["rows_blob"]["key"])
    store.delete(entries[1]["indexes"]["vector"]["blob"]["key"])

    assert books.run().kept == 4

    books.assert_whole()


def test_segments_older_than_the_horizon_are_put_again_not_built_again(books: Books):
    books.interrupted(6)
    horizon = str(ULID())

    def collect(draft: Draft) -> dict[str, int]:
        draft.manifest = msgspec.structs.replace(draft.manifest, horizon=horizon)
        return {}

    books.catalog.commit(books.id, collect, job_id="collect")

    assert books.run().kept == 6

    segments = books.catalog.snapshot("books").segments
    assert all(blob.staged >= horizon for entry in segments for blob in entry.blobs())
    books.assert_whole()


def test_garbage_collection_leaves_an_unfinished_job_alone_until_its_hold_ends(books: Books):
    books.interrupted(6)
    before = books.blobs()

    books.collect(hours=5)
    assert books.blobs() == before
    books.collect(hours=7)
    assert books.blobs() == 0

    assert books.run().kept == 0
    books.assert_whole()


def test_what_an_import_without_a_job_id_stored_is_removed_when_it_is_interrupted(books: Books):
    books.interrupted(4, job_id=None)
    assert books.blobs() == 0

    books.interrupted(4)
    assert books.blobs() == 4 * 4 + 2  # a state each, what it began with, and the hold


def test_a_bad_row_ends_the_job_and_removes_what_it_stored(books: Books):
    table = pa.table({"id": [1, 2, 3], "vector": [[0.0] * DIM, [0.0] * DIM, [float("nan")] * DIM]})
    options = ImportOptions(segment_bytes=1, folder=books.folder / "work", job_id="nightly")

    with pytest.raises(InvalidArgument, match="row 2"):
        import_table(books.catalog, "books", table, options)

    assert books.blobs() == 0


def test_a_refusal_at_the_commit_is_given_again(books: Books):
    def overtake(progress: Progress) -> None:
        if progress.stage == "committing":
            books.run(job_id="faster")

    for version in (3, 3):
        with pytest.raises(AlreadyExists, match="row 0: field 'id'"):
            books.run(overtake)
        assert books.catalog.snapshot("books").manifest.version == version
    books.assert_whole()


def test_two_runs_of_one_job_at_once_add_each_row_once(books: Books):
    done: list[Imported] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        done.append(books.run())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [imported.version for imported in done] == [2, 2]
    books.assert_whole()


def test_a_table_in_memory_is_the_same_source_when_it_holds_the_same(books: Books):
    vectors = np.load(books.folder / "x.npy")[:5]
    table = pa.table({"id": range(5), "vector": vectors.tolist()})
    options = ImportOptions(folder=books.folder / "work", job_id="nightly")

    assert not import_table(books.catalog, "books", table, options).is_repeat
    assert import_table(books.catalog, "books", table, options).is_repeat
    with pytest.raises(AlreadyExists):
        import_table(books.catalog, "books", table.slice(1), options)
