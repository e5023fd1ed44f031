"""What a file of hnswlib must look like before hnswlib may load and search it.

hnswlib 0.8 writes a header of 96 bytes; then for each row its links on level 0 (a count, and room for 2 * M row
numbers), its vector and its label; then for each row the length in bytes of its links on higher levels, and for each
such level a count and room for M row numbers. It believes all of it: a link, count or level out of range is an access
out of bounds. So all but the vectors is checked here, in one pass over the file.

Source: hnswlib 0.8.0, hnswlib/hnswalg.h, saveIndex and loadIndex.
"""

import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nearmq_index_store.errors import IndexCorrupt

# offsetLevel0, max_elements, count, bytes a row, label offset, vector offset, top level, entry point, maxM, maxM0, M,
# 1 / ln M, efConstruction
_HEADER = struct.Struct("<6QiI3QdQ")

#: Links that are checked at a time.
_BLOCK = 1 << 20

_Words = npt.NDArray[np.uint32]


def check_file(path: Path, *, rows: int, dim: int, m: int, ef_construction: int) -> None:
    """Compare a file with the rows and the parameters that it was built with.

    Raises:
        IndexCorrupt: the length, the header, a link, a level or a label contradicts them.
    """
    ground_row = np.dtype([("count", "<u4"), ("links", "<u4", (2 * m,)), ("vector", "<f4", (dim,)), ("label", "<u8")])
    upper_start = _HEADER.size + rows * ground_row.itemsize
    size = path.stat().st_size
    _expect(size % 4 == 0 and size >= upper_start + 4 * rows, f"length, {size} bytes,")

    words = np.memmap(path, dtype="<u4", mode="r")
    header = _HEADER.unpack(words[: _HEADER.size // 4].tobytes())
    top, entry_point, log_m = header[6], header[7], header[11]
    links_bytes = 4 + 8 * m
    _expect(header[:6] == (0, rows, rows, ground_row.itemsize, links_bytes + 4 * dim, links_bytes), "header")
    _expect(header[8:11] == (m, 2 * m, m) and math.isclose(log_m, 1 / math.log(m)), "header")
    _expect(header[12] == max(ef_construction, m), "header")

    ground = np.memmap(path, dtype=ground_row, mode="r", offset=_HEADER.size, shape=(rows,))
    everywhere, labelled = np.ones(rows, dtype=bool), np.zeros(rows, dtype=bool)
    step = max(1, _BLOCK // (2 * m))
    for start in range(0, rows, step):
        block = ground[start : start + step]
        _check_links(block["count"], block["links"], everywhere)
        _expect(bool((block["label"] < rows).all()), "label")
        labelled[block["label"]] = True
    _expect(bool(labelled.all()), "label")

    levels = _check_upper_links(words[upper_start // 4 :], rows, m)
    _expect(0 <= entry_point < rows and levels[entry_point] == top == levels.max(), "entry point")


def _check_upper_links(words: _Words, rows: int, m: int) -> npt.NDArray[np.int64]:
    """Check the links above level 0, and return the level of each row."""
    levels, starts = _read_levels(words, rows, m)
    for level in range(1, int(levels.max()) + 1):
        reaching = levels >= level
        at = starts[reaching] + (level - 1) * (m + 1)
        nodes = words[at[:, np.newaxis] + np.arange(m + 1)]
        _check_links(nodes[:, 0], nodes[:, 1:], reaching)
    return levels


def _read_levels(words: _Words, rows: int, m: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each row its level, and where the words of its links above level 0 start."""
    levels, starts = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    # Most rows have no higher level and a length of 0: step from one length that is not 0 to the next.
    lengths = np.flatnonzero(words)
    row = at = 0
    while (following := int(np.searchsorted(lengths, at))) < len(lengths):
        row += int(lengths[following]) - at
        at = int(lengths[following])
        length = int(words[at])
        _expect(row < rows and length % (4 * (m + 1)) == 0 and at + 1 + length // 4 <= len(words), "level")
        levels[row], starts[row] = length // (4 * (m + 1)), at + 1
        row += 1
        at += 1 + length // 4
    _expect(row + len(words) - at == rows, "length")
    return levels, starts


def _check_links(counts: _Words, links: _Words, allowed: npt.NDArray[np.bool_]) -> None:
    """Check the links of some rows on one level, where `allowed` says of every row whether it is on that level."""
    room = links.shape[1]
    # The high half of a count holds hnswlib's mark of a deleted row; no row of ours has it.
    _expect(bool((counts <= room).all()), "link count")
    used = links[np.arange(room) < counts[:, np.newaxis]]
    _expect(bool((used < len(allowed)).all()) and bool(allowed[used].all()), "link")


def _expect(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise IndexCorrupt(f"the {what} of the HNSW index contradicts its rows or parameters")
