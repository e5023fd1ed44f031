"""The file of an HNSW index: the links of the graph, without the vectors, which are the segment's rows.

Format 1, little-endian, without padding:

    header      8 bytes `nearmqHN`, then uint32 format, dim, M, efConstruction, top level, entry point;
                uint64 rows, nodes above level 0
    ground      uint32 (rows, 1 + 2 * M): for each row how many links it has on level 0, and the row numbers they go to
    upper       uint32 (nodes above level 0, 1 + M): the same for each row on each of its levels above 0, in this order
    levels      uint8 (rows): the highest level of each row

Links beyond the count are 0. hnswlib's own file holds the vectors once more, and its loader follows whatever a file
says: a link, count or level out of range is an access out of bounds. So that file never leaves the machine that builds
it, and what hnswlib is handed here was checked before.

Source: hnswlib 0.8.0, hnswlib/hnswalg.h, saveIndex.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.errors import IndexCorrupt

_MAGIC = b"nearmqHN"
_FORMAT = 1
_HEADER = struct.Struct("<8s6I2Q")

#: hnswlib's header: offsetLevel0, max_elements, count, bytes a row, label offset, vector offset, top level, entry
#: point, maxM, maxM0, M, 1 / ln M, efConstruction.
_SAVED_HEADER = struct.Struct("<6QiI3QdQ")

#: Rows that are put in order at a time.
_BLOCK = 1 << 15

_Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The links of a graph whose nodes are the rows of a segment, in their order; shapes as in the file."""

    ground: _Words
    upper: _Words
    levels: npt.NDArray[np.uint8]
    top: int
    entry_point: int


def write_graph(saved: Path, path: Path, *, rows: int, dim: int, m: int, ef_construction: int) -> int:
    """Write the file of a graph that hnswlib has saved, its nodes in the order of the rows; return the nodes above 0.

    hnswlib writes its header; then for each node its links on level 0 (a count, and room for 2 * M nodes), its vector
    and its label, which is the row number; then for each node the length in bytes of its links on higher levels, and
    for each such level a count and room for M nodes.
    """
    ground_node = np.dtype([("links", "<u4", (1 + 2 * m,)), ("vector", "<f4", (dim,)), ("row", "<u8")])
    with saved.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    words = np.frombuffer(mapped, dtype="<u4")
    top, entry_point = _SAVED_HEADER.unpack_from(mapped)[6:8]
    ground = np.frombuffer(mapped, dtype=ground_node, count=rows, offset=_SAVED_HEADER.size)
    row_of = np.empty(rows, dtype=np.uint32)
    for start in range(0, rows, _BLOCK):
        row_of[start : start + _BLOCK] = ground["row"][start : start + _BLOCK]
        mapped.madvise(mmap.MADV_DONTNEED)  # else the file counts as this process's memory
    node_of = np.empty(rows, dtype=np.int64)
    node_of[row_of] = np.arange(rows)
    levels_of, starts = _saved_levels(words[(_SAVED_HEADER.size + rows * ground_node.itemsize) // 4 :], rows, m)
    levels = levels_of[node_of]
    nodes = int(levels.sum())
    with path.open("wb") as file:
        header = (_MAGIC, _FORMAT, dim, m, ef_construction, top, row_of[entry_point], rows, nodes)
        file.write(_HEADER.pack(*header))
        for start in range(0, rows, _BLOCK):
            file.write(_in_rows(ground["links"][node_of[start : start + _BLOCK]], row_of))
            mapped.madvise(mmap.MADV_DONTNEED)
        higher = np.flatnonzero(levels)
        above = np.repeat(starts[node_of[higher]], levels[higher])
        within = np.arange(nodes) - np.repeat(np.cumsum(levels[higher]) - levels[higher], levels[higher])
        first = (_SAVED_HEADER.size + rows * ground_node.itemsize) // 4
        at = first + above + within * (m + 1)
        file.write(_in_rows(words[at[:, np.newaxis] + np.arange(m + 1)], row_of))
        file.write(levels.astype(np.uint8).data)
    return nodes


def read_graph(data: Buffer, *, rows: int, dim: int, m: int, ef_construction: int) -> Graph:
    """View the file of a graph.

    Raises:
        IndexCorrupt: the length, the header, a link or a level contradicts the rows and the parameters that it was
            built with.
    """
    _expect(len(data) >= _HEADER.size, "length")
    *header, top, entry_point, found_rows, nodes = _HEADER.unpack_from(data)
    _expect((*header, found_rows) == (_MAGIC, _FORMAT, dim, m, ef_construction, rows), "header")
    ground_words, upper_words = rows * (1 + 2 * m), nodes * (1 + m)
    _expect(len(data) == _HEADER.size + 4 * (ground_words + upper_words) + rows, "length")
    words = np.frombuffer(data, dtype="<u4", count=ground_words + upper_words, offset=_HEADER.size)
    levels = np.frombuffer(data, dtype=np.uint8, offset=_HEADER.size + words.nbytes)
    graph = Graph(
        ground=words[:ground_words].reshape(rows, 1 + 2 * m),
        upper=words[ground_words:].reshape(nodes, 1 + m),
        levels=levels,
        top=top,
        entry_point=entry_point,
    )
    _check(graph, rows)
    return graph


def _check(graph: Graph, rows: int) -> None:
    """Check all that hnswlib would follow."""
    levels = graph.levels
    _expect(int(levels.sum(dtype=np.int64)) == len(graph.upper), "number of nodes")
    _expect(graph.entry_point < rows and levels[graph.entry_point] == graph.top == levels.max(), "entry point")
    _check_links(graph.ground, rows)
    _check_links(graph.upper, rows)
    if len(graph.upper):
        higher = np.flatnonzero(levels)
        owners = np.repeat(higher, levels[higher])
        firsts = np.cumsum(levels[higher], dtype=np.int64) - levels[higher]
        level_of = np.arange(len(owners)) - np.repeat(firsts, levels[higher]) + 1
        links = graph.upper[:, 1:]
        used = np.arange(links.shape[1]) < graph.upper[:, :1]
        _expect(bool((levels[links] >= level_of[:, np.newaxis])[used].all()), "level of a link")


def _check_links(nodes: _Words, rows: int) -> None:
    # The high half of a count holds hnswlib's mark of a deleted row; no row of ours has it.
    if len(nodes):
        _expect(bool(nodes[:, 0].max() < nodes.shape[1]), "link count")
        _expect(bool(nodes[:, 1:].max() < rows), "link")


def _in_rows(nodes: _Words, row_of: _Words) -> memoryview:
    """Turn the links of some nodes into row numbers, 0 where there is none."""
    used = np.arange(nodes.shape[1] - 1) < nodes[:, :1]
    links = np.where(used, row_of[np.where(used, nodes[:, 1:], 0)], 0)
    return np.hstack([nodes[:, :1], links]).astype("<u4").data


def _saved_levels(words: _Words, rows: int, m: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return for each node its level, and at which word its links above level 0 start, as hnswlib saved them."""
    levels, starts = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    # Most nodes have no higher level and a length of 0: step from one length that is not 0 to the next.
    lengths = np.flatnonzero(words)
    node = at = 0
    while (following := int(np.searchsorted(lengths, at))) < len(lengths):
        node += int(lengths[following]) - at
        at = int(lengths[following])
        levels[node], starts[node] = int(words[at]) // (4 * (m + 1)), at + 1
        at += 1 + int(words[at]) // 4
        node += 1
    return levels, starts


def _expect(holds: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise IndexCorrupt(f"the {what} of the HNSW index contradicts its rows or parameters")
