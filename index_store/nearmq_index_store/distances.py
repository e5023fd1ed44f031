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

#: The same for pairs: 384 KiB, which stay in the cache and in the allocator's hands; 8 MiB take twice the time.
_PAIRS_BLOCK = 3 << 14

_LARGEST = float(np.finfo(np.float32).max)


def exact_distances(
    queries: FloatMatrix, owners: RowNumbers, vectors: FloatMatrix, rows: RowNumbers, metric: Metric
) -> Distances:
    """Return the distances of pairs of a query and a row, float32 of shape (pairs,).

    L2 is squared and computed from differences, IP is the raw product, COSINE is a similarity clipped to [-1, 1] with 0
    wherever a vector is zero. What float32 cannot hold becomes its largest value, so that no distance is infinite.

    Args:
        queries: float32, shape (queries, dim), finite.
        owners: of each pair the number of its query, ascending.
        vectors: float32, shape (n, dim), finite, C-contiguous.
        rows: of each pair the number of its row in `vectors`.
    """
    distances = np.empty(len(rows), dtype=np.float32)
    step = max(1, _PAIRS_BLOCK // vectors.shape[1])
    for start in range(0, len(rows), step):
        run = slice(start, start + step)
        # Each query is widened once for all of its pairs.
        first, last = owners[start], owners[run][-1]
        wide_queries = queries[first : last + 1].astype(np.float64)
        of_pairs = None if first == last else owners[run] - first
        distances[run] = _PAIRWISE[metric](wide_queries, of_pairs, vectors.take(rows[run], axis=0).astype(np.float64))
    return distances


def nearest_first(
    owners: RowNumbers, ids: npt.NDArray[np.generic], distances: Distances, metric: Metric
) -> npt.NDArray[np.intp]:
    """Return the positions in the order of hits: query by query, nearest first, ties by smaller id.

    Ids that are strings are ordered by code point.

    Args:
        owners: of each position the number of its query, below 2^31.
        distances: none NaN; of L2 none below zero, so that their bits have their order.
    """
    # One int64 a position, that has the order of its query and distance, is sorted in a tenth of a lexsort's time.
    keys = (owners << 32) + (distances.view(np.int32) if metric == "L2" else _descending(distances))
    order: npt.NDArray[np.intp] = keys.argsort()
    ranked = keys.take(order)
    is_repeated = ranked[1:] == ranked[:-1]
    if is_repeated.any():
        is_tied = np.zeros(len(order), dtype=np.bool_)
        is_tied[1:] = is_repeated
        is_tied[:-1] |= is_repeated
        tied, names = order[is_tied], ids[order[is_tied]]
        numbers = np.unique(names, return_inverse=True)[1] if names.dtype == object else names
        order[is_tied] = tied[np.lexsort((numbers, ranked[is_tied]))]
    return order


def _descending(values: Distances) -> npt.NDArray[np.int32]:
    """Return an integer a number, smaller for larger ones: the bits of its opposite, turned around below zero."""
    bits = np.subtract(0, values).view(np.int32)  # of -0 and 0 the difference is the same
    ordered: npt.NDArray[np.int32] = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered


def lengths(vectors: FloatMatrix) -> npt.NDArray[np.float64]:
    """Return the Euclidean length of each vector, float64 of shape (n,)."""
    if vectors.size > _BLOCK:
        return np.concatenate([lengths(vectors[rows]) for rows in row_blocks(vectors)])
    wide = vectors.astype(np.float64)
    squares: npt.NDArray[np.float64] = np.vecdot(wide, wide)
    return np.sqrt(squares)


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


_Wide = npt.NDArray[np.float64]


def _l2(queries: _Wide, of_pairs: RowNumbers | None, rows: _Wide) -> _Wide:
    rows -= _at(queries, of_pairs)
    squared: _Wide = np.vecdot(rows, rows)
    return np.minimum(squared, _LARGEST, out=squared)


def _ip(queries: _Wide, of_pairs: RowNumbers | None, rows: _Wide) -> _Wide:
    return _bounded(np.vecdot(rows, _at(queries, of_pairs)), _LARGEST)


def _cosine(queries: _Wide, of_pairs: RowNumbers | None, rows: _Wide) -> _Wide:
    divisors = np.sqrt(np.vecdot(rows, rows)) * _at(np.sqrt(np.vecdot(queries, queries)), of_pairs)
    divisors[divisors == 0] = np.inf
    return _bounded(np.vecdot(rows, _at(queries, of_pairs)) / divisors, 1)


def _bounded(values: _Wide, most: float) -> _Wide:
    """Bring values between a number and its opposite, in place."""
    return np.maximum(np.minimum(values, most, out=values), -most, out=values)


def _at(values: _Wide, of_pairs: RowNumbers | None) -> _Wide:
    """Return what each pair's query has; of_pairs is None where there is one query."""
    return values if of_pairs is None else values.take(of_pairs, axis=0)


_PAIRWISE = {"L2": _l2, "IP": _ip, "COSINE": _cosine}
