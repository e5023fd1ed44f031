"""The main job on real data: handwritten digits into five indexes, searched by jobs, beside exact search.

    make demo                                                     # embedded: no server, no second process
    NEARMQ_URL=amqp://… NEARMQ_STORE=redis://… make demo          # RabbitMQ, Redis and two worker processes

Prints a table and writes out/demo.png: query digits beside the neighbours that the jobs found.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import nearmq
from nearmq.amqp import apply_topology
from nearmq.errors import BrokerUnavailable, CollectionNotFound
from nearmq.topology import declarations
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.sources import open_source

INDEXES = ("FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "IVF_PQ")
QUERIES = 200
LIMIT = 10
WORKERS = 2
PICTURE = Path("out", "demo.png")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    index: str
    recall: float
    median_ms: float
    p99_ms: float
    bytes: int


def main() -> None:
    """Build, search, print, draw."""
    console = Console()
    url, store = os.environ.get("NEARMQ_URL"), os.environ.get("NEARMQ_STORE")
    images = load_digits().data.astype(np.float32)  # 1,797 x 64, values 0 to 16
    order = np.random.default_rng(7).permutation(len(images))
    queries, rows = images[order[:QUERIES]], images[order[QUERIES:]]
    exact = exact_distances(queries, rows)
    with ExitStack() as stack:
        if url is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url, store = f"local:{folder}", f"file:{folder}"
            where = "embedded, in this process"
        else:
            store = store or "redis://127.0.0.1:6379/0"
            apply_topology(url, declarations())
            stack.enter_context(worker_processes(url, store))
            where = f"{WORKERS} worker processes over RabbitMQ, store {store.partition(':')[0]}"
        client = stack.enter_context(nearmq.connect(url))
        await_workers(client)
        console.print(f"{len(rows):,} digits of 64 pixels, {QUERIES} queries, {LIMIT} neighbours; {where}")
        lines, found = [], None
        for index in INDEXES:
            collection = make_collection(client, store, f"demo-{index}", index, rows)
            lines.append(measure(collection, index, queries, exact))
            found = found or collection.search(queries[:8], limit=LIMIT)
        show(console, lines)
        assert found is not None
        draw(queries, rows, found)
        console.print(f"query digits beside their neighbours: {PICTURE}")
        for index in INDEXES:
            client.drop_collection(f"demo-{index}")


def exact_distances(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the squared distances to the nearest rows, by brute force."""
    wide = queries.astype(np.float64)[:, None] - rows.astype(np.float64)[None]
    return np.sort(np.square(wide).sum(axis=2), axis=1)[:, :LIMIT]


def make_collection(client: nearmq.Client, store: str, name: str, index: str, rows: np.ndarray) -> nearmq.Collection:
    """Create a collection by a job, and import the rows into its store."""
    with suppress(CollectionNotFound):  # of a demo that was interrupted
        client.drop_collection(name)
    collection = client.create_collection(name, dim=rows.shape[1], metric="L2", index=index)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.npy")
        np.save(path, rows)
        import_rows(Catalog(open_store(store)), name, lambda schema: open_source(path, schema), ImportOptions())
    collection.load()
    return collection


def measure(collection: nearmq.Collection, index: str, queries: np.ndarray, exact: np.ndarray) -> Row:
    """Search one query a job, one job after the other; recall is judged by distance, since digits tie."""
    took, good = [], 0
    for query, nearest in zip(queries, exact, strict=True):
        began = time.perf_counter()
        hits = collection.search(query, limit=LIMIT)[0]
        took.append((time.perf_counter() - began) * 1_000)
        good += int((hits.distances <= nearest[-1] * (1 + 1e-5)).sum())
    median_ms, p99_ms = np.percentile(took, [50, 99])
    return Row(index, good / exact.size, float(median_ms), float(p99_ms), collection.describe()["bytes"])


def show(console: Console, lines: list[Row]) -> None:
    """Print the table."""
    table = Table("index", "recall@10", "median ms", "p99 ms", "bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    for line in lines:
        table.add_row(
            line.index, f"{line.recall:.3f}", f"{line.median_ms:.2f}", f"{line.p99_ms:.2f}", f"{line.bytes:,}"
        )
    console.print(table)


def draw(queries: np.ndarray, rows: np.ndarray, found: nearmq.SearchResults) -> None:
    """Draw each query, framed, and to its right its neighbours, nearest first, with their squared distances."""
    import matplotlib as mpl  # noqa: PLC0415  takes a second to import

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(found), LIMIT + 1, figsize=(LIMIT + 1, len(found) * 1.15))
    for line, query, hits in zip(axes, queries, found, strict=False):
        for axis, image in zip(line, [query, *rows[hits.ids]], strict=True):
            axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_visible(False)
        for spine in line[0].spines.values():
            spine.set_visible(True)
            spine.set(color="tab:red", linewidth=2)
        for axis, distance in zip(line[1:], hits.distances, strict=True):
            axis.set_title(f"{distance:.0f}", fontsize=8, pad=2)
    axes[0][0].set_title("query", fontsize=8, pad=2, color="tab:red")
    figure.suptitle("Handwritten digits and their nearest neighbours (squared distance)", fontsize=11)
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


@contextmanager
def worker_processes(url: str, store: str) -> Iterator[None]:
    """Run workers as processes of their own, which end with the context."""
    command = [str(Path(sys.executable).parent / "nearmq"), "worker", "run", "--url", url, "--store", store]
    workers = [subprocess.Popen([*command, "--log-level", "warning"]) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()


def await_workers(client: nearmq.Client) -> None:
    """Wait until a worker lives; their imports take some seconds."""
    for _ in range(120):
        try:
            client.workers()
        except BrokerUnavailable:
            time.sleep(0.25)
        else:
            return
    raise SystemExit("no worker came up in 30 s")


if __name__ == "__main__":
    main()
