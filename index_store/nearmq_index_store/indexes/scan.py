"""Exact candidates at the speed of a matrix product: float32 keys with a bound on their error.

One float32 product of queries and rows gives every row a key that ranks it nearly right. The key and the exact distance
(`distances.py`) of a pair differ by no more than a bound that follows from the length of the vectors and the number of
dimensions, so every row whose key is within twice that bound of the limit-th smallest key may belong to the answer, and
no other row can. Where the bound means nothing, because values are so large or small that float32 sums leave its range,
every row is a candidate.

Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1 (a dot product of d terms errs by less than
d * u / (1 - d * u) of the sum of magnitudes, in whatever order it is summed).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import FloatMatrix, RowNumbers, lengths, unit_vectors
from nearmq_index_store.schema import Metric

#: Keys held at a time: 64 MiB of float32.
KEYS_AT_ONCE = 1 << 24

_UNIT_ROUNDOFF = 2.0**-24

#: Up to so many queries a dot product a row beats the matrix product, which first packs all rows (measured: 2.7 times
#: at one query, even at eight).
_FEW_QUERIES = 6

#: Lengths between which float32 products of two vectors neither overflow nor underflow.
_SHORTEST, _LONGEST = 1e-15, 1e15

#: Into how many strided runs a row of keys is folded to bound the limit-th smallest one.
_FOLDS = 32


@dataclass(frozen=True, slots=True)
class Prepared:
    """Queries ready for the product.

    Attributes:
        queries: float32, shape (n, dim): scaled, and turned so that smaller products are nearer.
        slack: float64, shape (n,): how far beyond the limit-th smallest key the key of a hit can be.
    """

    queries: FloatMatrix
    slack: npt.NDArray[np.float64]


class Scan:
    """The rows of a segment, ready to be ranked by approximate keys; smaller keys are nearer, whatever the metric."""

    def __init__(self, vectors: FloatMatrix, metric: Metric) -> None:
        self._vectors = vectors
        self._metric = metric
        row_lengths = lengths(vectors)
        self._longest = float(row_lengths.max())
        # One float32 a row that turns products into keys: |x|^2 is added (L2), 1 / |x| multiplied (COSINE).
        self._terms: npt.NDArray[np.float32] | None = None
        with np.errstate(over="ignore", divide="ignore"):
            if metric == "L2":
                self._terms = np.square(row_lengths).astype(np.float32)
            elif metric == "COSINE":
                self._terms = _inverse(row_lengths).astype(np.float32)

    def prepare(self, queries: FloatMatrix) -> Prepared:
        """Scale the queries and bound the error of their keys."""
        relative = 2 * 1.01 * (queries.shape[1] + 8) * _UNIT_ROUNDOFF
        if self._metric == "COSINE":
            return Prepared(-unit_vectors(queries), np.full(len(queries), relative))
        if self._metric == "IP":
            scale = lengths(queries) * self._longest
            return Prepared(-queries, _bound(relative, scale))
        scale = np.square(lengths(queries) + self._longest)
        with np.errstate(over="ignore"):
            return Prepared(-2 * queries, _bound(relative, scale))

    def keys(self, prepared: FloatMatrix, start: int, stop: int) -> FloatMatrix:
        """Return the keys of the rows start..stop for prepared queries, shape (n, stop - start); NaN is unknown."""
        rows = self._vectors[start:stop]
        few = len(prepared) <= _FEW_QUERIES
        with np.errstate(over="ignore", invalid="ignore"):
            keys = np.vecdot(rows, prepared[:, np.newaxis]) if few else prepared @ rows.T
            if self._terms is not None:
                combine = np.add if self._metric == "L2" else np.multiply
                combine(keys, self._terms[start:stop], out=keys)
        return keys


def in_range(vectors: FloatMatrix, metric: Metric) -> bool:
    """Say whether float32 sums over these vectors stay in range, as native builders need: faiss aborts on overflow."""
    return metric == "COSINE" or bool(lengths(vectors).max() < _LONGEST)


def closest(keys: npt.NDArray[np.float32], limit: int, slack: float) -> RowNumbers:
    """Return the positions of all keys that may be among the `limit` smallest when each may err by half the slack."""
    runs = len(keys) // _FOLDS
    if limit * 4 > runs:
        return _closest(keys, limit, slack)
    # The limit-th smallest minimum of disjoint groups is no smaller than the limit-th smallest key: a cheap first cut.
    # Strided groups, so that near-duplicates, which sit side by side, fall into different ones.
    minima = keys[: runs * _FOLDS].reshape(_FOLDS, runs).min(axis=0)
    coarse = np.flatnonzero(~(keys > _cut(minima, limit, slack)))
    return coarse[_closest(keys[coarse], limit, slack)]


def _closest(keys: npt.NDArray[np.float32], limit: int, slack: float) -> RowNumbers:
    if limit >= len(keys):
        return np.arange(len(keys))
    # Written so that NaN keys, of which nothing is known, stay in.
    return np.flatnonzero(~(keys > _cut(keys, limit, slack)))


def _cut(keys: npt.NDArray[np.float32], limit: int, slack: float) -> np.float32:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.float32(float(np.partition(keys, limit - 1)[limit - 1]) + slack)
        above: np.float32 = np.nextafter(rounded, np.float32(np.inf))
        return above


def _bound(relative: float, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    trusted = (scale > _SHORTEST**2) & (scale < _LONGEST**2)
    return np.where(trusted, relative * scale, np.inf)


def _inverse(row_lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inverse = 1 / row_lengths
    inverse[(row_lengths < _SHORTEST) | (row_lengths > _LONGEST)] = np.nan
    inverse[row_lengths == 0] = 0
    return inverse
