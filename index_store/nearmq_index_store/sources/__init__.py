"""Files of rows: the seam and its adapters."""

from nearmq_index_store.sources.copies import copy_pipe, copy_table
from nearmq_index_store.sources.files import SourceFile
from nearmq_index_store.sources.open import open_source
from nearmq_index_store.sources.protocol import Batch, Source, row_bytes

__all__ = ["Batch", "Source", "SourceFile", "copy_pipe", "copy_table", "open_source", "row_bytes"]
