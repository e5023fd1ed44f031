"""Manifests and their pages as bytes, in store format 1."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearmq_index_store.blobs import BlobStore, open_store
from nearmq_index_store.catalog import Catalog
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import (
    BlobRef,
    IndexEntry,
    KeysEntry,
    Ledger,
    LedgerEntry,
    Manifest,
    PageRef,
    RecordedError,
    SegmentEntry,
    decode_page,
    encode_manifest,
    encode_page,
    manifest_key,
    read_manifest,
)
from nearmq_index_store.schema import IndexSpec, ScalarField, Schema, VectorField

STORED = Path(__file__).parent / "data"
COLLECTION = "0b8ab5f6-5d2f-4d5e-9a43-7f2f4e2f7a10"
ULID_TEXT = "01JAB3NDEKTSV4RRFFQ69G5FAV"


def blob(number: int, size: int = 1) -> BlobRef:
    digest = f"{number:064x}"
    return BlobRef(key=f"{COLLECTION}/{ULID_TEXT}-{digest}", bytes=size, digest=digest)


def segment(number: int, rows: int = 1, partition: str = "_default") -> SegmentEntry:
    index = IndexEntry(kind="HNSW", params={"M": 16, "efConstruction": 200}, blob=blob(number + 3), memory_bytes=1_024)
    return SegmentEntry(
        id=f"{number:026d}",
        partition=partition,
        rows=rows,
        rows_blob=blob(number + 1),
        keys=KeysEntry(blob=blob(number + 2), min=0, max=rows - 1),
        indexes={"vector": index},
    )


SCHEMA = Schema(
    vector_fields=(
        VectorField(
            name="vector",
            dim=4,
            metric="COSINE",
            index=IndexSpec(kind="HNSW", params={"M": 16, "efConstruction": 200}),
        ),
    )
)

STORED_MANIFEST = Manifest(
    collection_id=COLLECTION,
    version=7,
    attempt=ULID_TEXT,
    name="books",
    schema=SCHEMA,
    partitions=("2024", "_default"),
    pages=(PageRef(blob=blob(1), segments=2, rows=30),),
    ledger=Ledger(
        recent=(
            LedgerEntry(job="00" * 16, version=6, counts={"rows": 30}),
            LedgerEntry(
                job="ff" * 16,
                version=7,
                error=RecordedError(kind="AlreadyExists", message="it is there", field="partition_name"),
            ),
        )
    ),
)
STORED_MANIFEST_WITH_SCALARS = msgspec.structs.replace(
    STORED_MANIFEST,
    schema=msgspec.structs.replace(
        SCHEMA,
        scalar_fields=(
            ScalarField(name="year", type="int64"),
            ScalarField(name="tags", type="array<string>", nullable=True),
        ),
    ),
)
STORED_PAGE = (segment(10, rows=10), segment(20, rows=20, partition="2024"))

names = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,127}\Z")
counts = st.integers(0, 2**53)
hexes = st.text("0123456789abcdef", min_size=64, max_size=64)
ulids = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=26, max_size=26)
blobs = st.builds(
    lambda ulid, digest, size: BlobRef(key=f"{COLLECTION}/{ulid}-{digest}", bytes=size, digest=digest),
    ulids,
    hexes,
    counts,
)
keys = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
segments = st.builds(
    SegmentEntry,
    id=ulids,
    partition=names,
    rows=st.integers(1, 2**30),
    rows_blob=blobs,
    keys=st.builds(KeysEntry, blob=blobs, min=keys, max=keys),
    indexes=st.dictionaries(
        names,
        st.builds(
            IndexEntry,
            kind=st.sampled_from(["FLAT", "HNSW", "IVF_PQ"]),
            params=st.dictionaries(names, st.integers(0, 2**31)),
            blob=st.none() | blobs,
            memory_bytes=counts,
        ),
        max_size=3,
    ),
)
manifests = st.builds(
    Manifest,
    collection_id=st.just(COLLECTION),
    version=st.integers(1, 2**53),
    attempt=ulids,
    state=st.sampled_from(["live", "dropped"]),
    name=names,
    schema=st.sampled_from([SCHEMA, STORED_MANIFEST_WITH_SCALARS.schema]),
    partitions=st.lists(names, max_size=4).map(tuple),
    pages=st.lists(st.builds(PageRef, blob=blobs, segments=st.integers(1, 1_000), rows=counts), max_size=4).map(tuple),
    ledger=st.builds(
        Ledger,
        recent=st.lists(
            st.builds(
                LedgerEntry,
                job=hexes.map(lambda text: text[:32]),
                version=counts,
                counts=st.dictionaries(names, counts),
                error=st.none() | st.builds(RecordedError, kind=names, message=st.text(), field=st.none() | st.text()),
            ),
            max_size=3,
        ).map(tuple),
    ),
    horizon=ulids,
)


@pytest.fixture
def store() -> BlobStore:
    return open_store("memory:")


@given(manifest=manifests)
@settings(max_examples=50, deadline=None)
def test_a_manifest_reads_as_it_was_written(manifest: Manifest):
    store = open_store("memory:")
    store.put(manifest_key(COLLECTION, manifest.version), encode_manifest(manifest))

    assert read_manifest(store, COLLECTION, manifest.version) == manifest


@given(page=st.lists(segments, min_size=1, max_size=4).map(tuple))
@settings(max_examples=50, deadline=None)
def test_a_page_reads_as_it_was_written(page: tuple[SegmentEntry, ...]):
    ref = PageRef(blob=blob(1), segments=len(page), rows=sum(entry.rows for entry in page))

    assert decode_page(encode_page(page), ref, COLLECTION) == page


def test_what_format_1_stored_stays_readable_and_is_written_the_same(store: BlobStore):
    root, page = (STORED / "manifest-1-scalars").read_bytes(), (STORED / "page-1").read_bytes()
    store.put(manifest_key(COLLECTION, 7), root)

    assert read_manifest(store, COLLECTION, 7) == STORED_MANIFEST_WITH_SCALARS
    assert encode_manifest(STORED_MANIFEST_WITH_SCALARS) == root
    assert decode_page(page, STORED_MANIFEST.pages[0], COLLECTION) == STORED_PAGE
    assert encode_page(STORED_PAGE) == page


def test_a_manifest_from_before_scalar_fields_stays_readable(store: BlobStore):
    store.put(manifest_key(COLLECTION, 7), (STORED / "manifest-1").read_bytes())

    assert read_manifest(store, COLLECTION, 7) == STORED_MANIFEST


def test_every_flipped_byte_and_every_cut_of_a_manifest_is_noticed(store: BlobStore):
    root = encode_manifest(STORED_MANIFEST)
    flipped = (root[:place] + bytes([root[place] ^ 1]) + root[place + 1 :] for place in range(len(root)))
    cut = (root[:size] for size in range(len(root)))
    for data in (*flipped, *cut):
        store.put(manifest_key(COLLECTION, 7), data)
        with pytest.raises(IndexCorrupt):
            read_manifest(store, COLLECTION, 7)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 2}, "has format 2, this release reads format 1"),
        ({"version": 6}, "says that it is manifest 6"),
        ({"partitions": ("../a",)}, "partitions"),
        ({"attempt": "now"}, "attempt"),
        ({"pages": (msgspec.structs.replace(STORED_MANIFEST.pages[0], segments=1_001),)}, "segments"),
        ({"pages": (msgspec.structs.replace(STORED_MANIFEST.pages[0], rows=-1),)}, "rows"),
        (
            {"pages": (PageRef(blob=BlobRef(key="../secret", bytes=1, digest="0" * 64), segments=1, rows=1),)},
            "key",
        ),
        (
            {
                "pages": (
                    PageRef(
                        blob=msgspec.structs.replace(blob(1), key=blob(1).key.replace("0b8", "0b9")),
                        segments=1,
                        rows=1,
                    ),
                )
            },
            "another collection",
        ),
    ],
)
def test_a_manifest_out_of_bounds_is_corrupt(store: BlobStore, changed: dict[str, object], message: str):
    store.put(manifest_key(COLLECTION, 7), encode_manifest(msgspec.structs.replace(STORED_MANIFEST, **changed)))

    with pytest.raises(IndexCorrupt, match=message):
        read_manifest(store, COLLECTION, 7)


def test_a_page_that_contradicts_its_reference_is_corrupt():
    ref = PageRef(blob=blob(1), segments=2, rows=31)

    with pytest.raises(IndexCorrupt, match="2 segments of 30 rows, expected 2 of 31"):
        decode_page(encode_page(STORED_PAGE), ref, COLLECTION)


def test_a_commit_to_a_large_collection_rewrites_only_the_last_page(store: BlobStore):
    catalog = Catalog(store)
    field = VectorField(name="vector", dim=4, metric="L2", index=IndexSpec(kind="FLAT"))
    collection_id = catalog.create("books", Schema(vector_fields=(field,)), job_id="create").collection_id

    def append(first: int, number: int) -> Manifest:
        added = [of_collection(segment(number), collection_id) for number in range(first, first + number)]
        catalog.append(collection_id, added, job_id=f"append {first}")
        return catalog.snapshot("books").manifest

    before = append(0, 1_001)
    after = append(1_001, 5)

    assert [page.segments for page in before.pages] == [1_000, 1]
    assert [page.segments for page in after.pages] == [1_000, 6]
    assert after.pages[0] == before.pages[0]
    assert {entry.id for entry in catalog.snapshot("books").segments} == {f"{number:026d}" for number in range(1_006)}
    catalog.create_partition("books", "2024", job_id="partition")
    assert catalog.snapshot("books").manifest.pages == after.pages


def of_collection(entry: SegmentEntry, collection_id: str) -> SegmentEntry:
    return msgspec.json.decode(
        msgspec.json.encode(entry).replace(COLLECTION.encode(), collection_id.encode()), type=SegmentEntry
    )
