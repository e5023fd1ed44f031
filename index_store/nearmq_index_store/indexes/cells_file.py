"""The file of the IVF indexes: IVF_FLAT, IVF_SQ8 and IVF_PQ.

Format 1, little-endian, without padding:

    header      8 bytes `nearmqIV`, then uint32 format, dim, nlist, bytes of code a row, values in the codebook;
                uint64 rows
    centroids   float32 (nlist, dim)
    codebook    float32 (values in the codebook)
    offsets     int64 (nlist + 1): cell c holds the positions offsets[c] to offsets[c + 1]
    order       uint32 (rows): the row number at each position
    codes       uint8 (rows, bytes of code a row), by position

All lengths follow from the rows and the parameters that the manifest names, so the header and the length of the file
are compared, not believed. None of it goes through a native loader: faiss is handed arrays that were checked here.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nearmq_index_store.blobs.protocol import Buffer
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.cells import Cells

_MAGIC = b"nearmqIV"
_FORMAT = 1
_HEADER = struct.Struct("<8s5IQ")


@dataclass(frozen=True, slots=True)
class Codes:
    """Compressed rows: a codebook float32 of any shape, and codes uint8 of shape (rows, code bytes), by position."""

    codebook: npt.NDArray[np.float32]
    codes: npt.NDArray[np.uint8]


def write_cells(path: Path, cells: Cells, codes: Codes) -> None:
    """Write the file of an IVF index."""
    header = _header(cells.centroids.shape, len(cells.order), codes.codes.shape[1], codes.codebook.size)
    with path.open("wb") as file:
        file.write(header)
        for array, dtype in (
            (cells.centroids, "<f4"),
            (codes.codebook, "<f4"),
            (cells.offsets, "<i8"),
            (cells.order, "<u4"),
            (codes.codes, "u1"),
        ):
            file.write(np.ascontiguousarray(array, dtype=dtype).data)


def read_cells(
    data: Buffer, *, rows: int, dim: int, nlist: int, code_bytes: int, codebook: tuple[int, ...]
) -> tuple[Cells, Codes]:
    """View the file of an IVF index.

    Args:
        codebook: the codebook's shape.

    Raises:
        IndexCorrupt: the header or the length is not what the arguments make it, an offset or row number is out of
            range, a row is missing, or a centroid is not finite.
    """
    expected = _header((nlist, dim), rows, code_bytes, int(np.prod(codebook)))
    shapes: list[tuple[str, tuple[int, ...]]] = [
        ("<f4", (nlist, dim)),
        ("<f4", codebook),
        ("<i8", (nlist + 1,)),
        ("<u4", (rows,)),
        ("u1", (rows, code_bytes)),
    ]
    at = len(expected)
    total = at + sum(np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in shapes)
    if len(data) != total or bytes(data[:at]) != expected:
        raise IndexCorrupt(f"an IVF index of {rows} rows has another header, or another length than {total} bytes")
    arrays = []
    for dtype, shape in shapes:
        arrays.append(np.frombuffer(data, dtype=dtype, count=int(np.prod(shape)), offset=at).reshape(shape))
        at += arrays[-1].nbytes
    centroids, codebook_values, offsets, order, codes = arrays
    cells = Cells(centroids, offsets, order)
    _check(cells, codebook_values)
    return cells, Codes(codebook_values, codes)


def _header(shape: tuple[int, ...], rows: int, code_bytes: int, codebook: int) -> bytes:
    nlist, dim = shape
    return _HEADER.pack(_MAGIC, _FORMAT, dim, nlist, code_bytes, codebook, rows)


def _check(cells: Cells, codebook: npt.NDArray[np.float32]) -> None:
    rows, offsets = len(cells.order), cells.offsets
    if offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 0).any():
        raise IndexCorrupt("the cells of an IVF index do not cover its rows")
    if not (cells.are_slices or _has_all_rows(cells.order)):
        raise IndexCorrupt("a row is in no cell of an IVF index")
    if not (np.isfinite(cells.centroids).all() and np.isfinite(codebook).all()):
        raise IndexCorrupt("an IVF index holds NaN or infinity")


def _has_all_rows(order: npt.NDArray[np.integer]) -> bool:
    seen = np.zeros(len(order), dtype=bool)
    seen[order[order < len(order)]] = True
    return bool(seen.all())
