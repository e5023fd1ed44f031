"""One pass over the segments for several searches: what decides it, and how their hits are merged and cut apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nearmq.jobs import SearchJob
from nearmq_index_store.distances import Distances, FloatMatrix
from nearmq_index_store.filters import Filter
from nearmq_index_store.indexes.protocol import SearchParams
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_index_store.rows import Ids
from nearmq_index_store.schema import VectorField
from nearmq_index_store.search import Hits, Places, merge, no_hits


class Found(NamedTuple):
    """The hits of one query, as `search.Hits` has those of several."""

    ids: Ids
    distances: Distances
    places: Places | None


@dataclass(frozen=True, slots=True)
class Search:
    """A search that passed all checks.

    Attributes:
        place: of its task in the batch.
        queries: float32, shape (queries, dim).
        output_fields: the scalar fields to return; None where the job asks for none.
        expires_at: `time.monotonic()` after which nobody waits for it.
    """

    place: int
    job: SearchJob
    queries: FloatMatrix
    output_fields: Sequence[str] | None
    expires_at: float

    @property
    def window(self) -> int:
        """How many of the nearest rows decide the answer: those skipped, and those given."""
        return self.job.offset + self.job.limit

    def cut(self, found: Found) -> Found:
        """Cut this search's hits of one query from those of a window at least as large."""
        page = slice(self.job.offset, self.window)
        distances = found.distances[page]
        if self.job.round_decimal >= 0:
            distances = distances.round(self.job.round_decimal)
        return Found(found.ids[page], distances, None if found.places is None else found.places[page])


class Choice(NamedTuple):
    """All that decides which rows are candidates: searches of an equal choice run in one pass."""

    field: str
    params: SearchParams
    condition: Filter | None


@dataclass(frozen=True, slots=True)
class Pass:
    """Searches of one choice over the same segments."""

    snapshot: Snapshot
    segments: Sequence[SegmentEntry]
    choice: Choice
    searches: Sequence[Search]

    @property
    def field(self) -> VectorField:
        """The vector field that is searched."""
        return self.snapshot.manifest.schema.field(self.choice.field)

    @property
    def limit(self) -> int:
        """The largest window, but no more than there are rows."""
        rows = sum(entry.rows for entry in self.segments)
        return max(1, min(rows, max(search.window for search in self.searches)))

    @property
    def expires_at(self) -> float:
        """When nobody waits for any of the searches."""
        return max(search.expires_at for search in self.searches)

    @property
    def with_places(self) -> bool:
        """Whether a search asks for fields, and so where its hits' rows are."""
        return any(search.output_fields is not None for search in self.searches)

    def merged(self, found: Sequence[Hits], queries: int) -> list[Found]:
        """Merge what was found, slice by slice and in each slice segment by segment, into the hits of each query."""
        if self.segments:
            slices = range(0, len(found), len(self.segments))
            merged = [merge(found[at : at + len(self.segments)], self.limit) for at in slices]
        else:
            primary_key = self.snapshot.manifest.schema.primary_key
            merged = [no_hits(queries, self.field, primary_key, with_places=self.with_places)]
        return [
            Found(
                hits.ids[query, :count],
                hits.distances[query, :count],
                None if hits.places is None else hits.places[query, :count],
            )
            for hits in merged
            for query, count in enumerate(hits.counts.tolist())
        ]
