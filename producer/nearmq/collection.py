"""One collection as a client sees it: its searches; `reading.py`, `writing.py`, `administration.py` have the rest."""

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Unpack

from nearmq.administration import Administration
from nearmq.arguments import Vectors
from nearmq.reading import Reading
from nearmq.results import SearchResults
from nearmq.search_arguments import DEFAULT_LIMIT, SearchOptions, search_job
from nearmq.writing import Writing

if TYPE_CHECKING:
    from nearmq.client import Client

__all__ = ["DEFAULT_LIMIT", "Collection", "SearchOptions", "Vectors"]


class Collection(Reading, Writing, Administration):
    """A collection of the client's; made by `Client.collection`, which asks no worker whether it exists."""

    def __init__(self, client: "Client", name: str) -> None:
        self._client = client
        self.name = name

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"

    def search(self, vectors: Vectors | None = None, **options: Unpack[SearchOptions]) -> SearchResults:
        """Find the rows nearest to each query and wait for the answer.

        Args:
            vectors: shape (queries, dim), or (dim,) for one query; cast to float32. None to search by the vectors of
                the rows that `ids` names.
            options: `limit` (default 10), `field` (needed where the collection has several), and the rest of
                SearchOptions; `timeout_s` defaults to the client's.

        Returns:
            One `QueryHits` a query, nearest first, ties by smaller id; fewer than `limit` where there are fewer rows.

        Raises:
            NearmqError: of the code that the worker answered, or ReplyTimeout, BrokerUnavailable, QueueFull.
        """
        return self.submit(vectors, **options).result()

    def submit(self, vectors: Vectors | None = None, **options: Unpack[SearchOptions]) -> "Future[SearchResults]":
        """Publish a search and return the future of its results; arguments and errors are those of `search`."""
        job = search_job(self.name, vectors, options)
        return self._client.submit_as(SearchResults, job, timeout_s=options.get("timeout_s"))

    async def search_async(self, vectors: Vectors | None = None, **options: Unpack[SearchOptions]) -> SearchResults:
        """Search without blocking the event loop; arguments and errors are those of `search`."""
        return await asyncio.wrap_future(self.submit(vectors, **options))

    def publish(self, vectors: Vectors | None = None, *, reply_to: str, **options: Unpack[SearchOptions]) -> str:
        """Publish a search whose reply goes to a queue of the caller's, and return its job id when it is confirmed.

        `timeout_s` bounds the wait for the confirm; the job itself has no deadline.

        Args:
            vectors: as for `search`.
            reply_to: the name of an existing queue; the reply's correlation id is the job id.
            options: as for `search`.
        """
        return self._client.publish(
            search_job(self.name, vectors, options), reply_to=reply_to, timeout_s=options.get("timeout_s")
        )
