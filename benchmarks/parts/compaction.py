"""Compaction: a thousand tiny segments beside the same rows imported at once, and the memory that a large merge takes.

Needs no server: the store is a folder. Takes some minutes; the graph of the large merge is built with an efConstruction
of 20, which changes its time and not its memory.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import nearmq
from benchmarks.data import LIMIT
from benchmarks.findings import Findings, Table, figure
from benchmarks.process_memory import peak_bytes
from benchmarks.stage import GRAPH, Stage
from nearmq_index_store import intents
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.commit import Write
from nearmq_index_store.compaction import CompactionLimits, Workplace, compact_all, plan_compaction
from nearmq_index_store.given_rows import GivenRows
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.sources import open_source

_COMMITS = 1_000
_ROUNDS = 5
_QUERIES = 300
_EF = 64

_DIM = 128
#: Of the large merge: as many times the rows of the scale.
_TIMES_ROWS = 5
#: A graph takes as much memory however widely it was searched for neighbours, and so it is built sooner.
_LARGE_INDEXES: dict[str, dict[str, int]] = {"HNSW": {"M": 16, "efConstruction": 20}, "IVF_FLAT": {}}
#: As many as a write job may have.
_ROWS_A_COMMIT = 16_384


def run(stage: Stage) -> Findings:
    """Measure."""
    figures: dict[str, float] = {}
    measure_tiny_segments(stage, figures)
    measure_memory(figures, _TIMES_ROWS * stage.scale.rows)
    rows = [[label, figure(value)] for label, value in figures.items()]
    return Findings(tables=[Table(name="compaction", title="Compaction", columns=["", "value"], rows=rows)])


def write_rows(catalog: Catalog, name: str, first_id: int, rows: np.ndarray) -> None:
    """Upsert rows in one commit."""
    ids = list(range(first_id, first_id + len(rows)))
    intent = intents.upsert(GivenRows(ids=ids, vectors=rows, scalars={}))
    [outcome] = catalog.write(name, [Write(job_id=f"{name} {first_id}", intent=intent)])
    assert outcome.error is None


def median_ms(collection: nearmq.Collection, queries: np.ndarray) -> float:
    """Search query by query."""
    took = []
    for query in queries:
        began = time.perf_counter()
        collection.search(query[np.newaxis], limit=LIMIT, params={"ef": _EF})
        took.append(time.perf_counter() - began)
    return statistics.median(took) * 1_000


def measure_tiny_segments(stage: Stage, figures: dict[str, float]) -> None:
    """Write rows in a thousand commits, before a worker sees them and through one, beside the same rows imported."""
    rows, queries = stage.real.rows, stage.real.queries
    parts = np.array_split(rows, _COMMITS)
    with tempfile.TemporaryDirectory() as folder:
        catalog = Catalog(open_store(f"file:{folder}"))
        client = nearmq.connect(f"local:{folder}")
        imported, unseen, seen = (
            client.create_collection(
                name, dim=rows.shape[1], metric=stage.real.metric, index="HNSW", index_params=GRAPH
            )
            for name in ("imported", "unseen", "seen")
        )
        np.save(stage.folder / "rows.npy", rows)
        import_rows(
            catalog, imported.name, lambda schema: open_source(stage.folder / "rows.npy", schema), ImportOptions()
        )
        for number, part in enumerate(parts):
            write_rows(catalog, unseen.name, number * len(parts[0]), part)
        figures["segments before"] = len(catalog.snapshot(unseen.name).segments)
        figures["search before: p50 ms"] = median_ms(unseen, queries[:20])
        figures["compacted by itself after: s"] = wait_for_rest(catalog, unseen.name)
        for number, part in enumerate(parts):
            first = number * len(parts[0])
            seen.upsert(list(range(first, first + len(part))), part)
        figures["segments when written through a worker"] = len(catalog.snapshot(seen.name).segments)
        figures["compacted by itself then after: s"] = wait_for_rest(catalog, seen.name)
        took: dict[str, list[float]] = {collection.name: [] for collection in (imported, unseen, seen)}
        for number in range(_ROUNDS + 1):
            for collection in (imported, unseen, seen):
                p50 = median_ms(collection, queries[:_QUERIES])
                took[collection.name] += [p50] if number else []  # the first round loads
        client.close()
        for name, values in took.items():
            figures[f"{name}: segments"] = len(catalog.snapshot(name).segments)
            figures[f"{name}: search, p50 ms"] = statistics.median(values)
            figures[f"ratio: search, {name}"] = statistics.median(values) / statistics.median(took["imported"])


def wait_for_rest(catalog: Catalog, name: str) -> float:
    """Wait until the client's worker has nothing left to compact, and return for how many seconds."""
    began = time.perf_counter()
    while True:
        snapshot = catalog.snapshot(name)
        if plan_compaction(snapshot.segments, snapshot.manifest.schema, CompactionLimits(), force=True) is None:
            return time.perf_counter() - began
        time.sleep(0.1)


def measure_memory(figures: dict[str, float], rows: int) -> None:
    """Write rows of 128 dimensions, then merge them into one segment in a process of its own."""
    for index in _LARGE_INDEXES:
        with tempfile.TemporaryDirectory() as folder:
            for action in ("write", "merge"):
                command = [sys.executable, "-m", __spec__.name, action, folder, index, str(rows)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            figures |= json.loads(done.stdout)


def write(folder: str, index: str, rows: int) -> None:
    """Make a collection of clustered rows."""
    client = nearmq.connect(f"local:{folder}")
    client.create_collection("large", dim=_DIM, metric="L2", index=index, index_params=_LARGE_INDEXES[index])
    client.close()
    catalog = Catalog(open_store(f"file:{folder}"))
    random = np.random.default_rng(1)
    centres = random.normal(size=(1_000, _DIM))
    for first in range(0, rows, _ROWS_A_COMMIT):
        count = min(_ROWS_A_COMMIT, rows - first)
        vectors = centres[random.integers(len(centres), size=count)] + random.normal(size=(count, _DIM)) * 0.4
        write_rows(catalog, "large", first, vectors.astype(np.float32))


def merge(folder: str, index: str, rows: int) -> None:
    """Compact the collection into one segment, and print by how much that raised the peak of this process's memory."""
    catalog = Catalog(open_store(f"file:{folder}"))
    before = len(catalog.snapshot("large").segments)
    base_bytes = peak_bytes()
    began = time.perf_counter()
    limits = CompactionLimits(segment_bytes=8 * _DIM * rows)
    workplace = Workplace(folder=Path(folder), threads=2)
    done = compact_all(catalog, "large", limits, workplace, job_id="merge", force=True)
    assert (done.segments_after, done.rows) == (1, rows)
    taken = peak_bytes() - base_bytes
    figures = {
        f"large merge, {index}: rows": rows,
        f"large merge, {index}: segments": before,
        f"large merge, {index}: s": time.perf_counter() - began,
        f"large merge, {index}: MB at the peak, above those before": taken / 1e6,
        f"ratio: memory of a large merge, {index}, to its rows' bytes": taken / (4 * _DIM * rows),
    }
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    action, place, kind, count = sys.argv[1:]
    {"write": write, "merge": merge}[action](place, kind, int(count))
