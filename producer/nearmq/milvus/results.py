"""What Milvus's calls give back: hits, rows as dicts, and the counts of a write."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from nearmq.results import QueryHits, SearchResults
from nearmq.row_results import Rows


class Hit(NamedTuple):
    """One neighbour: its id, its distance to the query, and its output fields by name."""

    id: int | str
    distance: float
    entity: Mapping[str, Any]


class Hits(list[Hit]):
    """The hits of one query in Milvus's shape: `ids` and `distances` are lists, `fields` has the output fields."""

    def __init__(self, hits: QueryHits) -> None:
        entities = [{name: values[rank] for name, values in hits.fields.items()} for rank in range(len(hits))]
        super().__init__(Hit(hit.id, hit.distance, entity) for hit, entity in zip(hits, entities, strict=True))
        self.ids: list[int | str] = hits.ids.tolist()
        self.distances: list[float] = hits.distances.tolist()
        self.fields = hits.fields


class SearchResult(list[Hits]):
    """One `Hits` a query."""

    def __init__(self, results: SearchResults) -> None:
        super().__init__(map(Hits, results))


class SearchFuture:
    """A search under way, as `search(_async=True)` returns it."""

    def __init__(self, future: Future[SearchResults], callback: Callable[[SearchResult], None] | None) -> None:
        self._future = future
        if callback is not None:
            future.add_done_callback(lambda done: callback(SearchResult(done.result())))

    def result(self, timeout: float | None = None) -> SearchResult:
        """Wait for the result, at most `timeout` seconds."""
        return SearchResult(self._future.result(timeout))

    def done(self) -> bool:
        """Say whether the result is there."""
        return self._future.done()

    def cancel(self) -> None:
        """Stop waiting for it."""
        self._future.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class MutationResult:
    """The counts of a write.

    Attributes:
        insert_count: rows that an insert wrote.
        upsert_count: rows that an upsert wrote, those that were replaced among them.
        delete_count: rows that a delete deleted.
        primary_keys: the ids of the rows that were written; of a delete none, for it names them by an expression.
        timestamp: the collection's version that has the write, which only ever grows.
    """

    insert_count: int = 0
    upsert_count: int = 0
    delete_count: int = 0
    primary_keys: Sequence[int] | Sequence[str] = ()
    timestamp: int = 0


class QueryIterator:
    """Rows in batches, of one version throughout: `next` until it gives none."""

    def __init__(self, batches: Iterator[Rows]) -> None:
        self._batches = batches

    def next(self) -> list[dict[str, Any]]:
        """Return the next rows as dicts; an empty list after the last."""
        batch = next(self._batches, None)
        return [] if batch is None else as_dicts(batch)

    def close(self) -> None:
        """Read no further."""
        self._batches = iter(())


def as_dicts(rows: Rows) -> list[dict[str, Any]]:
    """Return rows as Milvus has them: dicts with the id, the fields, and vectors as lists."""
    vectors = {name: matrix.tolist() for name, matrix in rows.vectors.items()}
    return [row | {name: vectors[name][number] for name in vectors} for number, row in enumerate(rows)]
