"""Upserts by queue: rows a second through RabbitMQ and one worker into Redis, how soon found, how soon indexed.

A minute at 20,000 rows a second, in jobs of 500 rows of 128 dimensions; beside it, the same rows into plain Redis
hashes, and into hnswlib by add_items.
"""

import os
import statistics
import threading
import time
from concurrent.futures import Future

import hnswlib
import numpy as np
import redis

import nearmq
from benchmarks.findings import Findings, Table, figure
from benchmarks.measuring import Figures
from benchmarks.stage import GRAPH, Stage
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog

_NAME = "bench-writes"
_DIM = 128
_JOB_ROWS = 500
_RATE = 22_000
#: As many times the scale's seconds.
_LASTS = 40
_ADD_ITEMS_ROWS = 50_000
_REDIS_JOBS = 400


def run(stage: Stage) -> Findings:
    """Measure."""
    seconds = round(_LASTS * stage.scale.seconds)
    jobs = seconds * _RATE // _JOB_ROWS
    client = stage.client()
    books = client.create_collection(_NAME, dim=_DIM, metric="L2", index="HNSW")
    figures = dict(upsert_paced(books, jobs, _RATE)) | index_all(books, stage.store_url)
    client.drop_collection(_NAME)
    figures["the same into Redis hashes: rows/s"] = into_redis(stage.store_url, min(jobs, _REDIS_JOBS))
    figures[f"the first {_ADD_ITEMS_ROWS:,} into hnswlib: rows/s"] = into_hnswlib()
    title = f"upserts of {_JOB_ROWS} x {_DIM}, {_RATE:,} rows/s asked for, {seconds} s; {os.cpu_count()} cores for all"
    rows = [[label, figure(value)] for label, value in figures.items()]
    return Findings(tables=[Table(name="writes", title=title, columns=["", "value"], rows=rows)])


def rows_of(job: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and clustered vectors of a job's rows."""
    generator = np.random.default_rng(job)
    centres = np.random.default_rng(1).standard_normal((1_000, _DIM), dtype=np.float32)
    vectors = centres[generator.integers(1_000, size=_JOB_ROWS)]
    vectors += 0.3 * generator.standard_normal((_JOB_ROWS, _DIM), dtype=np.float32)
    return np.arange(job * _JOB_ROWS, (job + 1) * _JOB_ROWS), vectors


class Searches:
    """Looks for a row of each write that was just answered, in a thread of its own, one at a time."""

    def __init__(self, books: nearmq.Collection) -> None:
        self._books = books
        self._newest: tuple[int, int] | None = None  # job and version
        self._stopped = threading.Event()
        self.missing = 0
        self.took_s: list[float] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def written(self, job: int, version: int) -> None:
        """Say which version a job's rows are in."""
        self._newest = job, version

    def stop(self) -> None:
        """Look for no more, and wait for the search in progress."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.2):
            if self._newest is None:
                continue
            job, version = self._newest
            ids, vectors = rows_of(job)
            began = time.perf_counter()
            found = self._books.search(vectors[:1], limit=1, min_version=version)
            self.took_s.append(time.perf_counter() - began)
            self.missing += found[0].ids.tolist() != ids[:1].tolist()


def upsert_paced(books: nearmq.Collection, jobs: int, rate: float) -> Figures:
    """Upsert so many jobs at a rate of rows a second, and say what was reached."""
    searches = Searches(books)
    took_s: list[float] = []
    versions: set[int] = set()
    slowed: list[int] = []
    futures: list[Future[nearmq.WriteResult]] = []
    began = time.perf_counter()
    for job in range(jobs):
        ids, vectors = rows_of(job)
        due = began + job * _JOB_ROWS / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        sent = time.perf_counter()
        future = books.submit_upsert(ids, vectors)

        def done(future: Future[nearmq.WriteResult], job: int = job, sent: float = sent) -> None:
            result = future.result()
            took_s.append(time.perf_counter() - sent)
            versions.add(result.version)
            if result.slowdown_ms:
                slowed.append(result.slowdown_ms)
            searches.written(job, result.version)

        future.add_done_callback(done)
        futures.append(future)
    for future in futures:
        future.result()
    elapsed_s = time.perf_counter() - began
    searches.stop()
    return {
        "rows/s": jobs * _JOB_ROWS / elapsed_s,
        "answered after p50 ms": statistics.median(took_s) * 1_000,
        "answered after p99 ms": statistics.quantiles(took_s, n=100)[98] * 1_000,
        "versions": len(versions),
        "jobs answered with a slowdown": len(slowed),
        "searches for rows just written": len(searches.took_s),
        "of these without the row": searches.missing,
        "such a search p50 ms": statistics.median(searches.took_s) * 1_000,
    }


def index_all(books: nearmq.Collection, store: str) -> Figures:
    """Wait until every row is in an index."""
    catalog = Catalog(open_store(store))
    waiting = sum(e.live_rows for e in catalog.snapshot(_NAME).segments if e.indexes["vector"].kind == "FLAT")
    began = time.perf_counter()
    books.build(timeout_s=3_600)
    return {
        "rows not indexed at the end": waiting,
        "s until all are": time.perf_counter() - began,
        "segments then": len(catalog.snapshot(_NAME).segments),
    }


def into_redis(store: str, jobs: int) -> float:
    """Write the same rows into a Redis hash a row, pipelined by job; return rows a second."""
    server = redis.Redis.from_url(store)
    began = time.perf_counter()
    for job in range(jobs):
        pipeline = server.pipeline(transaction=False)
        for id_, vector in zip(*rows_of(job), strict=True):
            pipeline.hset(f"{_NAME}:{id_}", mapping={"vector": vector.tobytes()})
        pipeline.execute()
    elapsed_s = time.perf_counter() - began
    for job in range(jobs):
        server.unlink(*(f"{_NAME}:{id_}" for id_ in rows_of(job)[0]))
    return jobs * _JOB_ROWS / elapsed_s


def into_hnswlib() -> float:
    """Add the first rows to an empty index on all cores; return rows a second, which fall as it grows."""
    index = hnswlib.Index("l2", _DIM)
    index.init_index(_ADD_ITEMS_ROWS, M=GRAPH["M"], ef_construction=GRAPH["efConstruction"])
    began = time.perf_counter()
    for job in range(_ADD_ITEMS_ROWS // _JOB_ROWS):
        ids, vectors = rows_of(job)
        index.add_items(vectors, ids)
    return _ADD_ITEMS_ROWS / (time.perf_counter() - began)
