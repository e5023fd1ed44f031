"""Exact candidates at the speed of a matrix product: float32 keys with a bound on their error.

One float32 product of queries and rows gives every row a key that ranks it nearly right. The key and the exact distance
(`distances.py`) of a pair differ by no more than a bound that follows from the length of the vectors and the number of
dimensions, so every row whose key is within twice that bound of the limit-th smallest key may belong to the answer, and
no other row can. Where the bound means nothing, because values are so large or small that float32 sums leave its range,
every row is a candidate.

Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1 (a dot product of d terms errs by less than
d * u / (1 - d * u) of the sum of magnitudes, in whatever order it is summed).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import FloatMatrix, FloatVector, RowNumbers, lengths, unit_vectors
from nearmq_index_store.indexes._faiss import Nearness, all_products, nearest, products
from nearmq_index_store.indexes.allowed import Mask
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.schema import Metric

#: For all that calls what is below: keys may leave the range of float32, or be unknown.
may_overflow = np.errstate(over="ignore", invalid="ignore")

#: Keys held at a time: 64 MiB of float32.
KEYS_AT_ONCE = 1 << 24

UNIT_ROUNDOFF = 2.0**-24

#: Up to so many queries a product with each of them beats the matrix product, which first packs all rows (measured on
#: 384 and on 128 dimensions: 1.3 times at one query, 1.6 and 1.4 at four, 1.3 and 1.4 at six, even at eight).
_FEW_QUERIES = 6

#: Of no more bytes of rows than this the matrix product is as fast: what it reads, or packs, stays in the cache.
_FEW_BYTES = 1 << 22

#: Lengths between which float32 products of two vectors neither overflow nor underflow.
_SHORTEST, _LONGEST = 1e-15, 1e15

_LARGEST = float(np.finfo(np.float32).max)

#: Keys of several lines that are looked at together: 512 KiB, which stay in the cache.
_KEYS_TOGETHER = 1 << 17

#: So many rows more than wanted are looked for, to see that those beyond them are too far.
_MORE_THAN_LIMIT = 16

#: Into how many strided runs a row of keys is folded to bound the limit-th smallest one.
_FOLDS = 32


class Prepared(msgspec.Struct, frozen=True):
    """Queries ready for the product.

    Attributes:
        queries: float32, shape (n, dim): scaled, and turned so that smaller products are nearer.
        slack: float64, shape (n,): how far beyond the limit-th smallest key the key of a hit can be.
    """

    queries: FloatMatrix
    slack: npt.NDArray[np.float64]

    def some(self, queries: slice | Mask) -> "Prepared":
        """Return some of the queries."""
        return Prepared(self.queries[queries], self.slack[queries])


@dataclass(frozen=True, slots=True)
class Measured:
    """What a scan has to know of the lengths of the rows.

    Attributes:
        longest: at least the length of the longest.
        terms: one a row that turns products into keys: |x|^2 is added (L2), 1 / |x| multiplied (COSINE); none for IP.
    """

    longest: float
    terms: FloatVector

    @classmethod
    def of(cls, vectors: FloatMatrix, metric: Metric) -> "Measured":
        """Measure rows, which takes one pass over them."""
        row_lengths = lengths(vectors)
        longest = np.nextafter(np.float32(min(row_lengths.max(), _LARGEST)), np.float32(np.inf))
        with np.errstate(over="ignore", divide="ignore"):
            if metric == "L2":
                terms = np.square(row_lengths)
            elif metric == "COSINE":
                terms = _inverse(row_lengths)
            else:
                terms = row_lengths[:0]
            return cls(float(longest), terms.astype(np.float32))


class Scan:
    """The rows of a segment, ready to be ranked by approximate keys; smaller keys are nearer, whatever the metric.

    Attributes:
        longest: at least the length of the longest row.
    """

    def __init__(self, vectors: FloatMatrix, metric: Metric, measured: Measured | None = None) -> None:
        """Take the rows, and what was measured of them before, if it was."""
        self._vectors = vectors
        self._metric = metric
        measured = measured or Measured.of(vectors, metric)
        self.longest = measured.longest
        self._terms = measured.terms

    @property
    def nbytes(self) -> int:
        """What it keeps beside the rows."""
        return self._terms.nbytes

    def prepare(self, queries: FloatMatrix) -> Prepared:
        """Scale the queries and bound the error of their keys."""
        relative = 2 * 1.01 * (queries.shape[1] + 8) * UNIT_ROUNDOFF
        if self._metric == "COSINE":
            return Prepared(-unit_vectors(queries), np.full(len(queries), relative))
        if self._metric == "IP":
            scale = lengths(queries) * self.longest
            return Prepared(-queries, _bound(relative, scale))
        scale = np.square(lengths(queries) + self.longest)
        return Prepared(-2 * queries, _bound(relative, scale))

    def keys(self, prepared: FloatMatrix, start: int, stop: int) -> FloatMatrix:
        """Return the keys of the rows start..stop for prepared queries, shape (n, stop - start); NaN is unknown."""
        rows = self._vectors[start:stop]
        keys = np.empty((len(prepared), len(rows)), dtype=np.float32)
        if len(prepared) <= _FEW_QUERIES and rows.nbytes > _FEW_BYTES:
            all_products(prepared, rows, keys)
        else:
            np.matmul(prepared, rows.T, out=keys)
        self._combine(keys, slice(start, stop))
        return keys

    def nearest_at(self, prepared: FloatVector, slack: float, rows: RowNumbers, limit: int) -> RowNumbers:
        """Return those of some rows that may be the nearest `limit` ones to one prepared query.

        Nearly always one pass over them is enough, which keeps only the nearest few. Their distances err by no more
        than keys do, so where the last of the few is farther than a hit can be, no other row is one.
        """
        if limit >= len(rows):
            return rows
        slack_of_few = self._slack_of_few(slack)
        if slack_of_few < math.inf:
            few = min(limit + _MORE_THAN_LIMIT, len(rows))
            by: Nearness = "L2" if self._metric == "L2" else "IP"
            query = prepared * np.float32(-0.5 if by == "L2" else -1)
            found, farness = nearest(query, self._vectors, rows, few, by=by)
            near = int(farness.searchsorted(farness[limit - 1] + np.float64(slack_of_few), side="right"))
            if near < few or few == len(rows):
                return found[:near]
        keys = products(prepared, self._vectors, rows)
        self._combine(keys, rows)
        return rows[closest(keys, limit, slack)]

    def _slack_of_few(self, slack: float) -> float:
        """Return what the slack is where rows are ranked by their distance, or inner product, instead of keys.

        By COSINE, rows of one length are in the order of their inner products, and rows that hardly differ in length
        nearly so; infinite where they differ by more than keys err.
        """
        if self._metric != "COSINE":
            return slack
        differing = 2 * (self.longest - self._shortest)
        slack *= self.longest
        return slack + differing if differing <= slack else math.inf

    @cached_property
    def _shortest(self) -> float:
        """The length of the shortest row but those of zeros; NaN where that of some row is unknown."""
        largest_inverse = float(self._terms.max())
        return 1 / largest_inverse if largest_inverse else self.longest

    def _combine(self, products: FloatMatrix | FloatVector, rows: slice | RowNumbers) -> None:
        """Turn products with some rows into keys, in place."""
        if len(self._terms):
            combine = np.add if self._metric == "L2" else np.multiply
            combine(products, self._terms[rows], out=products)

    def key_at(self, queries: FloatMatrix, distance: float) -> npt.NDArray[np.float64]:
        """Return the key that a row at some distance has for each query (as given), but for rounding; shape (n,)."""
        if self._metric == "L2":
            return distance - np.square(lengths(queries))
        return np.full(len(queries), -distance)


def in_range(vectors: FloatMatrix, metric: Metric) -> bool:
    """Say whether float32 sums over these vectors stay in range, as native builders need: faiss aborts on overflow."""
    return metric == "COSINE" or bool(lengths(vectors).max() < _LONGEST)


def closest(keys: FloatVector, limit: int, slack: float) -> RowNumbers:
    """Return the positions of all keys that may be among the `limit` smallest when each may err by half the slack."""
    runs = len(keys) // _FOLDS
    if limit * 4 > runs:
        return _closest(keys, limit, slack)
    # The limit-th smallest minimum of disjoint groups is no smaller than the limit-th smallest key: a cheap first cut.
    # Strided groups, so that near-duplicates, which sit side by side, fall into different ones.
    minima = keys[: runs * _FOLDS].reshape(_FOLDS, runs).min(axis=0)
    coarse = np.flatnonzero(~(keys > cut(minima, limit, slack)))
    return coarse[_closest(keys[coarse], limit, slack)]


def cut(keys: FloatMatrix | FloatVector, limit: int, slack: float | npt.NDArray[np.float64]) -> FloatVector:
    """Return a key above which none of a line can be among its `limit` smallest when each may err by half the slack.

    Args:
        keys: one line, shape (m,), or several of shape (n, m).
        slack: one a line, or one for all.
    """
    if limit > keys.shape[-1]:
        return np.full(keys.shape[:-1], np.inf, dtype=np.float32)
    return above(np.add(np.partition(keys, limit - 1)[..., limit - 1], slack, dtype=np.float64))


def above(bounds: npt.NDArray[np.float64]) -> FloatVector:
    """Return float32 values that are above the bounds, though hardly; infinity where there are none."""
    return np.nextafter(bounds.astype(np.float32), np.float32(np.inf))


def closest_of_each(keys: FloatMatrix, limit: int, slacks: npt.NDArray[np.float64]) -> Candidates:
    """Return for each line of keys, shape (n, m), what `closest` does, and perhaps a few more."""
    lines, length = keys.shape
    if limit >= length:
        return Candidates.same(np.arange(length), lines)
    step = max(1, _KEYS_TOGETHER // length)
    return Candidates.joined(
        [
            _closest_of_each(keys[some : some + step], limit, slacks[some : some + step])
            for some in range(0, lines, step)
        ]
    )


def _closest_of_each(keys: FloatMatrix, limit: int, slacks: npt.NDArray[np.float64]) -> Candidates:
    lines, length = keys.shape
    runs = length // _FOLDS
    heads = keys if limit * 4 > runs else keys[:, : runs * _FOLDS].reshape(lines, _FOLDS, runs).min(axis=1)
    # Written so that NaN keys, of which nothing is known, stay in.
    found = np.flatnonzero(~(keys > cut(heads, limit, slacks)[:, np.newaxis]))
    owners = found // length
    return Candidates(found - owners * length, np.bincount(owners, minlength=lines))


def closest_beyond(keys: FloatVector, limit: int, slack: float, near_end: float) -> RowNumbers:
    """As `closest`, of the rows that are not nearer than a key; among them all for which that is not certain."""
    # float64 bounds, so that numpy does not round them to the keys' float32.
    certain = keys > np.float64(near_end + slack)
    doubtful = np.flatnonzero(~certain & ~(keys < np.float64(near_end - slack)))
    found = closest(np.where(certain, keys, np.float32(np.inf)), limit, slack)
    return np.concatenate([doubtful, found[certain[found]]])


def _closest(keys: FloatVector, limit: int, slack: float) -> RowNumbers:
    if limit >= len(keys):
        return np.arange(len(keys))
    # Written so that NaN keys, of which nothing is known, stay in.
    return np.flatnonzero(~(keys > cut(keys, limit, slack)))


def _bound(relative: float, scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    trusted = (scale > _SHORTEST**2) & (scale < _LONGEST**2)
    return relative * (scale if trusted.all() else np.where(trusted, scale, np.inf))


def _inverse(row_lengths: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    inverse = 1 / row_lengths
    inverse[(row_lengths < _SHORTEST) | (row_lengths > _LONGEST)] = np.nan
    inverse[row_lengths == 0] = 0
    return inverse
