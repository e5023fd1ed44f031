"""The index kinds by name."""

from nearmq_index_store.indexes._faiss import load_faiss
from nearmq_index_store.indexes.registry import INDEX_KINDS, index_kind

__all__ = ["INDEX_KINDS", "index_kind", "load_faiss"]
