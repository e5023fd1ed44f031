"""The hits of a search: arrays over all of its queries, and views of them for one query."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64] | npt.NDArray[np.object_]


class Hit(NamedTuple):
    """One neighbour: its id and its distance to the query."""

    id: int | str
    distance: float


class QueryHits(Sequence[Hit]):
    """The hits of one query, nearest first, ties by smaller id.

    Attributes:
        ids: shape (hits,); int64, or str objects where the collection's primary key is string.
        distances: float32, shape (hits,): L2 squared ascending; IP and COSINE similarity descending.
        fields: of each output field the list of its values, in the order of the hits; empty where none was asked for.
    """

    __slots__ = ("distances", "fields", "ids")

    def __init__(
        self, ids: Ids, distances: npt.NDArray[np.float32], fields: dict[str, list[Any]] | None = None
    ) -> None:
        self.ids = ids
        self.distances = distances
        self.fields = fields or {}

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return list(map(Hit, self.ids[index].tolist(), self.distances[index].tolist()))
        return Hit(self.ids[index : index + 1 or None].tolist()[0], float(self.distances[index]))

    def __iter__(self) -> Iterator[Hit]:
        return map(Hit, self.ids.tolist(), self.distances.tolist())

    def __repr__(self) -> str:
        fields = f", fields={self.fields!r}" if self.fields else ""
        return f"QueryHits(ids={self.ids!r}, distances={self.distances!r}{fields})"


class Hits(Sequence[QueryHits]):
    """The hits of some queries, those of one after those of the other: a thousand queries are three objects.

    Attributes:
        counts: how many hits each query has.
        ids, distances: as those of one query, shape (hits of all queries,), C-contiguous.
        fields: of each query its output fields, or None; None where none were asked for.
    """

    __slots__ = ("_ends", "counts", "distances", "fields", "ids")

    def __init__(
        self,
        counts: Sequence[int],
        ids: Ids,
        distances: npt.NDArray[np.float32],
        fields: Sequence[dict[str, list[Any]] | None] | None = None,
    ) -> None:
        self.counts = counts
        self.ids = ids
        self.distances = distances
        self.fields = fields
        self._ends = [0, *accumulate(counts)]

    def __len__(self) -> int:
        return len(self.counts)

    @overload
    def __getitem__(self, index: int) -> QueryHits: ...
    @overload
    def __getitem__(self, index: slice) -> list[QueryHits]: ...
    def __getitem__(self, index: int | slice) -> QueryHits | list[QueryHits]:
        if isinstance(index, slice):
            return list(self)[index]
        query = range(len(self.counts))[index]
        hits = slice(self._ends[query], self._ends[query + 1])
        return QueryHits(self.ids[hits], self.distances[hits], self.fields[query] if self.fields else None)

    def __iter__(self) -> Iterator[QueryHits]:
        ids, distances = self.ids, self.distances
        every = self.fields or repeat(None, len(self))
        for (start, end), fields in zip(pairwise(self._ends), every, strict=True):
            yield QueryHits(ids[start:end], distances[start:end], fields)

    def __repr__(self) -> str:
        return f"Hits({list(self)!r})"
