"""The one exact distance of a pair of vectors, and the order of hits.

Every distance that leaves the store is computed here, from the rows as they were given, one dot product a pair in
float64, rounded to float32 at the end. So a pair's distance depends on nothing but the pair: not on the batch, the
order or number of rows, the segment, or the index that proposed it.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nearmq_index_store.schema import Metric

FloatMatrix = npt.NDArray[np.float32]
Distances = npt.NDArray[np.float32]
RowNumbers = npt.NDArray[np.int64]

#: Values widened to float64 at a time: 8 MiB, so that a search for all rows of a segment stays small.
_BLOCK = 1 << 20

_LARGEST = float(np.finfo(np.float32).max)


def exact_distances(
    query: npt.NDArray[np.float32], vectors: FloatMatrix, rows: RowNumbers, metric: Metric
) -> Distances:
    """Return the distance of one query to each of the rows.

    L2 is squared and computed from differences, IP is the raw product, COSINE is a similarity clipped to [-1, 1] with 0
    wherever a vector is zero. What float32 cannot hold becomes its largest value, so that no distance is infinite.

    Args:
        query: float32, shape (dim,), finite.
        vectors: float32, shape (n, dim), finite, C-contiguous.
        rows: row numbers into `vectors`, in any order.
    """
    distances = np.empty(len(rows), dtype=np.float32)
    wide_query = query.astype(np.float64)
    step = max(1, _BLOCK // len(query))
    for start in range(0, len(rows), step):
        chunk = vectors[rows[start : start + step]].astype(np.float64)
        exact = _PAIRWISE[metric](wide_query, chunk)
        distances[start : start + step] = np.clip(exact, -_LARGEST, _LARGEST)
    return distances


def nearest_first(ids: npt.NDArray[np.generic], distances: Distances, metric: Metric) -> npt.NDArray[np.intp]:
    """Return the positions in the order of hits: nearest first, ties by smaller id (strings by code point)."""
    by_id = np.argsort(ids, kind="stable")
    nearness = distances if metric == "L2" else -distances
    return by_id[np.argsort(nearness[by_id], kind="stable")]


def lengths(vectors: FloatMatrix) -> npt.NDArray[np.float64]:
    """Return the Euclidean length of each vector, float64 of shape (n,)."""
    found = np.empty(len(vectors))
    for rows in row_blocks(vectors):
        chunk = vectors[rows].astype(np.float64)
        found[rows] = np.sqrt(np.vecdot(chunk, chunk))
    return found


def unit_vectors(vectors: FloatMatrix) -> FloatMatrix:
    """Return the vectors at length 1, float32 of the same shape; a zero vector stays zero."""
    wide = vectors.astype(np.float64)
    divisors = np.sqrt(np.vecdot(wide, wide))
    divisors[divisors == 0] = 1
    wide /= divisors[:, np.newaxis]
    return wide.astype(np.float32)


def row_blocks(vectors: FloatMatrix) -> Iterator[slice]:
    """Yield slices that cover all rows, each small enough to be widened to float64."""
    step = max(1, _BLOCK // vectors.shape[1])
    for start in range(0, len(vectors), step):
        yield slice(start, min(start + step, len(vectors)))


def _l2(query: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows -= query
    squared: npt.NDArray[np.float64] = np.vecdot(rows, rows)
    return squared


def _ip(query: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.vecdot(rows, query)
    return products


def _cosine(query: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    divisors = np.sqrt(np.vecdot(rows, rows)) * np.sqrt(np.vecdot(query, query))
    divisors[divisors == 0] = np.inf
    similarities: npt.NDArray[np.float64] = np.clip(np.vecdot(rows, query) / divisors, -1.0, 1.0)
    return similarities


_PAIRWISE = {"L2": _l2, "IP": _ip, "COSINE": _cosine}
