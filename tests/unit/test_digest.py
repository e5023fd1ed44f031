"""Blobs that verify themselves: nothing but what was put ever comes out."""

import io
import random

import pytest

from nearmq_index_store.blobs import ObjectStore, memory_store
from nearmq_index_store.blobs.protocol import BlobStore
from nearmq_index_store.digest import PAGE_BYTES, RANGE_BYTES, VerifiedBlob, copy_blob, put_blob, read_blob
from nearmq_index_store.errors import BlobNotFound, IndexCorrupt, StoreUnavailable
from nearmq_index_store.manifest import BlobRef

SIZES = [0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 3 * PAGE_BYTES, RANGE_BYTES * 2 + 12_345]
DATA = random.Random(11).randbytes(max(SIZES))


@pytest.fixture
def store() -> ObjectStore:
    return memory_store()


def copied(store: BlobStore, ref: BlobRef) -> bytes:
    file = io.BytesIO()
    copy_blob(store, ref, file, threads=2)
    return file.getvalue()


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_is_read_and_copied_as_it_was_put(store: ObjectStore, size: int):
    data = DATA[:size]
    ref = put_blob(store, "c", data[: size // 3], memoryview(data)[size // 3 :])
    assert ref.bytes == size
    assert ref.key.startswith("c/")
    assert ref.key.endswith(f"-{ref.digest}")
    assert read_blob(store, ref) == data
    assert copied(store, ref) == data


def test_how_a_blob_came_in_parts_does_not_show(store: ObjectStore):
    one = put_blob(store, "c", DATA)
    many = put_blob(store, "c", DATA[:5], DATA[5 : 2 * PAGE_BYTES + 7], b"", DATA[2 * PAGE_BYTES + 7 :])
    assert one.digest == many.digest
    assert one.key != many.key
    assert bytes(store.get(one.key)) == bytes(store.get(many.key))


def test_the_digest_is_of_version_1(store: ObjectStore):
    """Stored blobs stay readable: this one was written by the first release."""
    assert put_blob(store, "c", b"nearmq").digest == "9652490655b9cc8a6191f70c28117e3a44ebf508e2dd10869549973aee185556"
    assert put_blob(store, "c").digest == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 1),
        (0, PAGE_BYTES),
        (PAGE_BYTES - 1, PAGE_BYTES + 1),
        (5, 3 * PAGE_BYTES),
        (PAGE_BYTES, len(DATA)),
        (len(DATA) - 1, len(DATA) + 50),
        (len(DATA), len(DATA) + 50),
        (7, 7),
        (7, 3),
    ],
)
def test_a_range_is_cut_like_a_slice(store: ObjectStore, start: int, end: int):
    blob = VerifiedBlob(store, put_blob(store, "c", DATA))
    assert bytes(blob.read(start, end)) == DATA[start:end]


def flipped(store: ObjectStore, ref: BlobRef, place: int) -> None:
    stored = bytearray(store.get(ref.key))
    stored[place] ^= 0x10
    store.put(ref.key, stored)


@pytest.mark.parametrize(
    "place",
    [0, PAGE_BYTES - 1, PAGE_BYTES, len(DATA) - 1, len(DATA), len(DATA) + 40, -1],
    ids=lambda place: f"at {place}",
)
def test_a_flipped_bit_is_index_corrupt(store: ObjectStore, place: int):
    ref = put_blob(store, "c", DATA)
    flipped(store, ref, place)
    with pytest.raises(IndexCorrupt, match=ref.key):
        read_blob(store, ref)
    with pytest.raises(IndexCorrupt, match=ref.key):
        copied(store, ref)


@pytest.mark.parametrize("size", [1, PAGE_BYTES])
@pytest.mark.parametrize("stored_bytes", [0, 1, -33, -32, -1])
def test_a_truncated_blob_is_index_corrupt(store: ObjectStore, size: int, stored_bytes: int):
    ref = put_blob(store, "c", DATA[:size])
    store.put(ref.key, bytes(store.get(ref.key))[:stored_bytes])
    with pytest.raises(IndexCorrupt):
        read_blob(store, ref)
    with pytest.raises(IndexCorrupt):
        copied(store, ref)


def test_swapped_pages_and_another_blob_are_index_corrupt(store: ObjectStore):
    ref, other = put_blob(store, "c", DATA), put_blob(store, "c", DATA[::-1])
    stored = bytes(store.get(ref.key))
    for wrong in (
        stored[PAGE_BYTES : 2 * PAGE_BYTES] + stored[:PAGE_BYTES] + stored[2 * PAGE_BYTES :],
        store.get(other.key),
    ):
        store.put(ref.key, wrong)
        with pytest.raises(IndexCorrupt):
            read_blob(store, ref)
        with pytest.raises(IndexCorrupt):
            copied(store, ref)


def test_a_range_answers_for_its_own_pages_only(store: ObjectStore):
    ref = put_blob(store, "c", DATA)
    flipped(store, ref, 3 * PAGE_BYTES + 5)
    blob = VerifiedBlob(store, ref)
    assert bytes(blob.read(0, 3 * PAGE_BYTES)) == DATA[: 3 * PAGE_BYTES]
    assert bytes(blob.read(4 * PAGE_BYTES, len(DATA))) == DATA[4 * PAGE_BYTES :]
    with pytest.raises(IndexCorrupt, match=f"bytes {3 * PAGE_BYTES} to {4 * PAGE_BYTES}"):
        blob.read(3 * PAGE_BYTES, 3 * PAGE_BYTES + 1)


def test_a_clock_that_is_behind_puts_each_blob_under_a_late_key_of_its_own(store: ObjectStore):
    horizon = f"{'7Z' * 5}{'0' * 16}"
    keys = {put_blob(store, "c", b"same", not_before=horizon).key for _ in range(3)}

    assert len(keys) == 3
    assert min(keys) >= f"c/{horizon}"


def test_a_missing_blob_is_index_corrupt_because_it_was_not_found(store: ObjectStore):
    ref = put_blob(store, "c", DATA)
    store.delete(ref.key)
    for read in (read_blob, copied):
        with pytest.raises(IndexCorrupt, match="missing") as missing:
            read(store, ref)
        assert isinstance(missing.value.__cause__, BlobNotFound)


def test_a_corrupt_copy_writes_a_verified_beginning_only(store: ObjectStore):
    ref = put_blob(store, "c", DATA)
    flipped(store, ref, RANGE_BYTES + 5)
    file = io.BytesIO()
    with pytest.raises(IndexCorrupt):
        copy_blob(store, ref, file)
    assert file.getvalue() == DATA[:RANGE_BYTES]


def test_a_store_that_goes_away_is_not_taken_for_corrupt(store: ObjectStore, monkeypatch: pytest.MonkeyPatch):
    ref = put_blob(store, "c", DATA)

    def gone(*_: object, **__: object) -> bytes:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(store, "get", gone)
    for read in (read_blob, copied):
        with pytest.raises(StoreUnavailable):
            read(store, ref)
