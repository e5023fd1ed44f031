"""One pass over the segments for several queries: what decides it, and how the hits of its segments are merged."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nearmq_index_store.distances import Distances
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_index_store.places import Places
from nearmq_index_store.rows import Ids
from nearmq_index_store.schema import VectorField
from nearmq_index_store.search import Hits, merge, no_hits
from nearmq_worker.awaited import Awaited


class Found(NamedTuple):
    """The hits of some queries, those of one after those of the other, each query's as `search.Hits` has them.

    Attributes:
        counts: how many hits each query has.
        ids, distances, places: shape (hits of all queries,), C-contiguous; places None where nobody asked.
    """

    counts: list[int]
    ids: Ids
    distances: Distances
    places: Places | None

    @classmethod
    def of(cls, hits: Hits) -> "Found":
        """Leave out the padding."""
        counts = hits.counts.tolist()
        width = hits.ids.shape[1]
        if min(counts, default=0) == width:  # as nearly always
            places = None if hits.places is None else hits.places.reshape(-1)
            return cls(counts, hits.ids.reshape(-1), hits.distances.reshape(-1), places)
        is_hit = np.arange(width) < hits.counts[:, np.newaxis]
        return cls(
            counts, hits.ids[is_hit], hits.distances[is_hit], None if hits.places is None else hits.places[is_hit]
        )

    @classmethod
    def joined(cls, parts: Sequence["Found"]) -> "Found":
        """Take the queries of one part after those of the other."""
        if len(parts) <= 1:
            return parts[0] if parts else cls([], np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
        places = [part.places for part in parts if part.places is not None]
        return cls(
            [count for part in parts for count in part.counts],
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.distances for part in parts]),
            np.concatenate(places) if places else None,
        )

    def shares(self, lengths: Iterable[int]) -> Iterator["Found"]:
        """Yield the hits of the first so many queries, then those of as many as the next length says, and so on."""
        start = first = 0
        for length in lengths:
            counts = self.counts[start : start + length]
            start, end = start + length, first + sum(counts)
            places = None if self.places is None else self.places[first:end]
            yield Found(counts, self.ids[first:end], self.distances[first:end], places)
            first = end

    def page(self, offset: int, window: int) -> "Found":
        """Leave out of each query's hits the first `offset`, and those beyond the first `window`."""
        if not offset and max(self.counts, default=0) <= window:  # as nearly always
            return self
        counts = np.array(self.counts, dtype=np.int64)
        ranks = np.arange(len(self.ids)) - (counts.cumsum() - counts).repeat(counts)
        kept = (ranks >= offset) & (ranks < window)
        left = (counts.clip(max=window) - offset).clip(0).tolist()
        return Found(left, self.ids[kept], self.distances[kept], None if self.places is None else self.places[kept])


class Choice(NamedTuple):
    """All that decides which rows are candidates: searches of an equal choice run in one pass."""

    field: str
    params: SearchParams
    condition: Filter | None
    radius: float | None
    range_filter: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Searches of one choice over the same segments.

    Attributes:
        window: how many of the nearest rows each query gets at the most.
        awaited: the searches' jobs; the pass goes on while somebody waits for any of them.
        with_places: whether the hits are to say where their rows are.
        explain: whether any of them asks how each segment was searched.
    """

    snapshot: Snapshot
    segments: Sequence[SegmentEntry]
    choice: Choice
    window: int
    awaited: Sequence[Awaited]
    with_places: bool
    explain: bool

    @property
    def field(self) -> VectorField:
        """The vector field that is searched."""
        return self.snapshot.manifest.schema.field(self.choice.field)

    @property
    def limit(self) -> int:
        """The window, but no more than there are rows."""
        return max(1, min(sum(entry.rows for entry in self.segments), self.window))

    def merged(self, found: Sequence[Hits], queries: int) -> Found:
        """Merge what was found, slice by slice and in each slice segment by segment, into the hits of the queries."""
        if not self.segments:
            primary_key = self.snapshot.manifest.schema.primary_key
            return Found.of(no_hits(queries, self.field, primary_key, with_places=self.with_places))
        slices = range(0, len(found), len(self.segments))
        return Found.joined([Found.of(merge(found[at : at + len(self.segments)], self.limit)) for at in slices])
