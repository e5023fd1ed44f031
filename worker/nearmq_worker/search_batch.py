"""Searches over the same segments: those that choose alike in one pass, and from it to each what it gets alone."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nearmq.jobs import Reply, TimingMs
from nearmq.query_hits import Hits
from nearmq_index_store.indexes.params import MAX_LIMIT
from nearmq_index_store.manifest import SegmentEntry, Snapshot
from nearmq_worker.cache import SegmentCache
from nearmq_worker.config import WorkerConfig
from nearmq_worker.output_fields import RowReader, read_fields
from nearmq_worker.replies import JOB_ERRORS, error_reply
from nearmq_worker.search_checks import Search, SearchChecker
from nearmq_worker.search_groups import find_groups
from nearmq_worker.search_pass import Choice, Found, Pass
from nearmq_worker.segment_search import Answer, SegmentSearcher
from nearmq_worker.versions import ReadVersion


class SearchBatch:
    """Runs checked searches over some segments of one version."""

    def __init__(
        self,
        searcher: SegmentSearcher,
        cache: SegmentCache,
        config: WorkerConfig,
        snapshot: Snapshot,
        segments: Sequence[SegmentEntry],
    ) -> None:
        self._searcher = searcher
        self._cache = cache
        self._config = config
        self._snapshot = snapshot
        self._segments = segments

    def run(self, searches: Sequence[Search], checker: SearchChecker) -> dict[int, Reply]:
        """Return the reply to each search, by its place in the batch."""
        replies: dict[int, Reply] = {}
        alike: dict[Choice, list[Search]] = {}
        for search in searches:
            if search.job.group_by_field is None:
                alike.setdefault(search.choice, []).append(search)
                continue
            try:
                replies[search.place] = self._run_grouped(search, checker)
            except JOB_ERRORS as error:
                replies[search.place] = error_reply(search.job_id, error)
        for several in alike.values():
            for together in _within(self._config.result_hits, several):
                try:
                    replies.update(self._run_pass(together))
                except JOB_ERRORS as error:
                    replies.update((search.place, _failed(search, error)) for search in together)
        return replies

    def _run_pass(self, searches: Sequence[Search]) -> Iterator[tuple[int, Reply]]:
        """Search the segments with all queries of several searches, and cut each one's hits from the result."""
        part = self._pass_of(searches)
        answer = self._searcher.search(part, np.concatenate([search.queries for search in searches]))
        shares = answer.found.shares(len(search.queries) for search in searches)
        timing = _timing([answer])
        for search, found in zip(searches, shares, strict=True):
            yield search.place, self._reply(part, search, search.page(found), timing, answer.explained)

    def _run_grouped(self, search: Search, checker: SearchChecker) -> Reply:
        """Search the segments until enough groups are found."""
        job, part = search.job, self._pass_of([search])
        assert job.group_by_field is not None
        group_by: str = job.group_by_field
        answers: list[Answer] = []

        def find(queries: Sequence[int], window: int) -> Found:
            wider = replace(part, window=window, choice=checker.widened(search, window))
            at_once = max(1, self._config.result_hits // window)
            slices = [queries[start : start + at_once] for start in range(0, len(queries), at_once)]
            found = [self._searcher.search(wider, search.queries[list(some)]) for some in slices]
            answers.extend(found)
            return Found.joined([answer.found for answer in found])

        reader = self._row_reader(part, search)
        numbers: dict[Any, int] = {}
        found = find_groups(
            find,
            lambda places: reader.groups(group_by, places, numbers),
            len(search.queries),
            offset=job.offset,
            limit=job.limit,
            size=job.group_size,
            most=max(1, min(MAX_LIMIT, sum(entry.live_rows for entry in self._segments))),
        )
        return self._reply(part, search, found, _timing(answers), answers[-1].explained if answers else None)

    def _pass_of(self, searches: Sequence[Search]) -> Pass:
        """Return the pass for searches of one choice."""
        return Pass(
            snapshot=self._snapshot,
            segments=self._segments,
            choice=searches[0].choice,
            window=max(search.window for search in searches),
            awaited=[search.awaited for search in searches],
            with_places=any(search.output_fields is not None for search in searches),
            explain=any(search.job.explain for search in searches),
        )

    def _reply(
        self, part: Pass, search: Search, found: Found, timing: TimingMs, explained: list[dict[str, Any]] | None
    ) -> Reply:
        """Read the fields that a search asks for, and write its reply.

        Args:
            part: what its hits were found in.
            found: the hits of its queries.
            timing: of all that it took to find them.
            explained: how they were found; None where nothing was searched.
        """
        if fault := search.awaited.fault():
            return error_reply(search.job_id, fault)
        found = search.answer(found)
        try:
            fields = self._fields(part, search, found)
        except JOB_ERRORS as error:
            return error_reply(search.job_id, error)
        return Reply(
            job_id=search.job_id,
            status="ok",
            version=self._snapshot.manifest.version,
            hits=Hits(found.counts, found.ids, found.distances, fields),
            explain=explained if search.job.explain else None,
            timing_ms=timing,
        )

    def _fields(self, part: Pass, search: Search, found: Found) -> list[dict[str, list[Any]]] | None:
        if search.output_fields is None:
            return None
        assert found.places is not None
        return read_fields(search.output_fields, found.counts, found.places, self._row_reader(part, search))

    def _row_reader(self, part: Pass, search: Search) -> RowReader:
        version = ReadVersion(self._cache, part.snapshot, part.segments, search.awaited)
        as_text = search.job.id_format == "string"
        return RowReader(version.open, self._config.result_bytes, integers_as_text=as_text)


def _timing(answers: Sequence[Answer]) -> TimingMs:
    return TimingMs(
        load=1_000 * sum(answer.load_s for answer in answers), search=1_000 * sum(answer.search_s for answer in answers)
    )


def _failed(search: Search, error: Exception) -> Reply:
    """Return the reply to a search whose pass failed, perhaps since nobody waits, each for a reason of its own."""
    return error_reply(search.job_id, search.awaited.fault() or error)


def _within(most_hits: int, searches: Sequence[Search]) -> Iterator[list[Search]]:
    """Cut searches into passes of at most `most_hits` queries x largest window, so that a large one stays alone."""
    batch: list[Search] = []
    queries = 0
    for search in sorted(searches, key=lambda search: search.window):
        queries += len(search.queries)
        if batch and queries * search.window > most_hits:
            yield batch
            batch, queries = [], len(search.queries)
        batch.append(search)
    yield batch
