"""Where the blobs are kept: the seam and its adapters."""

from nearmq_index_store.blobs.cached import CachedStore
from nearmq_index_store.blobs.object_store import FolderStore, ObjectStore, bucket_store, memory_store
from nearmq_index_store.blobs.protocol import BlobStore, Buffer
from nearmq_index_store.blobs.redis import RedisCache, RedisStore
from nearmq_index_store.blobs.urls import open_store

__all__ = [
    "BlobStore",
    "Buffer",
    "CachedStore",
    "FolderStore",
    "ObjectStore",
    "RedisCache",
    "RedisStore",
    "bucket_store",
    "memory_store",
    "open_store",
]
