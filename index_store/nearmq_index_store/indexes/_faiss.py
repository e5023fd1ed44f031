"""All that is asked of faiss: k-means, scalar and product quantizers, and the scan of their codes, or of rows.

The one module that imports faiss, and only when a function needs it: the import takes up to half a second and 27 MB,
for which a command that does nothing of the kind should not wait. faiss's own files are never read nor
written: what a quantizer learnt, and the codes, go in and out as arrays (`cells_file.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from nearmq_index_store.distances import Distances, FloatMatrix, FloatVector, RowNumbers
from nearmq_index_store.schema import Metric

#: What rows are ranked by: squared distance, or inner product.
Nearness = Literal["L2", "IP"]

#: uint8, a bit a row, the lowest first.
Bits = npt.NDArray[np.uint8]

#: Rounds of k-means for each sub-vector of PQ; recall on the real data is the same after 4, 10 and faiss's 25.
_PQ_ROUNDS = 5

#: So many bytes of rows stay in the cache from one query to the next.
_SHARED_BYTES = 1 << 20

#: faiss keeps tables of distances between centroids and codewords (L2 only) up to this size.
_MOST_TABLE_BYTES = 2 << 30


def load_faiss() -> None:
    """Import faiss now, so that no search has to wait for that."""
    with _faiss(1):
        pass


def kmeans(sample: FloatMatrix, k: int, *, spherical: bool, threads: int, seed: int) -> FloatMatrix:
    """Return k centroids, float32 (k, dim), of at least k vectors; of unit length when spherical."""
    with _faiss(threads) as faiss:
        # The two bounds: train on the whole sample, and without a warning where it is small.
        clustering = faiss.Kmeans(
            sample.shape[1],
            k,
            spherical=spherical,
            seed=seed,
            max_points_per_centroid=len(sample),
            min_points_per_centroid=1,
        )
        clustering.train(sample)
    centroids: FloatMatrix = clustering.centroids
    return centroids


def assign_to_nearest(centroids: FloatMatrix, vectors: FloatMatrix, *, threads: int) -> RowNumbers:
    """Return for each vector the number of its nearest centroid (L2)."""
    with _faiss(threads) as faiss:
        _, nearest = faiss.knn(vectors, centroids, 1)
    numbers: RowNumbers = nearest[:, 0]
    return numbers


def nearest(
    query: FloatVector, vectors: FloatMatrix, rows: RowNumbers, count: int, *, by: Nearness
) -> tuple[RowNumbers, FloatVector]:
    """Return those of some rows that are nearest to a query, read where they are, nearest first.

    Args:
        vectors: float32, shape (n, dim), C-contiguous, such that no sum over a row leaves the range of float32.
        rows: int64, numbers of `vectors`, each from 0 to n - 1.
        count: how many to return, at most as many as there are rows.

    Returns:
        Their numbers, and how far each is: the squared distance, or the inner product negated; float32 sums.
    """
    found = np.empty(count, dtype=np.int64)
    farness = np.empty(count, dtype=np.float32)
    with _faiss(1) as faiss:
        find = faiss.knn_L2sqr_by_idx if by == "L2" else faiss.knn_inner_products_by_idx
        find(
            faiss.swig_ptr(query),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(rows),
            vectors.shape[1],
            1,
            len(vectors),
            len(rows),
            count,
            faiss.swig_ptr(farness),
            faiss.swig_ptr(found),
        )
    return found, farness if by == "L2" else -farness


def all_products(queries: FloatMatrix, vectors: FloatMatrix, out: FloatMatrix) -> None:
    """Put the inner products of each of a few queries and all rows, of any values, into an array.

    Args:
        queries, vectors: float32, shape (n, dim) and (m, dim), C-contiguous.
        out: float32, shape (n, m), each line C-contiguous.
    """
    rows, dim = vectors.shape
    # Several queries share what was read of the memory; for one, fewer calls are faster.
    step = max(1, _SHARED_BYTES // (4 * dim)) if len(queries) > 1 else rows
    with _faiss(1) as faiss:
        for start in range(0, rows, step):
            some = vectors[start : start + step]
            for query, line in zip(queries, out[:, start : start + step], strict=True):
                faiss.fvec_inner_products_ny(
                    faiss.swig_ptr(line), faiss.swig_ptr(query), faiss.swig_ptr(some), dim, len(some)
                )


def products(query: FloatVector, vectors: FloatMatrix, rows: RowNumbers) -> FloatVector:
    """Return the inner products, float32, of a query and some rows; arguments as for `nearest`, of any values."""
    found = np.empty(len(rows), dtype=np.float32)
    with _faiss(1) as faiss:
        faiss.fvec_inner_products_by_idx(
            faiss.swig_ptr(found),
            faiss.swig_ptr(query),
            faiss.swig_ptr(vectors),
            faiss.swig_ptr(rows),
            vectors.shape[1],
            1,
            len(rows),
        )
    return found


class Coder:
    """Compresses the differences of vectors from their centroids, and scans such codes.

    Scanned by any number of threads at once when it is loaded.
    """

    def __init__(self, centroids: FloatMatrix, metric: Metric, *, m: int | None, nbits: int) -> None:
        """Make an untrained one.

        Args:
            centroids: float32, shape (nlist, dim).
            metric: L2 ranks by L2, IP and COSINE by inner product.
            m: sub-vectors of a product quantizer; None is a scalar quantizer.
            nbits: bits of code a sub-vector, or a dimension (8).
        """
        nlist, dim = centroids.shape
        self._centroids = centroids
        with _faiss(1) as faiss:
            kind = faiss.METRIC_L2 if metric == "L2" else faiss.METRIC_INNER_PRODUCT
            self._quantizer = faiss.IndexFlat(dim, kind)
            self._quantizer.add(centroids)
            if m is None:
                self._index = faiss.IndexIVFScalarQuantizer(
                    self._quantizer, dim, nlist, faiss.ScalarQuantizer.QT_8bit, kind
                )
                self._learnt = self._index.sq.trained
            else:
                self._index = faiss.IndexIVFPQ(self._quantizer, dim, nlist, m, nbits, kind)
                self._learnt = self._index.pq.centroids

    def train(self, sample: FloatMatrix, *, threads: int, seed: int) -> npt.NDArray[np.float32]:
        """Learn from a sample, and return the codebook: float32, flat."""
        cells = assign_to_nearest(self._centroids, sample, threads=threads)
        differences = sample - self._centroids[cells]
        # On one thread: the clusterings of sub-vectors are so small that a second one doubled the processor time (12 to
        # 24 s for 96 sub-vectors) and saved none.
        with _faiss(1) as faiss:
            if isinstance(self._index, faiss.IndexIVFPQ):
                self._index.pq.cp.seed = seed
                self._index.pq.cp.niter = _PQ_ROUNDS
                self._index.pq.cp.min_points_per_centroid = 1
            self._index.train_encoder(len(sample), faiss.swig_ptr(differences), faiss.swig_ptr(cells))
            self._index.is_trained = True
            codebook: npt.NDArray[np.float32] = faiss.vector_to_array(self._learnt)
        return codebook

    def encode(self, vectors: FloatMatrix, cells: RowNumbers, *, threads: int) -> npt.NDArray[np.uint8]:
        """Return the codes of vectors in their cells, uint8 (n, bytes of code a row)."""
        codes = np.empty((len(vectors), self._index.code_size), dtype=np.uint8)
        with _faiss(threads) as faiss:
            self._index.encode_vectors(
                len(vectors), faiss.swig_ptr(vectors), faiss.swig_ptr(cells), faiss.swig_ptr(codes)
            )
        return codes

    def load(
        self,
        codebook: npt.NDArray[np.float32],
        codes: npt.NDArray[np.uint8],
        order: RowNumbers,
        offsets: npt.NDArray[np.int64],
    ) -> None:
        """Take in a codebook and the codes by position; the scan will return `order` at the position."""
        with _faiss(1) as faiss:
            faiss.copy_array_to_vector(np.ascontiguousarray(codebook).reshape(-1), self._learnt)
            self._index.is_trained = True
            for cell, (start, stop) in enumerate(pairwise(offsets.tolist())):
                if stop > start:
                    self._index.invlists.add_entries(
                        cell, stop - start, faiss.swig_ptr(order[start:stop]), faiss.swig_ptr(codes[start:stop])
                    )
            self._index.ntotal = len(order)
            if isinstance(self._index, faiss.IndexIVFPQ):
                self._index.precompute_table()

    def scan(
        self,
        queries: FloatMatrix,
        cells: RowNumbers,
        distances: Distances,
        count: int,
        allowed: Bits | None = None,
    ) -> RowNumbers:
        """Return the `count` rows that seem nearest to each query in the cells it visits, int64 (n, count), -1 padded.

        Args:
            queries: as they are indexed.
            cells: int64, shape (n, width), those that each query visits; -1 is none.
            distances: float32, of the same shape: those of the cells' centroids.
            count: how many rows.
            allowed: the only rows to return; None is all.
        """
        cells, distances = np.ascontiguousarray(cells), np.ascontiguousarray(distances)
        rows = np.empty((len(queries), count), dtype=np.int64)
        distances_of_rows = np.empty((len(queries), count), dtype=np.float32)
        # One native thread a call: callers run segments and batches in parallel.
        with _faiss(1) as faiss:
            # Of bytes that live as long as this call, which is as long as faiss looks at them.
            selector = None if allowed is None else faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
            self._index.search_preassigned_c(
                len(queries),
                faiss.swig_ptr(queries),
                count,
                faiss.swig_ptr(cells),
                faiss.swig_ptr(distances),
                faiss.swig_ptr(distances_of_rows),
                faiss.swig_ptr(rows),
                False,
                faiss.SearchParametersIVF(nprobe=cells.shape[1], sel=selector),
            )
        return rows


def table_bytes(nlist: int, metric: Metric, *, m: int, nbits: int) -> int:
    """Return what faiss keeps beside the codes of a loaded product quantizer."""
    table = 4 * nlist * m << nbits
    return table if metric == "L2" and table <= _MOST_TABLE_BYTES else 0


@contextmanager
def _faiss(threads: int) -> Iterator[ModuleType]:
    """Import faiss, with so many OpenMP threads until the block ends, for what the calling thread asks of it."""
    import faiss  # noqa: PLC0415 - slow to import, see the module's docstring

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)
