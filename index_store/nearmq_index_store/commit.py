"""The way a version is made: jobs evaluated in their order on the newest version, put as the next if still absent.

An intent changes a draft of the next version. It may run several times, each time on a newer base, and only the run
whose manifest was put has any effect. A job is taken in once: its outcome, a StoreError of the intent too, is recorded
in the ledger of the version that took it, and a redelivery gets the recorded one.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pyarrow as pa
from ulid import ULID

from nearmq_index_store import errors
from nearmq_index_store.deletes import put_deletes
from nearmq_index_store.draft import Draft, Readers
from nearmq_index_store.errors import (
    CollectionNotFound,
    IndexCorrupt,
    InvalidArgument,
    StoreError,
    StoreUnavailable,
    VersionExpired,
)
from nearmq_index_store.given_rows import key_array
from nearmq_index_store.intents import Counts, Intent
from nearmq_index_store.ledger import LedgerStore, made_entry
from nearmq_index_store.manifest import (
    LedgerEntry,
    Manifest,
    PageRef,
    RecordedError,
    SegmentEntry,
    encode_manifest,
    manifest_key,
)
from nearmq_index_store.pages import write_pages
from nearmq_index_store.schema import PrimaryKey
from nearmq_index_store.staged import Staged

#: Puts whose outcome was unclear and which turned out not to have happened, before the store is called unavailable.
UNCLEAR_PUTS = 3

#: Of the message of a refused job, in characters: the ledger is in every root.
MAX_MESSAGE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One job of a commit.

    Attributes:
        job_id: the same id is the same job.
        keys: the primary keys that the intent is about, to be looked up for all jobs at once.
    """

    job_id: str
    intent: Intent
    keys: Sequence[int | str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a job.

    Attributes:
        version: the version that took it in.
        error: why it had no effect; None when it had one.
    """

    collection_id: str
    version: int
    counts: Counts
    error: StoreError | None = None


class Committer:
    """Makes versions of a store's collections; may be used by any number of threads.

    Args:
        folder: where the segments of new rows are built.
    """

    def __init__(self, readers: Readers, folder: Path) -> None:
        self._readers = readers
        self._heads = readers.heads
        self._ledgers = LedgerStore(readers.heads.store)
        self._folder = folder

    def commit(self, collection_id: str, intent: Intent, *, job_id: str) -> Outcome:
        """Apply one job, once for its id; its error is raised, also when it was raised and recorded before.

        Raises:
            StoreError: the intent's, and as `commit_all`.
        """
        [outcome] = self.commit_all(collection_id, [Write(job_id=job_id, intent=intent)])
        if outcome.error is not None:
            raise outcome.error
        return outcome

    def commit_all(self, collection_id: str, writes: Sequence[Write]) -> list[Outcome]:
        """Apply jobs in their order, each once for its id, those that are new in one version.

        Raises:
            CollectionNotFound: the collection is dropped, or was never made; jobs that it took in before had their
                effect all the same.
            StoreUnavailable: the outcome may be unknown; the same job ids again find it out.
            IndexCorrupt: what an intent needs to read is missing or fails its digest.
        """
        attempt = str(ULID())
        staged = Staged(self._readers, self._folder)
        unclear_puts = corrupt_version = 0
        left = {write.job_id: write for write in writes}
        taken: dict[str, Outcome] = {}
        while True:
            head = self._heads.head(collection_id)
            if head is None:
                raise CollectionNotFound(f"collection {collection_id} has no version")
            try:
                taken |= self._taken(head, list(left))
                left = {job_id: write for job_id, write in left.items() if job_id not in taken}
                if not left:
                    return [taken[write.job_id] for write in writes]
                if head.state == "dropped":
                    raise CollectionNotFound(f"collection {head.name!r} was dropped")
                manifest = self._next(head, list(left.values()), staged, attempt=attempt)
            except IndexCorrupt:
                if head.version == corrupt_version:
                    raise
                corrupt_version = head.version
                continue
            made: Manifest | None
            try:
                is_put = self._heads.store.put_if_absent(_key(manifest), encode_manifest(manifest))
                made = manifest if is_put else self._read_back(manifest)
            except StoreUnavailable:
                unclear_puts += 1
                made = self._read_back(manifest)
                if made is None and unclear_puts == UNCLEAR_PUTS:
                    raise
            # A floor above it means that this version was used and collected before: ours was never seen by anyone.
            if made is not None and self._heads.floor(collection_id) <= made.version:
                self._heads.remember(made)
                with suppress(IndexCorrupt):  # it was removed meanwhile, and a later version has the ledger
                    taken |= self._taken(made, list(left))
                    return [taken[write.job_id] for write in writes]

    def taken(self, collection_id: str, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """Return by job id what became of those jobs that a collection has taken in; none where it was never made.

        Raises:
            IndexCorrupt: a part of the ledger is missing, or fails its digest.
        """
        failed_version = 0
        while True:
            head = self._heads.head(collection_id)
            if head is None:
                return {}
            try:
                return self._taken(head, job_ids)
            except IndexCorrupt:  # or the version was removed meanwhile
                if head.version == failed_version:
                    raise
                failed_version = head.version

    def _taken(self, head: Manifest, job_ids: Sequence[str]) -> dict[str, Outcome]:
        found = self._ledgers.find(head.ledger, job_ids)
        return {job_id: _outcome(head.collection_id, entry) for job_id, entry in found.items()}

    def _next(self, head: Manifest, writes: Sequence[Write], staged: Staged, *, attempt: str) -> Manifest:
        draft = Draft(self._readers, head)
        keys = _keys_of(writes, head.schema.primary_key)
        if len(keys):
            draft.locate(keys)
        version = head.version + 1
        entries = [_evaluated(write, draft, version) for write in writes]
        return msgspec.structs.replace(
            draft.manifest,
            version=version,
            attempt=attempt,
            pages=self._pages(draft, staged),
            ledger=self._ledgers.record(head.collection_id, head.ledger, entries, not_before=head.horizon),
        )

    def _pages(self, draft: Draft, staged: Staged) -> tuple[PageRef, ...]:
        """Put what is new: the segments of new rows, bitmaps of deletes, and the pages that name them."""
        if not draft.changes_segments:
            return draft.base.pages
        base = draft.base
        added = {entry.id: entry for entry in staged.new_segments(draft)}
        segments = {**draft.segments(), **added}
        deleted = draft.newly_deleted()
        empty = [segment_id for segment_id, rows in deleted.items() if len(rows) == segments[segment_id].rows]
        for segment_id in empty:
            del segments[segment_id], deleted[segment_id]
        deletes = put_deletes(self._heads.store, base.collection_id, deleted, not_before=base.horizon)
        segments |= {
            segment_id: msgspec.structs.replace(segments[segment_id], deletes=place)
            for segment_id, place in deletes.items()
        }
        self._readers.deletes.remember(segments.values(), deleted)
        return self._put_pages(base, segments, staged)

    def _put_pages(self, base: Manifest, segments: dict[str, SegmentEntry], staged: Staged) -> tuple[PageRef, ...]:
        pages = [(ref, self._heads.page(base.collection_id, ref)) for ref in base.pages]
        present = {segment.id for _, page in pages for segment in page}
        fresh = (segment if segment.id in present else staged.fresh(segment, base) for segment in segments.values())
        written = write_pages(self._heads.store, base.collection_id, pages, tuple(fresh), not_before=base.horizon)
        for ref, page in written:
            self._heads.remember_page(ref, page)
        return tuple(ref for ref, _ in written)

    def _read_back(self, manifest: Manifest) -> Manifest | None:
        """Return what stands under a manifest's version if this commit put it, perhaps by an earlier put."""
        try:
            stored = self._heads.manifest(manifest.collection_id, manifest.version)
        except VersionExpired:
            return None
        return stored if stored.attempt == manifest.attempt else None


def _evaluated(write: Write, draft: Draft, version: int) -> LedgerEntry:
    """Let a job change the draft, and return what the ledger says of it."""
    counts, error = {}, None
    try:
        counts = write.intent(draft)
    except (StoreUnavailable, IndexCorrupt):
        raise
    except StoreError as refusal:
        error = RecordedError(kind=type(refusal).__name__, message=refusal.message[:MAX_MESSAGE], field=refusal.field)
    return made_entry(write.job_id, version, counts, error)


def _outcome(collection_id: str, entry: LedgerEntry) -> Outcome:
    error = None
    if entry.error is not None:
        kind: type[StoreError] = getattr(errors, entry.error.kind, StoreError)
        error = kind(entry.error.message, field=entry.error.field)
    return Outcome(collection_id=collection_id, version=entry.version, counts=entry.counts, error=error)


def _keys_of(writes: Sequence[Write], primary_key: PrimaryKey) -> pa.Array:
    """All keys that the jobs are about; a job whose keys are no keys is refused when its turn comes."""
    arrays = [key_array((), primary_key)]
    for write in writes:
        try:
            arrays.append(key_array(write.keys, primary_key))
        except InvalidArgument:
            continue
    return pa.concat_arrays(arrays)


def _key(manifest: Manifest) -> str:
    return manifest_key(manifest.collection_id, manifest.version)
