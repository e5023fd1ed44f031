"""One pass over the segments for several queries: what decides it, and how the hits of its segments are merged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
    """The hits of one query, as `search.Hits` has those of several."""

    ids: Ids
    distances: Distances
    places: Places | None


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
    """

    snapshot: Snapshot
    segments: Sequence[SegmentEntry]
    choice: Choice
    window: int
    awaited: Sequence[Awaited]
    with_places: bool

    @property
    def field(self) -> VectorField:
        """The vector field that is searched."""
        return self.snapshot.manifest.schema.field(self.choice.field)

    @property
    def limit(self) -> int:
        """The window, but no more than there are rows."""
        return max(1, min(sum(entry.rows for entry in self.segments), self.window))

    def merged(self, found: Sequence[Hits], queries: int) -> list[Found]:
        """Merge what was found, slice by slice and in each slice segment by segment, into the hits of each query."""
        if self.segments:
            slices = range(0, len(found), len(self.segments))
            merged = [merge(found[at : at + len(self.segments)], self.limit) for at in slices]
        else:
            merged = [self._nothing(queries)]
        return [
            Found(
                hits.ids[query, :count],
                hits.distances[query, :count],
                None if hits.places is None else hits.places[query, :count],
            )
            for hits in merged
            for query, count in enumerate(hits.counts.tolist())
        ]

    def no_hits(self) -> Found:
        """Return what a query finds that finds nothing."""
        nothing = self._nothing(1)
        return Found(nothing.ids[0], nothing.distances[0], None if nothing.places is None else nothing.places[0])

    def _nothing(self, queries: int) -> Hits:
        primary_key = self.snapshot.manifest.schema.primary_key
        return no_hits(queries, self.field, primary_key, with_places=self.with_places)
