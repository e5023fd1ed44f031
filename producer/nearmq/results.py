"""What a search gives back: for each query its hits, as numpy views of the reply."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from nearmq import result_files
from nearmq.jobs import Reply, TimingMs
from nearmq.query_hits import Hit, Hits, QueryHits

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Hit", "QueryHits", "SearchResults"]


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
        self._hits: Hits | list[QueryHits] = [] if reply.hits is None else reply.hits
        self.job_id = reply.job_id
        self.version = reply.version or 0
        self.status = reply.status
        self.timing_ms = reply.timing_ms or TimingMs()
        self.worker = reply.worker or ""
        self.attempt = reply.attempt
        self.explain = reply.explain or []

    def __len__(self) -> int:
        return len(self._hits)

    @overload
    def __getitem__(self, index: int) -> QueryHits: ...
    @overload
    def __getitem__(self, index: slice) -> list[QueryHits]: ...
    def __getitem__(self, index: int | slice) -> QueryHits | list[QueryHits]:
        return self._hits[index]

    def __iter__(self) -> Iterator[QueryHits]:
        return iter(self._hits)

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
