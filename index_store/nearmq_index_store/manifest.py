"""A collection at one version: the manifest's root, its pages of segments, and how both are written as bytes.

Format 1. Deletes, summaries, older ledger entries and the horizon have their place here already, always empty so far.
A root is sealed (`sealed.py`); a page is a blob like any other (`digest.py`).
"""

from typing import Annotated, Literal, Self

import msgspec
from blake3 import blake3

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.schema import Schema
from nearmq_index_store.sealed import FORMAT, decode, read_sealed, seal

SEGMENTS_PER_PAGE = 1_000

#: The partition of rows that were given none.
DEFAULT_PARTITION = "_default"

#: As Milvus has it; the names are in every root.
MAX_PARTITIONS = 1_024

#: Job outcomes kept in the root: some 100 bytes each. Older ones are forgotten until they get blobs of their own.
MAX_RECENT_JOBS = 4_096

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


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The index of one field of a segment; `kind` and `params` as built, `blob` None where it has no bytes."""

    kind: str
    params: dict[str, int]
    blob: BlobRef | None
    memory_bytes: Count


class KeysEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The segment's sorted primary keys with their row numbers, and their bounds."""

    blob: BlobRef
    min: int | str
    max: int | str


class SegmentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One immutable segment as the manifest names it.

    Attributes:
        id: a ULID; equal ids mean equal rows and indexes.
        rows_blob: `rows.arrow`, Arrow IPC file format, uncompressed, one record batch.
        indexes: by vector field name.
        deletes: bitmap of deleted rows; always None in this release.
        summary: centroids by which a search may skip the segment; always None in this release.
    """

    id: Ulid
    partition: Name
    rows: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    rows_blob: BlobRef
    keys: KeysEntry
    indexes: dict[str, IndexEntry]
    deletes: BlobRef | None = None
    summary: BlobRef | None = None

    def blobs(self) -> tuple[BlobRef, ...]:
        """All blobs that it names."""
        named = [self.rows_blob, self.keys.blob, *(index.blob for index in self.indexes.values())]
        return tuple(blob for blob in [*named, self.deletes, self.summary] if blob is not None)


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
    """A write job that this chain of manifests has taken in: BLAKE3-128 of its id, and what it was answered."""

    job: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
    version: Count
    counts: dict[str, Count] = {}
    error: RecordedError | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The write jobs of the last days: recent ones inline, older ones in blobs."""

    recent: tuple[LedgerEntry, ...] = ()
    older: tuple[BlobRef, ...] = ()

    def find(self, job_id: str) -> LedgerEntry | None:
        """The entry of this job, None when it has not been taken in."""
        job = _hash_job(job_id)
        return next((entry for entry in self.recent if entry.job == job), None)

    def record(self, job_id: str, version: int, counts: dict[str, int], error: RecordedError | None) -> Self:
        """Return the ledger with one more job."""
        entry = LedgerEntry(job=_hash_job(job_id), version=version, counts=counts, error=error)
        return msgspec.structs.replace(self, recent=(*self.recent, entry)[-MAX_RECENT_JOBS:])


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The root of one version.

    Attributes:
        attempt: a ULID of the commit attempt that made it, by which an unclear put is told from a lost race.
        state: `dropped` is the last manifest of a chain and fences late writers.
        horizon: a ULID; blobs staged before it may have been collected (always the lowest ULID in this release).
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
    manifest = read_sealed(store, manifest_key(collection_id, version), Manifest, where)
    if (manifest.collection_id, manifest.version) != (collection_id, version):
        raise IndexCorrupt(f"{where} says that it is manifest {manifest.version} of {manifest.collection_id}")
    _check_keys([*(page.blob for page in manifest.pages), *manifest.ledger.older], collection_id, where)
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
    segments = decode(data, Page, where).segments
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


def _hash_job(job_id: str) -> str:
    return blake3(job_id.encode()).hexdigest(length=16)
