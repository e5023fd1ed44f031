"""A collection at one version: the manifest's root, its pages of segments, and how they are read and written.

Format 1. What the second issue fills (ledger, deletes, horizon) has its place here already, always empty so far.
"""

from typing import Literal

import msgspec

from nearmq_index_store.schema import Schema

FORMAT = 1
SEGMENTS_PER_PAGE = 1_000


class BlobRef(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that was put once: its key, its length without the page table, and its digest (`digest.py`)."""

    key: str
    bytes: int
    digest: str


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The index of one field of a segment; `kind` and `params` as built, `blob` None where it has no bytes."""

    kind: str
    params: dict[str, int]
    blob: BlobRef | None
    memory_bytes: int


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

    id: str
    partition: str
    rows: int
    rows_blob: BlobRef
    keys: KeysEntry
    indexes: dict[str, IndexEntry]
    deletes: BlobRef | None = None
    summary: BlobRef | None = None


class PageRef(msgspec.Struct, frozen=True, kw_only=True):
    """A page of at most SEGMENTS_PER_PAGE segment entries, with the sums that save opening it."""

    blob: BlobRef
    segments: int
    rows: int


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A write job that this chain of manifests has taken in: BLAKE3-128 of its id, and what it was answered."""

    job: str
    version: int
    counts: dict[str, int] = {}
    error: str | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """The write jobs of the last days: recent ones inline, older ones in blobs."""

    recent: tuple[LedgerEntry, ...] = ()
    older: tuple[BlobRef, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The root of one version.

    Attributes:
        attempt: a ULID of the commit attempt that made it, by which an unclear put is told from a lost race.
        state: `dropped` is the last manifest of a chain and fences late writers.
        horizon: a ULID; blobs staged before it may have been collected (always the lowest ULID in this release).
        partitions: names, sorted; rows imported without one are in `_default`.
    """

    format: int = FORMAT
    collection_id: str
    version: int
    attempt: str
    state: Literal["live", "dropped"] = "live"
    name: str
    schema: Schema
    partitions: tuple[str, ...]
    pages: tuple[PageRef, ...] = ()
    ledger: Ledger = Ledger()
    horizon: str = "0" * 26


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One whole version, pages read: what a search plans over."""

    manifest: Manifest
    segments: tuple[SegmentEntry, ...]
