"""Targets: manifests and their pages, and the blobs of a segment on their way to the loaders."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from blake3 import blake3

from nearmq_index_store.blobs import open_store
from nearmq_index_store.errors import IndexCorrupt
from nearmq_index_store.manifest import (
    BlobRef,
    PageRef,
    decode_page,
    encode_manifest,
    encode_page,
    manifest_key,
    read_manifest,
)
from nearmq_index_store.schema import IndexSpec, Schema, VectorField
from nearmq_index_store.segment import build_segment, store_segment
from nearmq_worker import spool
from tests.fuzz.target import Target

#: Of the stored examples of format 1.
COLLECTION = "0b8ab5f6-5d2f-4d5e-9a43-7f2f4e2f7a10"
VERSION, PAGE_SEGMENTS, PAGE_ROWS = 7, 2, 30
DATA = Path(__file__).parents[1] / "unit" / "data"

DIM = 4


def manifest_seeds() -> list[bytes]:
    return [(DATA / name).read_bytes() for name in ("manifest-1", "manifest-1-scalars")]


def prepare_manifest() -> Callable[[bytes], None]:
    """No changed manifest passes its digest; with a digest made anew it is refused, or read and written as the same."""
    store, known = open_store("memory:"), manifest_seeds()
    key = manifest_key(COLLECTION, VERSION)

    def run(data: bytes) -> None:
        store.put(key, data)
        try:
            read_manifest(store, COLLECTION, VERSION)
        except IndexCorrupt:
            assert data not in known
        else:
            assert data in known
        payload = data.partition(b"\n")[0]
        store.put(key, _sealed(payload))
        try:
            manifest = read_manifest(store, COLLECTION, VERSION)
        except IndexCorrupt:
            return
        store.put(key, encode_manifest(manifest))
        assert read_manifest(store, COLLECTION, VERSION) == manifest

    return run


def _sealed(payload: bytes) -> bytes:
    return b"%s\n%s\n" % (payload, blake3(payload).hexdigest().encode())


def run_page(data: bytes) -> None:
    """A page is refused, or holds what its manifest says, and is written and read as the same."""
    blob = BlobRef(key=f"{COLLECTION}/{'0' * 26}-{'0' * 64}", bytes=len(data), digest="0" * 64)
    ref = PageRef(blob=blob, segments=PAGE_SEGMENTS, rows=PAGE_ROWS)
    try:
        segments = decode_page(data, ref, COLLECTION)
    except IndexCorrupt:
        return
    assert decode_page(encode_page(segments), ref, COLLECTION) == segments


class _Loaded(AssertionError):
    """A loader was called."""


def prepare_blob() -> Callable[[bytes], None]:
    """No damaged blob reaches a loader: it fails its digest before.

    The data says which blob is damaged (a byte), from where on (four), and what its bytes there are xored with; where
    that is nothing, it is cut off.
    """
    store, entry, schema, stored = _segment()
    opened = spool.Spool(store, None, 0)  # which keeps nothing: what is damaged next may have been sound
    loaders = ("view_rows", "open_segment")

    def run(data: bytes) -> None:
        number = data[0] % len(stored) if data else 0
        key, original = stored[number]
        damaged = _damaged(original, int.from_bytes(data[1:5], "little"), data[5:])
        if damaged == original:
            return
        store.put(key, damaged)
        try:
            with mock.patch.object(spool, loaders[number], side_effect=_Loaded(key)), suppress(IndexCorrupt):
                opened.open(entry, schema, "vector")
                raise AssertionError(f"{key} was opened though it is damaged")
        finally:
            store.put(key, original)

    return run


def _damaged(original: bytes, start: int, mask: bytes) -> bytes:
    start %= len(original)
    end = start + len(mask)
    changed = bytes(one ^ other for one, other in zip(original[start:end], mask, strict=False))
    return original[:start] + changed + (original[end:] if mask else b"")


def blob_seeds() -> list[bytes]:
    """A flipped bit in each blob, and a cut one."""
    return [bytes([0, 9, 0, 0, 0, 1]), bytes([1, 9, 0, 0, 0, 1]), bytes([0, 200, 0, 0, 0])]


def _segment() -> tuple[spool.BlobStore, spool.SegmentEntry, Schema, list[tuple[str, bytes]]]:
    """A segment in memory: its store, entry and schema, and the key and bytes of its rows and of its index."""
    index = IndexSpec(kind="HNSW", params={"M": 2, "efConstruction": 8})
    schema = Schema(vector_fields=(VectorField(name="vector", dim=DIM, metric="L2", index=index),))
    vectors = np.random.default_rng(1).random((12, DIM), dtype=np.float32)
    table = pa.table({"id": pa.array(range(12)), "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), DIM)})
    store = open_store("memory:")
    with tempfile.TemporaryDirectory() as folder:
        entry = store_segment(store, COLLECTION, "_default", build_segment(table, schema, Path(folder), threads=1))
    named = entry.indexes["vector"].blob
    assert named is not None
    keys = [entry.rows_blob.key, named.key]
    return store, entry, schema, [(key, bytes(store.get(key))) for key in keys]


TARGETS = (
    Target("manifest", manifest_seeds, prepare_manifest),
    Target("page", lambda: [(DATA / "page-1").read_bytes()], lambda: run_page),
    Target("blob", blob_seeds, prepare_blob),
)
