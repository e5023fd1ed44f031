"""A batch of searches: one snapshot, and for each job a reply, just as if it had come alone."""

from collections.abc import Sequence

from nearmq.errors import IndexCorrupt
from nearmq.jobs import Reply, SearchJob
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import StoreError
from nearmq_index_store.search import plan
from nearmq_worker.awaited import Patience
from nearmq_worker.batching import Task
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.search_batch import SearchBatch
from nearmq_worker.search_checks import SearchChecker
from nearmq_worker.segment_search import SegmentSearcher


class Searcher:
    """Runs searches over the catalog's collections. Safe for many threads."""

    def __init__(self, catalog: Catalog, cache: SegmentCache, config: WorkerConfig, patience: Patience) -> None:
        self._catalog = catalog
        self._cache = cache
        self._config = config
        self._patience = patience
        self._segments = SegmentSearcher(cache, catalog.readers.deletes, config.threads)

    def close(self) -> None:
        """End the search threads."""
        self._segments.close()

    def run(self, tasks: Sequence[Task]) -> list[Reply]:
        """Answer searches of the same collection and partitions, in their order; a bad one fails alone.

        A search that does not find a blob looks for the newest version again: the one that it read may have been
        removed meanwhile.
        """
        version, replies = self._run_once(tasks)
        missing = [place for place, reply in enumerate(replies) if _is_corrupt(reply)]
        if missing:
            newest, again = self._run_once([tasks[place] for place in missing])
            if newest != version:
                for place, reply in zip(missing, again, strict=True):
                    replies[place] = reply
        return replies

    def _run_once(self, tasks: Sequence[Task]) -> tuple[int, list[Reply]]:
        """Answer searches at the newest version, and return it; 0 where there is none to be read."""
        job_ids = [task.delivery.message.message_id for task in tasks]
        first = tasks[0].job
        assert isinstance(first, SearchJob)
        try:
            snapshot = self._catalog.snapshot(first.collection)
            segments = plan(snapshot, first.partition_names)
        except StoreError as error:
            return 0, [error_reply(job_id, error) for job_id in job_ids]
        checker = SearchChecker(self._catalog, self._cache, self._config, self._patience, snapshot)
        batch = SearchBatch(self._segments, self._cache, self._config, snapshot, segments)
        searches, replies = [], {}
        for place, task in enumerate(tasks):
            try:
                searches.append(checker.check(place, task))
            except JOB_ERRORS as error:
                replies[place] = error_reply(job_ids[place], error)
        replies |= batch.run(searches, checker)
        return snapshot.manifest.version, [replies[place] for place in range(len(tasks))]


def _is_corrupt(reply: Reply) -> bool:
    return reply.error is not None and reply.error.code == IndexCorrupt.code
