"""The nine questions of the page that nearmq began with, as far as a measurement answers them: for docs/faq.md.

Small sizes, each question by itself, an embedded worker where no broker is needed. Other parts answer the rest: recall
by setting (`indexes`), batches on threads (`batches`), first searches (`cold_start`).
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from ulid import ULID

from benchmarks import data
from benchmarks.data import LIMIT, Data
from benchmarks.findings import Findings, Table, figure
from benchmarks.load import with_futures
from benchmarks.measuring import Samples, in_turns, timed
from benchmarks.process_memory import anonymous_bytes
from benchmarks.stage import Stage, embedded, schema_of, wait_for_workers, worker
from nearmq import Collection, connect
from nearmq.amqp import apply_topology
from nearmq.topology import declarations
from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.compaction import CompactionLimits, Workplace, compact_all
from tests.world import delete, fill

_PREFIX = "bench-questions"
#: Rows of a partition, and of what has to be larger than the smallest budget, as shares of the scale's.
_SHARE, _LARGE_SHARE = 20, 5
#: What a worker may be given at least.
_LEAST_BUDGET = 16 << 20
_ROUNDS = 5
_SEARCHES = 100


def run(stage: Stage) -> Findings:
    """Measure."""
    rows, more_rows = (data.synth(stage.scale.rows // share) for share in (_SHARE, _LARGE_SHARE))
    return Findings(
        tables=[
            _inserting_while_searching(stage, rows),
            _size_and_partition(stage, rows),
            _segments_in_parallel(stage, rows),
            _memory_smaller_than_data(stage, more_rows),
            _unindexed_rows(stage, rows),
            _memory_when_replaced(stage, more_rows),
        ]
    )


def _inserting_while_searching(stage: Stage, rows: Data) -> Table:
    """Search a collection alone, and while another thread upserts into it and looks for what it wrote."""
    name = _filled(stage, rows, "HNSW", {"_default": 1})
    missing = written = 0
    with embedded(stage) as client:
        books = client.collection(name)
        books.load()
        alone = _p50_ms(books, rows)
        stopped = threading.Event()

        def upsert() -> None:
            nonlocal missing, written
            while not stopped.is_set():
                ids = np.arange(10_000_000 + written, 10_000_000 + written + 100)
                vectors = rows.rows[:100] + np.float32(100 + written)
                version = books.upsert(ids, vectors).version
                found = books.search(vectors[:1], limit=1, min_version=version)
                missing += found[0].ids.tolist() != ids[:1].tolist()
                written += len(ids)

        writer = threading.Thread(target=upsert)
        writer.start()
        with timed() as timer:
            beside = _p50_ms(books, rows)
        stopped.set()
        writer.join()
    return Table(
        name="inserting",
        title=f"One-query searches of {rows.name}, embedded",
        columns=["", ""],
        rows=[
            ["p50 ms, nobody writes", figure(alone)],
            [f"p50 ms beside upserts of 100 rows, {figure(written / timer.seconds)} rows a second", figure(beside)],
            ["searches for a row just written that missed it", f"{missing} of {written // 100}"],
        ],
    )


def _size_and_partition(stage: Stage, rows: Data) -> Table:
    """Search one partition of collections that have more and more other rows, and load it, and all."""
    lines = []
    for others in (0, 4, 16):
        name = _filled(stage, rows, "IVF_FLAT", {"wanted": 1, **{f"other{number}": 1 for number in range(others)}})
        with embedded(stage) as client:
            books = client.collection(name)
            of_one, of_all = (_loaded_mb(books, names) for names in (["wanted"], None))
            books.release()
            p50 = _p50_ms(books, rows, partition_names=["wanted"])
        total = (1 + others) * len(rows.rows)
        lines.append([f"{total:,}", figure(p50), figure(of_one), figure(of_all)])
    return Table(
        name="partitions",
        title=f"A partition of {len(rows.rows):,} x {rows.dim} rows, IVF_FLAT, in collections of several",
        columns=["rows of the collection", "p50 ms in the partition", "MB it loads", "MB of all"],
        rows=lines,
    )


def _segments_in_parallel(stage: Stage, rows: Data) -> Table:
    """Search four segments, and 1,000 queries, on one compute thread and on two."""
    name = _filled(stage, rows, "FLAT", {"_default": 4})
    queries = rows.queries
    with embedded(stage, threads=1) as one, embedded(stage, threads=2) as two:
        runs: dict[str, Callable[[], dict[str, float]]] = {}
        for threads, client in (("1", one), ("2", two)):
            books = client.collection(name)
            books.load()
            runs[threads] = _both(books, queries)
        samples = in_turns(_ROUNDS, runs)
    return Table(
        name="parallel",
        title=f"{rows.name} in 4 segments, FLAT, ms a job",
        columns=["queries of the job", "one compute thread", "two"],
        rows=[[size, *(figure(samples.median(threads, size)) for threads in ("1", "2"))] for size in ("1", "1,000")],
    )


def _both(books: Collection, queries: np.ndarray) -> Callable[[], dict[str, float]]:
    def measured() -> dict[str, float]:
        took = {}
        for size, times in ((1, 20), (1_000, 1)):
            with timed() as timer:
                for _ in range(times):
                    books.search(queries[:size], limit=LIMIT)
            took[f"{size:,}"] = timer.seconds * 1_000 / times
        return took

    return measured


def _memory_smaller_than_data(stage: Stage, rows: Data) -> Table:
    """Search eight segments with a budget for all of them, and for half."""
    name = _filled(stage, rows, "HNSW", {"_default": 8})
    size = _loaded_bytes(stage, name)
    samples = Samples()
    for label, budget in (("for all", 2 * size), ("for half", size // 2)):
        with embedded(stage, memory_bytes=max(budget, _LEAST_BUDGET)) as client:
            books = client.collection(name)
            books.search(rows.queries[:1], limit=LIMIT)
            samples.add(label, {"p50 ms": _p50_ms(books, rows, searches=20)})
    return Table(
        name="budget",
        title=f"One-query searches of {rows.name} in 8 segments, HNSW, {size / 1e6:.0f} MB",
        columns=["memory budget", "p50 ms"],
        rows=[[label, figure(samples.median(label, "p50 ms"))] for label in ("for all", "for half")],
    )


def _unindexed_rows(stage: Stage, rows: Data) -> Table:
    """Search rows through an index, and exactly, as rows are searched that were written just now."""
    lines = []
    for kind, label in (("HNSW", "with an HNSW index"), ("FLAT", "without an index")):
        name = _filled(stage, rows, kind, {"_default": 1})
        with embedded(stage) as client:
            books = client.collection(name)
            books.load()
            lines.append([label, figure(_p50_ms(books, rows))])
    return Table(
        name="unindexed",
        title=f"One-query searches of {rows.name}, embedded",
        columns=["", "p50 ms"],
        rows=lines,
    )


def _memory_when_replaced(stage: Stage, rows: Data) -> Table:
    """Watch a worker's memory when a compacted segment comes in the place of the one it has loaded."""
    lines = []
    apply_topology(stage.broker_url, declarations(_PREFIX))
    for label, times in (("for both", 4.0), ("for one", 1.5)):
        name = _filled(stage, rows, "HNSW", {"_default": 1})
        store = open_store(stage.store_url)
        budget = max(_LEAST_BUDGET, round(times * _loaded_bytes(stage, name))) >> 20
        options = ("--prefix", _PREFIX, "--memory", f"{budget}MiB")
        with (
            worker(stage.broker_url, stage.store_url, *options) as process,
            connect(stage.broker_url, prefix=_PREFIX, timeout_s=120) as client,
        ):
            wait_for_workers(client, 1)
            books = client.collection(name)
            _search_for_a_while(books, rows)
            before = anonymous_bytes(process.pid)
            delete(store, name, list(range(len(rows.rows) // 4)))
            _compact(stage, store, name)
            with _peak_of(process.pid) as peak:
                _search_for_a_while(books, rows)
            after = anonymous_bytes(process.pid)
        lines.append([label, *(figure(value / 1e6) for value in (before, peak[0], after))])
    return Table(
        name="replaced",
        title=f"A worker's anonymous MB when compaction replaces its one segment; {rows.name}, HNSW",
        columns=["memory budget", "before", "at the peak", "after"],
        rows=lines,
    )


def _compact(stage: Stage, store: BlobStore, name: str) -> None:
    done = compact_all(
        Catalog(store),
        name,
        CompactionLimits(),
        Workplace(folder=stage.folder, threads=2),
        job_id=str(ULID()),
        force=True,
    )
    assert done.dropped, "nothing was compacted"


@contextmanager
def _peak_of(pid: int) -> Iterator[list[int]]:
    """Watch the anonymous memory of a process; the list holds the most that was seen."""
    peak = [0]
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stopped.set()
        watcher.join()


def _search_for_a_while(books: Collection, rows: Data) -> None:
    queries = rows.queries
    with_futures(lambda number: books.submit(queries[number % len(queries)], limit=LIMIT), 4, 1)


def _filled(stage: Stage, rows: Data, kind: str, partitions: dict[str, int]) -> str:
    """Make a collection with all rows in each partition, in so many segments."""
    store = open_store(stage.store_url)
    name = f"question-{ULID()}"
    Catalog(store).create(name, schema_of(rows, kind, None, with_scalars=False), job_id=str(ULID()))
    for number, (partition, segments) in enumerate(partitions.items()):
        ids = np.arange(len(rows.rows)) + number * len(rows.rows)
        fill(store, name, ids.tolist(), rows.rows, partition=partition, segments=segments)
    return name


def _loaded_bytes(stage: Stage, name: str) -> int:
    with embedded(stage) as client:
        return round(_loaded_mb(client.collection(name), None) * 1e6)


def _loaded_mb(books: Collection, partition_names: list[str] | None) -> float:
    loaded = books.load(partition_names)
    return sum(found["bytes"] for found in loaded["workers"].values()) / 1e6


def _p50_ms(books: Collection, rows: Data, *, searches: int = _SEARCHES, **options: object) -> float:
    took = []
    for number in range(searches + 5):
        query = rows.queries[number : number + 1]
        began = time.perf_counter()
        books.search(query, limit=LIMIT, **options)  # type: ignore[arg-type]
        took.append(time.perf_counter() - began)
    return statistics.median(took[5:]) * 1_000
