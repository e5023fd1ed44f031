"""The way through one segment: by its index, or by an exact scan of the rows that the search may return.

Chosen by a rule that knows only rows, allowed rows and params, never the time, the batch or what is in memory; so a
query gets the same answer alone, in any batch, and again tomorrow.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np

from nearmq_index_store.deletes import DeletedRows
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes.candidates import Candidates
from nearmq_index_store.indexes.exact import scanned_rows
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.narrowed import Narrowed
from nearmq_index_store.segment import Segment

Way = Literal["index", "exact"]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How a segment was searched.

    Attributes:
        rows: of the segment, deleted ones included.
        deleted: how many of them are deleted.
        allowed: how many the search may return: not deleted, and let through by the filter.
        index: the kind of the segment's index, which is FLAT where the declared one was not built.
        used: the params with which the index was searched, widened to the share of allowed rows (and further for
            queries that found too few); None for an exact scan.
        cached: whether the mask of the allowed rows was there already; False without filter and deletes.
        exact_queries: how many queries were answered exactly, all or those for which the index found too few rows.
    """

    rows: int
    deleted: int
    allowed: int
    index: str
    used: SearchParams | None
    cached: bool
    exact_queries: int

    @property
    def selectivity(self) -> float:
        """The allowed share of all rows, 0..1."""
        return self.allowed / self.rows

    @property
    def way(self) -> Way:
        """Through the index, or by an exact scan."""
        return "exact" if self.used is None else "index"

    @property
    def params(self) -> Mapping[str, int]:
        """Those used, by name, without those of other kinds; empty for an exact scan."""
        if self.used is None:
            return {}
        named = {"ef": self.used.ef, "nprobe": self.used.nprobe, "candidates": self.used.candidates}
        return {name: value for name, value in named.items() if value}


def find_candidates(
    segment: Segment,
    queries: FloatMatrix,
    limit: int,
    params: SearchParams,
    *,
    deleted: DeletedRows,
    condition: Filter | None,
    near_end: float | None,
) -> tuple[Candidates, Explanation]:
    """Choose a way, and the rows among which each query's hits are.

    Args:
        near_end: a distance that hits must not be nearer than.
    """
    # With a near end the index, which looks for the nearest rows, is of no use.
    chosen = segment.chosen(params) if near_end is None else None
    rows, cached = len(segment.rows), False
    if condition is None and not len(deleted):
        allowed = rows
        if chosen is None:
            found = segment.whole.scan().nearest(queries, limit, near_end=near_end)
        else:
            found = segment.index.candidates(queries, limit, chosen)
        used = None if segment.kind == "FLAT" else chosen
        exact = len(queries) if used is None else 0
    else:
        cached = segment.keeps(deleted, condition)
        narrowed = segment.narrowed(deleted, condition)
        allowed = narrowed.allowed.count
        found, used, exact = _among(narrowed, queries, limit, chosen, near_end)
        segment.trim()
    return found, Explanation(
        rows=rows,
        deleted=len(deleted),
        allowed=allowed,
        index=segment.kind,
        used=used,
        cached=cached,
        exact_queries=exact,
    )


def _among(
    narrowed: Narrowed, queries: FloatMatrix, limit: int, params: SearchParams | None, near_end: float | None
) -> tuple[Candidates, SearchParams | None, int]:
    """Search among some rows, exactly without params; return also those that the index had, and how many exactly."""
    if not narrowed.allowed.count:
        return Candidates.same(np.empty(0, dtype=np.int64), len(queries)), None, len(queries)
    index = None if params is None else narrowed.index
    if params is None or index is None or scanned_rows(narrowed.allowed) <= index.cost(params):
        return narrowed.exact().nearest(queries, limit, near_end), None, len(queries)
    found = index.candidates(queries, limit, params)
    short = found.without()
    if len(short):
        found = found.filled(short, narrowed.exact().nearest(queries[short], limit))
    return found, index.widened(params), len(short)
