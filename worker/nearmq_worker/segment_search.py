"""A pass over the segments: each segment and slice of the queries on a thread, merged, explained where asked."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from nearmq_index_store.deletes import DeletesReader
from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.manifest import SegmentEntry
from nearmq_index_store.search import Hits, search_part
from nearmq_worker.awaited import check_any
from nearmq_worker.cache import SegmentCache
from nearmq_worker.search_pass import Found, Pass

#: Fewest queries that are worth handing to another thread.
_SLICE_QUERIES = 64
#: Most queries that search a segment without asking whether anybody still waits. What a slice costs beside its walks
#: runs cold each time: 1,000 HNSW queries (ef 32) take 2 to 4 % longer in slices of 256, and 8 to 10 % in those of 128.
_LONGEST_SLICE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What was found for a slice of the queries in one segment.

    Attributes:
        cached: whether the segment was in memory before.
    """

    hits: Hits
    cached: bool
    load_s: float
    search_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a pass found.

    Attributes:
        found: the hits of the queries, in their order.
        load_s: the longest that a segment took to load.
        search_s: what else the pass took.
        explained: how each segment was searched, as the wire has it; empty where nobody asks.
    """

    found: Found
    load_s: float
    search_s: float
    explained: list[dict[str, Any]]


class SegmentSearcher:
    """Runs passes on threads of its own. Safe for many threads."""

    def __init__(self, cache: SegmentCache, deletes: DeletesReader, threads: int) -> None:
        self._cache = cache
        self._deletes = deletes
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nearmq-search")

    def close(self) -> None:
        """End the search threads, as soon as each has searched its segment; nothing more is begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def search(self, part: Pass, queries: FloatMatrix) -> Answer:
        """Find the hits of each query, float32 of shape (queries, dim), at least one.

        Raises:
            DeadlineExceeded, Cancelled: nobody waits any more.
            ResourceExhausted, IndexCorrupt, StoreUnavailable: as loading a segment raised.
        """
        began = time.monotonic()
        slices = _slices(len(queries), self._threads)
        units = [(number, queries[rows]) for rows in slices for number in range(len(part.segments))]
        run = self._pool.map if len(units) > 1 else map
        done = list(run(lambda unit: self._run(part, *unit), units))
        found = part.merged([unit.hits for unit in done], len(queries))
        load_s = max((unit.load_s for unit in done), default=0.0)
        return Answer(
            found=found,
            load_s=load_s,
            search_s=time.monotonic() - began - load_s,
            explained=_all_explained(part.segments, done) if part.explain else [],
        )

    def _run(self, part: Pass, number: int, queries: FloatMatrix) -> Unit:
        """Search the segment of a number."""
        check_any(part.awaited)
        entry, choice = part.segments[number], part.choice
        asked = time.monotonic()
        with self._cache.use(part.snapshot.manifest, entry, choice.field) as used:
            loaded = time.monotonic()
            hits = search_part(
                used.segment,
                queries,
                part.limit,
                choice.params,
                deleted=self._deletes.deleted(entry),
                condition=choice.condition,
                radius=choice.radius,
                range_filter=choice.range_filter,
                part=number if part.with_places else None,
            )
            return Unit(hits=hits, cached=used.cached, load_s=loaded - asked, search_s=time.monotonic() - loaded)


def _all_explained(segments: Sequence[SegmentEntry], units: Sequence[Unit]) -> list[dict[str, Any]]:
    return [_explained(entry, units[number :: len(segments)]) for number, entry in enumerate(segments)]


def _explained(entry: SegmentEntry, units: Sequence[Unit]) -> dict[str, Any]:
    """Return how a segment was searched, over all slices of the queries."""
    told = [unit.hits.explanation for unit in units if unit.hits.explanation is not None]
    through_index = next((one for one in told if one.way == "index"), told[0])
    return {
        "segment": entry.id,
        "partition": entry.partition,
        "rows": through_index.rows,
        "deleted": through_index.deleted,
        "allowed": through_index.allowed,
        "selectivity": through_index.selectivity,
        "index": through_index.index,
        "way": through_index.way,
        "params": dict(through_index.params),
        "exact_queries": sum(one.exact_queries for one in told),
        "cached": all(unit.cached for unit in units),
        "filter_cached": through_index.cached,
        "load_ms": round(max(unit.load_s for unit in units) * 1_000, 3),
        "search_ms": round(sum(unit.search_s for unit in units) * 1_000, 3),
    }


def _slices(queries: int, threads: int) -> list[slice]:
    """Cut the queries into a slice a thread, or more that none is too long, but none too small to be worth it."""
    count = max(1, min(threads, queries // _SLICE_QUERIES), -(-queries // _LONGEST_SLICE))
    bounds = [queries * part // count for part in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
