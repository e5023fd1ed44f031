"""The memory that an import and an export take, as the peak of a process of their own above that of an idle one.

1,000,000 x 128 rows of each index, from .npy into a folder and out into one Parquet file; HNSW takes minutes. Needs a
disk with room for four times the rows. `compaction.py` measures a large merge in the same way.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.findings import Findings, Table, figure
from benchmarks.process_memory import peak_bytes
from benchmarks.stage import Stage
from nearmq_index_store.blobs import open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.exporting import ExportOptions, export_rows
from nearmq_index_store.importing import ImportOptions, import_rows
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_index_store.sources import open_source

_INDEXES = ("FLAT", "IVF_FLAT", "HNSW")
#: As many times the rows of the scale.
_TIMES_ROWS = 5
_DIM = 128
_SEGMENT_BYTES = 256 << 20
_BATCH = 10_000


def run(stage: Stage) -> Findings:
    """Measure."""
    rows = _TIMES_ROWS * stage.scale.rows
    folder = stage.folder
    write_rows(folder / "rows.npy", rows, _DIM)
    catalog = Catalog(open_store(f"file:{folder / 'store'}"))
    lines = []
    for index in _INDEXES:
        field = VectorField(name="vector", dim=_DIM, metric="L2", index=IndexSpec(kind=index))
        catalog.create(index, Schema(primary_key="int64", vector_fields=(field,)), job_id=index)
        for action in ("import", "export"):
            found = child(action, str(folder), index)
            rate, ratio = found["rows"] / found["seconds"], found["bytes"] / (4 * rows * _DIM)
            lines.append([f"{action}, {index}", figure(found["bytes"] / 1e6), f"{ratio:.2f}", figure(rate)])
        catalog.drop(index, job_id=f"drop {index}")
    return Findings(
        tables=[
            Table(
                name="bulk",
                title=f"{rows:,} x {_DIM}: the peak of a process of its own above an idle one's",
                columns=["", "peak MB", "of the rows' bytes", "rows a second"],
                rows=lines,
            )
        ]
    )


def write_rows(path: Path, rows: int, dim: int) -> None:
    """Write clustered rows to a .npy file."""
    random = np.random.default_rng(1)
    centres = random.normal(size=(1_000, dim))
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, dim))
    for first in range(0, rows, _BATCH):
        part = matrix[first : first + _BATCH]
        part[:] = centres[random.integers(len(centres), size=len(part))] + random.normal(size=part.shape) * 0.4
    matrix.flush()


def run_import(folder: Path, name: str) -> None:
    """Import rows.npy; a child process."""
    catalog = Catalog(open_store(f"file:{folder / 'store'}"), folder=folder)
    options = ImportOptions(segment_bytes=_SEGMENT_BYTES, threads=2, folder=folder)
    report(lambda: import_rows(catalog, name, lambda schema: open_source(folder / "rows.npy", schema), options).rows)


def run_export(folder: Path, name: str) -> None:
    """Export what was imported; a child process."""
    catalog = Catalog(open_store(f"file:{folder / 'store'}"), folder=folder)
    report(lambda: export_rows(catalog, name, folder / f"{name}.parquet", ExportOptions(replace=True)).rows)


def report(run: Callable[[], int]) -> None:
    """Run, and print the rows, the seconds, and by how many bytes the peak rose."""
    before, began = peak_bytes(), time.perf_counter()
    rows = run()
    took = time.perf_counter() - began
    sys.stdout.write(json.dumps({"rows": rows, "seconds": took, "bytes": peak_bytes() - before}))


def child(*arguments: str) -> dict[str, float]:
    """Run this script as a process of its own."""
    done = subprocess.run([sys.executable, "-m", __spec__.name, *arguments], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    action, place, collection = sys.argv[1:]
    {"import": run_import, "export": run_export}[action](Path(place), collection)
