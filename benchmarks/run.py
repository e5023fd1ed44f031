"""End to end: jobs through nearmq beside raw hnswlib in this process and a bare pika echo, side by side in one run.

    make bench                       # real embeddings where ../shared/data is there, else synthetic rows
    make bench ARGS="--rounds 5"

Needs RabbitMQ and Redis at NEARMQ_URL and NEARMQ_STORE (default: this machine's). Prints a table and writes
out/bench.json. Absolute figures are this machine's; quote the ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Semaphore

import echo
import hnswlib
import numpy as np
from rich.console import Console
from rich.table import Table

import nearmq
from nearmq.amqp import apply_topology
from nearmq.results import SearchResults
from nearmq.topology import declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.sources import open_source

ROOT = Path(__file__).resolve().parent.parent
REAL = ROOT.parent / "shared" / "data" / "pypi_minilm_30k.f16.npy"
INDEX = {"M": 16, "efConstruction": 200}
EF = 64
LIMIT = 10
PREFIX = f"bench-{uuid.uuid4().hex[:8]}"

Figures = dict[str, list[float]]


def read_data() -> tuple[str, np.ndarray, np.ndarray]:
    """Return a name, rows and queries, float32 of unit length."""
    if REAL.exists():
        data = np.load(REAL).astype(np.float32)
        name = "real: 29,000 x 384 sentence embeddings, COSINE"
        split = 29_000
    else:
        generator = np.random.default_rng(1)
        centres = generator.normal(size=(500, 128))
        data = (centres[generator.integers(500, size=51_000)] + generator.normal(size=(51_000, 128)) * 0.4).astype(
            np.float32
        )
        name = "synthetic: 50,000 x 128 clustered, COSINE"
        split = 50_000
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    return name, data[:split], np.ascontiguousarray(data[split : split + 1_000])


def jobs_in_flight(submit: Callable[[int], Future[SearchResults]], jobs: int, in_flight: int) -> tuple[float, float]:
    """Submit jobs, so many in flight; return jobs a second and the median latency in milliseconds."""
    room = Semaphore(in_flight)
    took: list[float] = []
    began = time.perf_counter()
    for number in range(jobs):
        room.acquire()
        sent = time.perf_counter()

        def done(future: Future[SearchResults], sent: float = sent) -> None:
            took.append(time.perf_counter() - sent)
            room.release()
            future.result()

        submit(number).add_done_callback(done)
    for _ in range(in_flight):
        room.acquire()
    return jobs / (time.perf_counter() - began), statistics.median(took) * 1_000


def measure_raw(index: hnswlib.Index, queries: np.ndarray, figures: Figures) -> None:
    """Search in this process: query by query, and 1,000 at once on one thread and on all cores."""
    took = []
    for query in queries:
        began = time.perf_counter()
        index.knn_query(query, LIMIT, num_threads=1)
        took.append(time.perf_counter() - began)
    figures["raw, single: queries/s"].append(len(queries) / sum(took))
    figures["raw, single: p50 ms"].append(statistics.median(took) * 1_000)
    for threads in (1, os.cpu_count() or 1):
        parts = np.array_split(queries, threads)
        with ThreadPoolExecutor(threads) as pool:
            began = time.perf_counter()
            for _ in range(5):
                list(pool.map(lambda part: index.knn_query(part, LIMIT, num_threads=1), parts))
            figures[f"raw, 1,000 at once, {threads} threads: queries/s"].append(
                5 * len(queries) / (time.perf_counter() - began)
            )


def measure_nearmq(collection: nearmq.Collection, queries: np.ndarray, figures: Figures, label: str) -> None:
    """Search through nearmq: one-query jobs at three depths, and 1,000-query jobs one and four at a time."""

    def one(number: int) -> Future[SearchResults]:
        return collection.submit(queries[number % len(queries)], limit=LIMIT, params={"ef": EF})

    def thousand(_: int) -> Future[SearchResults]:
        return collection.submit(queries, limit=LIMIT, params={"ef": EF})

    for in_flight, jobs in ((1, 500), (16, 3_000), (256, 6_000)):
        rate, p50 = jobs_in_flight(one, jobs, in_flight)
        figures[f"{label}, {in_flight} in flight: jobs/s"].append(rate)
        figures[f"{label}, {in_flight} in flight: p50 ms"].append(p50)
    for in_flight in (1, 4):
        rate, p50 = jobs_in_flight(thousand, 12, in_flight)
        figures[f"{label}, 1,000-query jobs, {in_flight} in flight: queries/s"].append(rate * len(queries))
        figures[f"{label}, 1,000-query jobs, {in_flight} in flight: p50 ms"].append(p50)


def measure_echo(url: str, queue: str, figures: Figures) -> None:
    """Echo 776-byte jobs at three depths."""
    for in_flight, jobs in ((1, 500), (16, 3_000), (256, 6_000)):
        rate, p50 = echo.measure(url, queue, b"x" * 776, jobs=jobs, in_flight=in_flight)
        figures[f"echo, {in_flight} in flight: jobs/s"].append(rate)
        figures[f"echo, {in_flight} in flight: p50 ms"].append(p50)


@contextmanager
def processes(url: str, store: str, queue: str) -> Iterator[None]:
    """Run one worker and one echo server."""
    nearmq_command = str(Path(sys.executable).parent / "nearmq")
    worker = [
        nearmq_command,
        "worker",
        "run",
        "--url",
        url,
        "--store",
        store,
        "--prefix",
        PREFIX,
        "--log-level",
        "warning",
    ]
    servers = [subprocess.Popen(worker), subprocess.Popen([sys.executable, echo.__file__, url, queue])]
    try:
        yield
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()


def fill(store_url: str, name: str, rows: np.ndarray) -> None:
    """Import the rows into the collection."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npy")
        np.save(path, rows)
        import_rows(Catalog(open_store(store_url)), name, lambda schema: open_source(path, schema), ImportOptions())


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """What nearmq reaches of each peer in the same run; below 1 is slower."""
    most_threads = max(key for key in medians if key.startswith("raw, 1,000 at once"))
    pairs = {
        f"one-query jobs, {depth} in flight, of the bare echo": (
            f"nearmq, {depth} in flight: jobs/s",
            f"echo, {depth} in flight: jobs/s",
        )
        for depth in (1, 16, 256)
    } | {
        "one-query jobs, 256 in flight, of raw single queries": (
            "nearmq, 256 in flight: jobs/s",
            "raw, single: queries/s",
        ),
        "1,000-query jobs, 4 in flight, of raw on all cores": (
            "nearmq, 1,000-query jobs, 4 in flight: queries/s",
            most_threads,
        ),
        "embedded, one-query p50, raw's of it": ("raw, single: p50 ms", "embedded, 1 in flight: p50 ms"),
    }
    return {label: medians[ours] / medians[theirs] for label, (ours, theirs) in pairs.items()}


