"""The pages of a manifest: written so that a commit to a large collection rewrites only what it changed."""

from collections.abc import Sequence

from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import put_blob, read_blob
from nearmq_index_store.manifest import SEGMENTS_PER_PAGE, PageRef, SegmentEntry, decode_page, encode_page

Segments = tuple[SegmentEntry, ...]


def read_page(store: BlobStore, collection_id: str, ref: PageRef) -> Segments:
    """Read and verify one page.

    Raises:
        IndexCorrupt: the blob is missing, fails its digest, or contradicts `ref`.
    """
    return decode_page(read_blob(store, ref.blob), ref, collection_id)


def write_pages(
    store: BlobStore,
    collection_id: str,
    base: Sequence[tuple[PageRef, Segments]],
    segments: Segments,
    *,
    not_before: str,
) -> list[tuple[PageRef, Segments]]:
    """Put what the pages of `base` do not hold already, and return the pages that hold `segments`.

    A page that did not change is kept when it is full or when there is nothing to pack with it. All else is packed
    anew, so at most one page is not full. The order of the segments may change.

    Args:
        not_before: as for `put_blob`.
    """
    rest = {segment.id: segment for segment in segments}
    kept: list[tuple[PageRef, Segments]] = []
    not_full: list[tuple[PageRef, Segments]] = []
    for ref, page in base:
        if any(rest.get(segment.id) != segment for segment in page):
            continue
        if len(page) < SEGMENTS_PER_PAGE:
            not_full.append((ref, page))
            continue
        kept.append((ref, page))
        _take(rest, page)
    if len(rest) == sum(len(page) for _, page in not_full):
        return [*kept, *not_full]
    loose = tuple(rest.values())
    chunks = (loose[start : start + SEGMENTS_PER_PAGE] for start in range(0, len(loose), SEGMENTS_PER_PAGE))
    return [*kept, *((_put_page(store, collection_id, chunk, not_before), chunk) for chunk in chunks)]


def _take(rest: dict[str, SegmentEntry], page: Segments) -> None:
    for segment in page:
        del rest[segment.id]


def _put_page(store: BlobStore, collection_id: str, segments: Segments, not_before: str) -> PageRef:
    blob = put_blob(store, collection_id, encode_page(segments), not_before=not_before)
    return PageRef(blob=blob, segments=len(segments), rows=sum(segment.rows for segment in segments))
