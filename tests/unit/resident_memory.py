"""Opens a few rows and then a segment, in a process of its own, and prints by how much its anonymous memory grew.

Usage: python -m tests.unit.resident_memory FOLDER, with a store, a spool and the two segments in it.
"""

import gc
import sys
from pathlib import Path

import msgspec
import numpy as np

from nearmq_index_store.blobs import open_store
from nearmq_index_store.indexes import index_kind
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.schema import Schema
from nearmq_index_store.search import search_part
from nearmq_index_store.segment import Segment
from nearmq_worker.spool import Spool

STORE, SPOOL, SEGMENTS = "store", "spool", "segments"

Stored = tuple[Schema, SegmentEntry, SegmentEntry]


def anonymous_bytes() -> int:
    gc.collect()
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


def opened(spool: Spool, entry: SegmentEntry, schema: Schema) -> Segment:
    """A segment after its first search."""
    (field,) = schema.vector_fields
    segment = spool.open(entry, schema, field.name)
    params = index_kind(field.index.kind).resolve({}, field, 5)
    search_part(segment, np.ones((1, field.dim), dtype=np.float32), 5, params)
    return segment


def main(folder: Path) -> None:
    schema, few, all_rows = msgspec.json.decode((folder / SEGMENTS).read_bytes(), type=Stored)
    spool = Spool(open_store(f"file:{folder / STORE}"), folder / SPOOL, 1 << 30)
    kept = [opened(spool, few, schema)]  # what is made once, such as threads, is no segment's
    before = anonymous_bytes()
    kept.append(opened(spool, all_rows, schema))
    sys.stdout.write(f"{anonymous_bytes() - before}\n")
    spool.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
