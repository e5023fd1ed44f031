"""What a search gives back: for each query its hits, as numpy views of the reply."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from nearmq import result_files
from nearmq.jobs import Reply, TimingMs

if TYPE_CHECKING:
    import pyarrow as pa


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
        self,
        ids: npt.NDArray[np.int64] | npt.NDArray[np.object_],
        distances: npt.NDArray[np.float32],
        fields: dict[str, list[Any]] | None = None,
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


class SearchResults(Sequence[QueryHits]):
    """The answer to one search: one `QueryHits` a query, in the order of the queries.

    Attributes:
        job_id: the id under which the job was published.
        version: the collection's version that was searched.
        status: `ok`, or `partial` where the deadline left segments unsearched and the job allowed it.
        timing_ms: where the time went in the worker.
        worker: the name of the worker that answered.
        attempt: 1, or more where the job had been delivered before.
        explain: of a search with `explain`, how it was done: one dict a segment.
    """

    def __init__(self, reply: Reply) -> None:
        self._rows = [QueryHits(hits.ids, hits.distances, hits.fields) for hits in reply.hits or []]
        self.job_id = reply.job_id
        self.version = reply.version or 0
        self.status = reply.status
        self.timing_ms = reply.timing_ms or TimingMs()
        self.worker = reply.worker or ""
        self.attempt = reply.attempt
        self.explain = reply.explain or []

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> QueryHits: ...
    @overload
    def __getitem__(self, index: slice) -> list[QueryHits]: ...
    def __getitem__(self, index: int | slice) -> QueryHits | list[QueryHits]:
        return self._rows[index]

    def to_arrow(self, *, metric_type: str | None = None) -> "pa.Table":
        """Return all hits as one table, a row each (`result_files.py`); needs the extra `parquet`.

        Args:
            metric_type: for the metadata; a reply does not say it.
        """
        return result_files.to_arrow(self, self.version, {"metric_type": metric_type} if metric_type else {})

    def to_parquet(self, path: str | Path, *, metric_type: str | None = None) -> None:
        """Write what `to_arrow` gives to a Parquet file; one that is there is replaced."""
        result_files.write_parquet(self.to_arrow(metric_type=metric_type), Path(path))

    def __repr__(self) -> str:
        return f"SearchResults({len(self)} queries, version={self.version}, {self.timing_ms.total:.1f} ms)"
