"""A collection at one version: the manifest's root, its pages of segments, and how both are written as bytes.

Format 1. Summaries have their place here already, always empty so far. A root is sealed (`sealed.py`); a page is a blob
like any other (`digest.py`).
"""

from typing import Annotated, Literal

import msgspec

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.indexes.recall_table import RecallPoint
from nearmq_index_store.schema import Schema
from nearmq_index_store.sealed import FORMAT, Reader, seal

SEGMENTS_PER_PAGE = 1_000

#: The partition of rows that were given none.
DEFAULT_PARTITION = "_default"

#: As Milvus has it; the names are in every root.
MAX_PARTITIONS = 1_024

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Ulid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-HJKMNP-TV-Z]{26}\Z")]
CollectionId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
BlobKey = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f-]{36}/[0-9A-HJKMNP-TV-Z]{26}-[0-9a-f]{64}\Z")]
Name = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")]


class BlobRef(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that was put once: its key, its length without the page table, and its digest (`digest.py`)."""

    key: BlobKey
    bytes: Count
    digest: Digest

    @property
    def staged(self) -> str:
        """The ULID at which it was put."""
        return self.key.partition("/")[2][:26]


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The index of one field of a segment; `kind` and `params` as built, `blob` None where it has no bytes.

    Attributes:
        unbuildable: FLAT stands in for good, since the declared kind was tried on these rows; a FLAT that is not the
            declared kind and not this is yet to be built.
        recalls: what recall was measured with which params (`RecallTable`); empty of FLAT, of few rows, and of what was
            built before there was such a thing.
    """

    kind: str
    params: dict[str, int]
    blob: BlobRef | None
    memory_bytes: Count
    unbuildable: bool = False
    recalls: dict[int, tuple[RecallPoint, ...]] = {}


class KeysEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The segment's sorted primary keys with their row numbers, and their bounds."""

    blob: BlobRef
    min: int | str
    max: int | str


class Deletes(msgspec.Struct, frozen=True, kw_only=True):
    """The deleted rows of a segment: how many, and their bitmap (`deletes.py`), one of several that share a blob."""

    rows: Annotated[int, msgspec.Meta(ge=1, le=2**32)]
    blob: BlobRef
    start: Count
    bytes: Count


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable segment as the manifest names it.

    Attributes:
        id: a ULID; equal ids mean equal rows and indexes.
        rows_blob: `rows.arrow`, Arrow IPC file format, uncompressed, one record batch.
        indexes: by vector field name.
        deletes: the deleted rows; None where there are none.
        summary: centroids by which a search may skip the segment; always None in this release.
    """

    id: Ulid
    partition: Name
    rows: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    rows_blob: BlobRef
    keys: KeysEntry
    indexes: dict[str, IndexEntry]
    deletes: Deletes | None = None
    summary: BlobRef | None = None

    @property
    def live_rows(self) -> int:
        """The rows that are not deleted."""
        return self.rows - (0 if self.deletes is None else self.deletes.rows)

    def blobs(self) -> tuple[BlobRef, ...]:
        """All blobs that it names."""
        named = [self.rows_blob, self.keys.blob, *(index.blob for index in self.indexes.values())]
        deletes = None if self.deletes is None else self.deletes.blob
        return tuple(blob for blob in [*named, deletes, self.summary] if blob is not None)


class PageRef(msgspec.Struct, frozen=True, kw_only=True):
    """A page of at most SEGMENTS_PER_PAGE segment entries, with the sums that save opening it."""

    blob: BlobRef
    segments: Annotated[int, msgspec.Meta(ge=1, le=SEGMENTS_PER_PAGE)]
    rows: Count


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The segments of one page."""

    format: int = FORMAT
    segments: Annotated[tuple[SegmentEntry, ...], msgspec.Meta(min_length=1, max_length=SEGMENTS_PER_PAGE)]


class RecordedError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The StoreError that a job was answered with: its class's name, and its facts."""

    kind: str
    message: str
    field: str | None = None


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A write job that this chain of manifests has taken in: BLAKE3-128 of its id, and what it was answered.

    Attributes:
        made_ms: when the job was made, as its id says (milliseconds since 1970); None where it does not.
    """

    job: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    version: Count
    made_ms: Count | None = None
    counts: dict[str, Count] = {}
    error: RecordedError | None = None


class OldJobs(msgspec.Struct, frozen=True, kw_only=True):
    """A blob of older ledger entries, `ledger.py`.

    Attributes:
        first_ms, last_ms: between these its jobs were made, as their ids say (milliseconds since 1970).
        has_undated: some of its jobs have ids that do not say when they were made.
        committed_ms: when the last of them was taken in.
    """

    blob: BlobRef
    jobs: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    first_ms: Count
    last_ms: Count
    has_undated: bool
    committed_ms: Count


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The write jobs of the last days, `ledger.py`: recent ones inline, older ones in blobs, oldest first."""

    recent: tuple[LedgerEntry, ...] = ()
    older: tuple[OldJobs, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The root of one version.

    Attributes:
        attempt: a ULID of the commit attempt that made it, by which an unclear put is told from a lost race.
        state: `dropped` is the last manifest of a chain and fences late writers.
        horizon: a ULID; blobs staged before it may have been collected.
        partitions: names, sorted; rows imported without one are in `_default`.
    """

    format: int = FORMAT
    collection_id: CollectionId
    version: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    attempt: Ulid
    state: Literal["live", "dropped"] = "live"
    name: Name
    schema: Schema
    partitions: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_PARTITIONS)]
    pages: tuple[PageRef, ...] = ()
    ledger: Ledger = Ledger()
    horizon: Ulid = "0" * 26


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One whole version, pages read: what a search plans over."""

    manifest: Manifest
    segments: tuple[SegmentEntry, ...]


_MANIFESTS = Reader(Manifest)
_PAGES = Reader(Page)


def manifest_prefix(collection_id: str) -> str:
    """The folder of a collection's manifests."""
    return f"{collection_id}/m/"


def manifest_key(collection_id: str, version: int) -> str:
    """The key of the manifest that is this version."""
    return f"{manifest_prefix(collection_id)}{version:020d}"


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the bytes to store under `manifest_key`."""
    return seal(manifest)


def read_manifest(store: BlobStore, collection_id: str, version: int) -> Manifest:
    """Read one version's root.

    Raises:
        BlobNotFound: the version is not there.
        IndexCorrupt: cut or changed bytes, another format, values out of bounds, or another collection's or version's.
    """
    where = f"manifest {version} of collection {collection_id}"
    manifest = _MANIFESTS.read(store, manifest_key(collection_id, version), where)
    if (manifest.collection_id, manifest.version) != (collection_id, version):
        raise IndexCorrupt(f"{where} says that it is manifest {manifest.version} of {manifest.collection_id}")
    own = [*(page.blob for page in manifest.pages), *(old.blob for old in manifest.ledger.older)]
    _check_keys(own, collection_id, where)
    return manifest


def encode_page(segments: tuple[SegmentEntry, ...]) -> bytes:
    """Return the payload of a page's blob."""
    return msgspec.json.encode(Page(segments=segments))


def decode_page(data: bytes, ref: PageRef, collection_id: str) -> tuple[SegmentEntry, ...]:
    """Read a page's payload, which was verified against the digest of its blob.

    Raises:
        IndexCorrupt: another format, values out of bounds, or not what `ref` says that it holds.
    """
    where = f"page {ref.blob.key}"
    segments = _PAGES.decode(data, where).segments
    rows = sum(segment.rows for segment in segments)
    if (len(segments), rows) != (ref.segments, ref.rows):
        raise IndexCorrupt(
            f"{where} has {len(segments)} segments of {rows} rows, expected {ref.segments} of {ref.rows}"
        )
    _check_keys([blob for segment in segments for blob in segment.blobs()], collection_id, where)
    return segments


def _check_keys(blobs: list[BlobRef], collection_id: str, where: str) -> None:
    """No manifest may name a blob outside its collection, nor one under another digest than its key's."""
    for blob in blobs:
        if blob.key != f"{collection_id}/{blob.staged}-{blob.digest}":
            raise IndexCorrupt(f"{where} names a blob of another collection or digest: {blob.key}")
