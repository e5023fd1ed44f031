"""Files of rows: the seam and its adapters."""

from nearmq_index_store.sources.open import open_source
from nearmq_index_store.sources.protocol import Batch, Source, row_bytes

__all__ = ["Batch", "Source", "open_source", "row_bytes"]
