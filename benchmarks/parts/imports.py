"""Rows from a file into Redis as an HNSW collection, beside raw add_items of the same rows with as many threads.

An import also reads the file twice, writes rows and keys, digests and stores all of it, and commits.
"""

import tempfile
from pathlib import Path

import hnswlib
import numpy as np
from ulid import ULID

from benchmarks import data
from benchmarks.data import Data
from benchmarks.findings import Findings, Measure, Table, figure
from benchmarks.measuring import Figures, in_turns, timed
from benchmarks.stage import GRAPH, Stage, schema_of
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.sources import open_source

_ROWS = 50_000
_THREADS = 2
_MOST_ROUNDS = 3


def run(stage: Stage) -> Findings:
    """Measure."""
    some = data.synth(min(_ROWS, stage.scale.rows))
    path = stage.folder / "import.npy"
    np.save(path, some.rows)
    samples = in_turns(
        min(stage.scale.rounds, _MOST_ROUNDS),
        {"nearmq": lambda: _import(stage, some, path), "raw add_items": lambda: _add_items(some)},
    )
    return Findings(
        tables=[
            Table(
                name="imports",
                title=f"An import; {some.name}, HNSW, {_THREADS} threads",
                columns=["", "rows a second"],
                rows=[[name, figure(samples.median(name, "rows/s"))] for name in ("nearmq", "raw add_items")],
            )
        ],
        measures=[
            Measure(
                name="HNSW import: of raw add_items' rows a second",
                bound=0.95,
                guard=0.5,
                spread=samples.ratio("rows/s", "nearmq", "raw add_items"),
                note=f"{some.name}, {_THREADS} threads each, from .npy into Redis",
            )
        ],
    )


def _import(stage: Stage, some: Data, path: Path) -> Figures:
    catalog = Catalog(open_store(stage.store_url))
    name = "imported"
    catalog.create(name, schema_of(some, "HNSW", GRAPH, with_scalars=False), job_id=str(ULID()))
    with tempfile.TemporaryDirectory() as folder, timed() as timer:
        options = ImportOptions(threads=_THREADS, folder=Path(folder))
        import_rows(catalog, name, lambda schema: open_source(path, schema), options)
    catalog.drop(name, job_id=str(ULID()))
    return {"rows/s": len(some.rows) / timer.seconds}


def _add_items(some: Data) -> Figures:
    with timed() as timer:
        index = hnswlib.Index(space="l2", dim=some.dim)
        index.init_index(len(some.rows), M=GRAPH["M"], ef_construction=GRAPH["efConstruction"])
        index.add_items(some.rows, num_threads=_THREADS)
    return {"rows/s": len(some.rows) / timer.seconds}