def main() -> None:
    """Run the rounds and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    url = os.environ.get("NEARMQ_URL", "amqp://guest:guest@127.0.0.1:5672/%2F")
    store = os.environ.get("NEARMQ_STORE", "redis://127.0.0.1:6379/9")
    name, rows, queries = read_data()
    raw = hnswlib.Index("cosine", rows.shape[1])
    raw.init_index(len(rows), M=INDEX["M"], ef_construction=INDEX["efConstruction"])
    raw.add_items(rows)
    raw.set_ef(EF)
    apply_topology(url, declarations(PREFIX))
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory() as local, processes(url, store, PREFIX + "-echo"):
        embedded = nearmq.connect(f"local:{local}")
        client = nearmq.connect(url, prefix=PREFIX, timeout_s=120)
        collections = {}
        for label, owner, target in (("embedded", embedded, f"file:{local}"), ("nearmq", client, store)):
            collections[label] = owner.create_collection(
                PREFIX, dim=rows.shape[1], metric="COSINE", index="HNSW", index_params=INDEX
            )
            fill(target, PREFIX, rows)
            collections[label].load(timeout_s=120)
        for _ in range(rounds):
            measure_raw(raw, queries, figures)
            measure_echo(url, PREFIX + "-echo", figures)
            for label, collection in collections.items():
                measure_nearmq(collection, queries, figures, label)
        client.drop_collection(PREFIX)
        client.close()
        embedded.close()
    medians = {label: statistics.median(values) for label, values in figures.items()}
    show(name, rounds, medians)


def show(name: str, rounds: int, medians: dict[str, float]) -> None:
    """Print figures and ratios, and write them to out/bench.json."""
    table = Table("figure", "median", title=f"{name}; HNSW M 16, ef {EF}, limit {LIMIT}; median of {rounds} rounds")
    for label, value in medians.items():
        table.add_row(label, f"{value:,.2f}" if value < 100 else f"{value:,.0f}")
    table.add_section()
    for label, value in ratios(medians).items():
        table.add_row(f"ratio: {label}", f"{value:.2f}")
    Console(width=110).print(table)
    out = ROOT / "out" / "bench.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"data": name, "medians": medians, "ratios": ratios(medians)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
