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
FloatVector = npt.NDArray[np.float32]
Distances = npt.NDArray[np.float32]
RowNumbers = npt.NDArray[np.int64]

#: Values widened to float64 at a time: 8 MiB, so that what goes over all rows of a segment stays small.
_BLOCK = 1 << 20

#: The same for pairs: 256 KiB, which stay in the cache and in the allocator's hands; 8 MiB take twice the time.
_PAIRS_BLOCK = 1 << 15

_LARGEST = float(np.finfo(np.float32).max)


def exact_distances(
    queries: FloatMatrix, owners: RowNumbers, vectors: FloatMatrix, rows: RowNumbers, metric: Metric
) -> Distances:
    """Return the distances of pairs of a query and a row, float32 of shape (pairs,).

    L2 is squared and computed from differences, IP is the raw product, COSINE is a similarity clipped to [-1, 1] with 0
    wherever a vector is zero. What float32 cannot hold becomes its largest value, so that no distance is infinite.

    Args:
        queries: float32, shape (queries, dim), finite.
        owners: of each pair the number of its query.
        vectors: float32, shape (n, dim), finite, C-contiguous.
        rows: of each pair the number of its row in `vectors`.
    """
    distances = np.empty(len(rows), dtype=np.float32)
    step = max(1, _PAIRS_BLOCK // vectors.shape[1])
    for start in range(0, len(rows), step):
        run = slice(start, start + step)
        wide_rows = vectors[rows[run]].astype(np.float64)
        wide_queries = (queries if len(queries) == 1 else queries[owners[run]]).astype(np.float64)
        distances[run] = np.clip(_PAIRWISE[metric](wide_queries, wide_rows), -_LARGEST, _LARGEST)
    return distances


def nearest_first(
    owners: RowNumbers, ids: npt.NDArray[np.generic], distances: Distances, metric: Metric
) -> npt.NDArray[np.intp]:
    """Return the positions in the order of hits: query by query, nearest first, ties by smaller id.

    Ids that are strings are ordered by code point.
    """
    numbers = np.unique(ids, return_inverse=True)[1] if ids.dtype == object else ids
    order: npt.NDArray[np.intp] = np.lexsort((numbers, distances if metric == "L2" else -distances, owners))
    return order


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


def _l2(queries: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rows -= queries
    squared: npt.NDArray[np.float64] = np.vecdot(rows, rows)
    return squared


def _ip(queries: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    products: npt.NDArray[np.float64] = np.vecdot(rows, queries)
    return products


def _cosine(queries: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    divisors = np.sqrt(np.vecdot(rows, rows)) * np.sqrt(np.vecdot(queries, queries))
    divisors[divisors == 0] = np.inf
    similarities: npt.NDArray[np.float64] = np.clip(np.vecdot(rows, queries) / divisors, -1.0, 1.0)
    return similarities


_PAIRWISE = {"L2": _l2, "IP": _ip, "COSINE": _cosine}
