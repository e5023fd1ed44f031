"""The way a version is made: an intent, evaluated on the newest version, put as the next one if that is still absent.

An intent is a pure function of a version. It may run several times, each time on a newer base, and only the run whose
manifest was put has any effect. A job is taken in once: its outcome, a StoreError of the intent too, is recorded in the
ledger of the version that took it, and a redelivery gets the recorded one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from ulid import ULID

from nearmq_index_store import errors
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import put_blob, read_blob
from nearmq_index_store.errors import CollectionNotFound, IndexCorrupt, StoreError, StoreUnavailable, VersionExpired
from nearmq_index_store.head import Heads
from nearmq_index_store.manifest import (
    BlobRef,
    LedgerEntry,
    Manifest,
    PageRef,
    RecordedError,
    SegmentEntry,
    encode_manifest,
    manifest_key,
)
from nearmq_index_store.pages import Segments, write_pages

#: Puts whose outcome was unclear and which turned out not to have happened, before the store is called unavailable.
UNCLEAR_PUTS = 3

#: Of the message of a refused job, in characters: the ledger is in every root.
MAX_MESSAGE = 400


class Base:
    """The version that an intent is evaluated on; its pages are read only for an intent that asks for them."""

    def __init__(self, heads: Heads, manifest: Manifest) -> None:
        self._heads = heads
        self.manifest = manifest

    def segments(self) -> Segments:
        """All segments of the version."""
        return self._heads.open(self.manifest).segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an intent makes of a base.

    Attributes:
        manifest: the base's, with the name, the state or the partitions replaced; the commit sets version, attempt,
            pages and ledger.
        segments: all segments of the next version, of which those that the base does not have are the job's own; None
            where they do not change.
        counts: recorded as the job's answer.
    """

    manifest: Manifest
    segments: Segments | None = None
    counts: dict[str, int] = field(default_factory=dict)


Intent = Callable[[Base], Change]


def commit(heads: Heads, collection_id: str, intent: Intent, *, job_id: str) -> Manifest:
    """Apply the intent to the collection once for this job id, and return the version that did.

    Raises:
        CollectionNotFound: the collection is dropped, or was never made.
        StoreError: the intent's, also when it was raised and recorded for this job before.
        StoreUnavailable: the outcome may be unknown; the same job id again finds it out.
        VersionExpired: the job was taken in by a version that has been removed.
    """
    attempt = str(ULID())
    staged = _Staged(heads.store, collection_id)
    unclear_puts = corrupt_version = 0
    while True:
        head = heads.head(collection_id)
        if head is None:
            raise CollectionNotFound(f"collection {collection_id} has no version")
        recorded = head.ledger.find(job_id)
        if recorded is not None:
            return _answer(heads, collection_id, recorded)
        if head.state == "dropped":
            raise CollectionNotFound(f"collection {head.name!r} was dropped")
        try:
            manifest = _next(heads, head, intent, staged, attempt=attempt, job_id=job_id)
        except IndexCorrupt:
            if head.version == corrupt_version:
                raise
            corrupt_version = head.version
            continue
        made: Manifest | None
        try:
            is_put = heads.store.put_if_absent(_key(manifest), encode_manifest(manifest))
            made = manifest if is_put else _read_back(heads, manifest)
        except StoreUnavailable:
            unclear_puts += 1
            made = _read_back(heads, manifest)
            if made is None and unclear_puts == UNCLEAR_PUTS:
                raise
        # A floor above it means that this version number was used and collected before: ours was never seen by anyone.
        if made is not None and heads.floor(collection_id) <= made.version:
            heads.remember(made)
            return _answer(heads, collection_id, made.ledger.recent[-1])


def _next(heads: Heads, head: Manifest, intent: Intent, staged: "_Staged", *, attempt: str, job_id: str) -> Manifest:
    error = None
    try:
        change = intent(Base(heads, head))
    except (StoreUnavailable, IndexCorrupt):
        raise
    except StoreError as refusal:
        change = Change(manifest=head)
        error = RecordedError(kind=type(refusal).__name__, message=refusal.message[:MAX_MESSAGE], field=refusal.field)
    version = head.version + 1
    return msgspec.structs.replace(
        change.manifest,
        version=version,
        attempt=attempt,
        pages=head.pages if change.segments is None else _repaged(heads, head, change.segments, staged),
        ledger=head.ledger.record(job_id, version, change.counts, error),
    )


def _repaged(heads: Heads, head: Manifest, segments: Segments, staged: "_Staged") -> tuple[PageRef, ...]:
    pages = [(ref, heads.page(head.collection_id, ref)) for ref in head.pages]
    present = {segment.id for _, page in pages for segment in page}
    fresh = (segment if segment.id in present else staged.fresh(segment, head.horizon) for segment in segments)
    return write_pages(heads.store, head.collection_id, pages, tuple(fresh))


def _key(manifest: Manifest) -> str:
    return manifest_key(manifest.collection_id, manifest.version)


def _read_back(heads: Heads, manifest: Manifest) -> Manifest | None:
    """Return what stands under a manifest's version if this commit put it, perhaps with an earlier put of its own."""
    try:
        stored = heads.manifest(manifest.collection_id, manifest.version)
    except VersionExpired:
        return None
    return stored if stored.attempt == manifest.attempt else None


def _answer(heads: Heads, collection_id: str, recorded: LedgerEntry) -> Manifest:
    if recorded.error is None:
        return heads.manifest(collection_id, recorded.version)
    kind: type[StoreError] = getattr(errors, recorded.error.kind, StoreError)
    raise kind(recorded.error.message, field=recorded.error.field)


class _Staged:
    """The job's own segments, put again under new keys where garbage collection may have taken them."""

    def __init__(self, store: BlobStore, collection_id: str) -> None:
        self._store = store
        self._collection_id = collection_id
        self._put_again: dict[str, BlobRef] = {}

    def fresh(self, segment: SegmentEntry, horizon: str) -> SegmentEntry:
        if all(blob.staged >= horizon for blob in segment.blobs()):
            return segment

        def again(blob: BlobRef | None) -> BlobRef | None:
            return blob and self._fresh(blob, horizon)

        return msgspec.structs.replace(
            segment,
            rows_blob=self._fresh(segment.rows_blob, horizon),
            keys=msgspec.structs.replace(segment.keys, blob=self._fresh(segment.keys.blob, horizon)),
            indexes={
                name: msgspec.structs.replace(index, blob=again(index.blob)) for name, index in segment.indexes.items()
            },
            deletes=again(segment.deletes),
            summary=again(segment.summary),
        )

    def _fresh(self, blob: BlobRef, horizon: str) -> BlobRef:
        latest = self._put_again.get(blob.key, blob)
        if latest.staged < horizon:
            latest = put_blob(self._store, self._collection_id, read_blob(self._store, latest))
            self._put_again[blob.key] = latest
        return latest
