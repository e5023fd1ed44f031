"""Where the blobs are kept: the seam and its adapters; those for Redis, slow to import, stand in `blobs.redis`."""

from nearmq_index_store.blobs.cached import CachedStore
from nearmq_index_store.blobs.object_store import FolderStore, ObjectStore, bucket_store, memory_store
from nearmq_index_store.blobs.protocol import BlobStore, Buffer
from nearmq_index_store.blobs.signed import SignedStore
from nearmq_index_store.blobs.urls import open_notes, open_store

__all__ = [
    "BlobStore",
    "Buffer",
    "CachedStore",
    "FolderStore",
    "ObjectStore",
    "SignedStore",
    "bucket_store",
    "memory_store",
    "open_notes",
    "open_store",
]
