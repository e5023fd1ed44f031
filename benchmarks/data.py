"""Rows and queries, and how good an answer is."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 10

_REAL = ROOT.parent / "shared" / "data" / "pypi_minilm_30k.f16.npy"
_REAL_ROWS = 29_000
_QUERIES = 1_000
_LIKEST = 128
#: Hits within this share of the true last one's distance count: real data holds ties.
_TIE = 1e-5

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Data:
    """Rows to search and queries to search them with, float32; of unit length where the metric is COSINE.

    Filters that go with the queries go with those that are most like one direction, `likest`.
    """

    name: str
    metric: str
    rows: Matrix
    queries: Matrix

    @property
    def dim(self) -> int:
        """Of a vector."""
        return self.rows.shape[1]

    @cached_property
    def likest(self) -> Matrix:
        """The queries most like one direction."""
        likeness = self.queries @ self._direction
        return np.ascontiguousarray(self.queries[np.argsort(-likeness, kind="stable")[:_LIKEST]])

    @cached_property
    def scalars(self) -> dict[str, npt.NDArray[np.int64]]:
        """Fields by which a filter allows any number of rows: at random, or those most or least like the direction."""
        last = len(self.rows) - 1
        by_likeness = np.argsort(np.argsort(-(self.rows @ self._direction), kind="stable"))
        at_random = np.random.default_rng(5).permutation(len(self.rows))
        return {"at_random": at_random, "by_likeness": by_likeness, "by_unlikeness": last - by_likeness}

    @cached_property
    def _direction(self) -> Matrix:
        direction: Matrix = self.rows[: len(self.rows) // 100].mean(axis=0)
        return direction

    @cached_property
    def truth(self) -> "Truth":
        """The true hits of the queries among all rows."""
        return Truth(self.rows, self.queries)


class Truth:
    """How far the true hits of some queries are: what answers are judged by, since data may hold ties.

    Of unit vectors, squared distance and cosine similarity give the same order.
    """

    def __init__(self, rows: Matrix, queries: Matrix) -> None:
        self._queries = queries
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows)
        _, found = index.search(queries, LIMIT)
        self._last = _distances(rows, queries, found).max(axis=1)

    def recall(self, rows: Matrix, found: npt.NDArray[np.int64]) -> float:
        """Return the share of hits that are no farther than the true last one.

        Args:
            found: numbers of `rows`, a line a query; what lacks is -1.
        """
        hits = _distances(rows, self._queries, found) <= self._last[:, np.newaxis] * (1 + _TIE) + _TIE
        return float((hits & (found >= 0)).sum() / (len(found) * LIMIT))


def _distances(rows: Matrix, queries: Matrix, found: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    differences = rows[found].astype(np.float64) - queries[:, np.newaxis]
    distances: npt.NDArray[np.float64] = np.einsum("qhd,qhd->qh", differences, differences)
    return distances


def synth(rows: int, dim: int = 128) -> Data:
    """Make clustered rows, by L2; queries are of the same clusters."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((1_000, dim), dtype=np.float32)
    vectors = centres[random.integers(len(centres), size=rows + _QUERIES)]
    vectors += 0.4 * random.standard_normal(vectors.shape, dtype=np.float32)
    return Data(f"{rows:,} x {dim} clustered, L2", "L2", vectors[:rows], vectors[rows:])


def real() -> Data | None:
    """Return sentence embeddings, where the project's shared data is."""
    if not _REAL.exists():
        return None
    vectors = np.load(_REAL).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, queries = vectors[:_REAL_ROWS], vectors[_REAL_ROWS : _REAL_ROWS + _QUERIES]
    return Data(f"{len(rows):,} x {vectors.shape[1]} sentence embeddings, COSINE", "COSINE", rows, queries)
