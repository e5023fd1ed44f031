"""What an opened segment keeps of filters and deleted rows, so that the next search among the same rows need not."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from nearmq_index_store.distances import FloatMatrix
from nearmq_index_store.indexes.allowed import AllowedRows, Mask
from nearmq_index_store.indexes.exact import ExactScan, is_copied
from nearmq_index_store.indexes.flat import FlatIndex
from nearmq_index_store.indexes.protocol import NarrowedIndex, VectorIndex
from nearmq_index_store.schema import Metric

#: Filters and deletes of a segment that are remembered, however small.
_MOST_KEPT = 32


class Whole:
    """All rows of one field of an opened segment, and its index."""

    def __init__(self, vectors: FloatMatrix, metric: Metric, index: VectorIndex) -> None:
        self.vectors = vectors
        self.metric = metric
        self.index = index
        self._lock = threading.Lock()
        self._scan: FlatIndex | None = index if isinstance(index, FlatIndex) else None

    def scan(self) -> FlatIndex:
        """The exact scan of all rows; one pass over them measures their lengths when it is first asked for."""
        with self._lock:
            if self._scan is None:
                self._scan = FlatIndex(self.vectors, self.metric)
            return self._scan

    def forget(self) -> None:
        """Forget the scan, if it is not the index."""
        with self._lock:
            if self._scan is not self.index:
                self._scan = None

    @property
    def nbytes(self) -> int:
        """What the scan keeps, beside the rows and the index."""
        scan = self._scan
        return 0 if scan is None or scan is self.index else scan.nbytes


class Narrowed:
    """A segment narrowed to its allowed rows: their mask, and what was made of it so far. Safe for many threads.

    Attributes:
        nbytes: what this keeps in memory.
    """

    def __init__(self, whole: Whole) -> None:
        self.nbytes = 0
        self._whole = whole
        self._lock = threading.RLock()
        self._allowed: AllowedRows | None = None
        self._index: NarrowedIndex | None = None
        self._exact: ExactScan | None = None
        self._exact_uses = 0

    @property
    def is_evaluated(self) -> bool:
        """Whether the mask is there already."""
        return self._allowed is not None

    def evaluate(self, mask: Callable[[], Mask]) -> None:
        """Ask for the mask, once for all threads that need it; before anything else is done here."""
        # Asked for by the caller, and not kept: a reference back to the segment would outlive its eviction.
        with self._lock:
            if self._allowed is None:
                self._allowed = AllowedRows(mask())
                self.nbytes += self._allowed.mask.nbytes

    @property
    def allowed(self) -> AllowedRows:
        """The allowed rows."""
        assert self._allowed is not None
        return self._allowed

    @property
    def index(self) -> NarrowedIndex | None:
        """The segment's index among the allowed rows, at least one; None where only an exact scan can do that."""
        with self._lock:
            if self._index is None:
                self._index = self._whole.index.among(self.allowed)
                self.nbytes += 0 if self._index is None else self._index.nbytes
            return self._index

    def exact(self) -> ExactScan:
        """Return the exact scan of the allowed rows, at least one; from the second use on of a copy if they are few."""
        with self._lock:
            if self._exact is None:
                self._exact_uses += 1
                whole = self._whole
                if not is_copied(self.allowed, at_once=self._exact_uses == 1):
                    return ExactScan(whole.scan(), mask=self.allowed)
                self._exact = ExactScan.of_copy(whole.vectors, whole.metric, self.allowed)
                self.nbytes += self._exact.nbytes
            return self._exact


class Kept:
    """The narrowings of a segment that were used last, within a number and a budget of bytes."""

    def __init__(self, whole: Whole, limit_bytes: int) -> None:
        self._whole = whole
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Hashable, Narrowed] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        """Say whether the mask of this key is there."""
        with self._lock:
            return key in self._entries and self._entries[key].is_evaluated

    def get(self, key: Hashable) -> Narrowed:
        """Return the narrowing of this key, a new one where it is not (or no longer) there."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                found = self._entries[key] = Narrowed(self._whole)
            self._entries.move_to_end(key)
            return found

    def trim(self) -> None:
        """Forget those used longest ago until the rest fit the budget; for after a search, in which they grow."""
        with self._lock:
            while len(self._entries) > _MOST_KEPT or self._bytes() > self._limit_bytes:
                self._entries.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries.clear()

    @property
    def nbytes(self) -> int:
        """What all of them keep in memory."""
        with self._lock:
            return self._bytes()

    def _bytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())
