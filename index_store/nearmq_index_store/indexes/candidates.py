"""The rows among which the hits of a batch of queries are, as two arrays: nobody has to loop over the queries."""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import RowNumbers

_NONE = np.empty(0, dtype=np.int64)


class Candidates(msgspec.Struct, frozen=True):
    """Rows of each of n queries.

    Attributes:
        rows: int64: those of the first query, then those of the second, and so on; no query has one twice.
        counts: int64, shape (n,): how many each query has.
    """

    rows: RowNumbers
    counts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, found: Sequence[RowNumbers]) -> "Candidates":
        """Take the rows of one query after the other."""
        counts = np.array([len(rows) for rows in found], dtype=np.int64)
        return cls(found[0] if len(found) == 1 else np.concatenate([*found, _NONE]), counts)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Take those of one batch of queries after the other."""
        if len(parts) <= 1:
            return parts[0] if parts else cls.of(())
        return cls(np.concatenate([part.rows for part in parts]), np.concatenate([part.counts for part in parts]))

    @classmethod
    def same(cls, rows: RowNumbers, queries: int) -> "Candidates":
        """Give so many queries the same rows."""
        return cls(rows if queries == 1 else np.tile(rows, queries), np.full(queries, len(rows)))

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[RowNumbers]:
        """Yield the rows of each query."""
        ends = np.cumsum(self.counts).tolist()
        for end, count in zip(ends, self.counts.tolist(), strict=True):
            yield self.rows[end - count : end]

    def without(self) -> npt.NDArray[np.int64]:
        """Return the numbers of the queries that have none, ascending."""
        return np.flatnonzero(self.counts == 0)

    def filled(self, queries: RowNumbers, others: "Candidates") -> "Candidates":
        """Give some queries, by their numbers, that have none those of others."""
        counts = self.counts.copy()
        counts[queries] = others.counts
        owners = [np.arange(len(self)).repeat(self.counts), queries.repeat(others.counts)]
        by_query = np.concatenate(owners).argsort(kind="stable")
        return Candidates(np.concatenate([self.rows, others.rows])[by_query], counts)

    def among(self, allowed: npt.NDArray[np.bool_]) -> "Candidates":
        """Leave out all rows but those that are allowed, by row number."""
        kept = allowed[self.rows]
        owners = np.arange(len(self)).repeat(self.counts)
        return Candidates(self.rows[kept], np.bincount(owners[kept], minlength=len(self)))

    def taken(self, numbers: RowNumbers) -> "Candidates":
        """Return, where rows are positions in an array of row numbers, the row numbers."""
        return Candidates(numbers[self.rows], self.counts)
