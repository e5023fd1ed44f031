"""Which cells of an IVF index a query visits, and what is found in them."""

import math

import numpy as np
import pytest

from nearmq_index_store.distances import unit_vectors
from nearmq_index_store.indexes.cell_scan import Among, CellScan
from nearmq_index_store.indexes.cells import CellCounts, Cells, Visits
from nearmq_index_store.indexes.scan import Measured
from nearmq_index_store.schema import METRICS, Metric
from tests.segments import distances_to

ROWS, DIM, NLIST = 2_000, 8, 64
RANDOM = np.random.default_rng(1)
# Whole numbers, so that many rows are equally far; the last cells hold nothing.
VECTORS = RANDOM.integers(-2, 3, (ROWS, DIM)).astype(np.float32)
OFFSETS = np.minimum(np.sort(RANDOM.integers(0, ROWS, NLIST + 1)), ROWS)
OFFSETS[0], OFFSETS[-6:] = 0, ROWS
CELLS = Cells(RANDOM.standard_normal((NLIST, DIM), dtype=np.float32), OFFSETS, np.arange(ROWS))
QUERIES = RANDOM.integers(-2, 3, (200, DIM)).astype(np.float32)


def visits_of(query: np.ndarray, metric: Metric, nprobe: int, at_least: int, allowed: CellCounts | None) -> list[int]:
    """What `Visits.choose` promises, cell by cell."""
    sizes = np.diff(OFFSETS)
    products = CELLS.centroids.astype(np.float64) @ query
    farness = (CELLS.centroids.astype(np.float64) ** 2).sum(axis=1) - 2 * products if metric == "L2" else -products
    order = np.argsort(farness).tolist()
    counts = sizes if allowed is None else allowed.counts
    wanted = sizes[order[:nprobe]].sum() * (1 if allowed is None else math.sqrt(allowed.share))
    visited, held = [], 0
    for cell in order:
        if held >= max(at_least, math.ceil(wanted)):
            break
        held += counts[cell]
        visited += [cell] if counts[cell] else []
    return visited


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("nprobe", "at_least"), [(1, 1), (4, 100), (4, 900), (60, 1), (64, ROWS)])
@pytest.mark.parametrize("share", [None, 0.5, 0.004])
def test_a_query_visits_its_nearest_cells_until_they_hold_enough(
    metric: Metric, nprobe: int, at_least: int, share: float | None
):
    allowed = None if share is None else CellCounts.of(np.random.default_rng(2).random(ROWS) < share, OFFSETS)
    visits = Visits(CELLS, metric)
    ((_, visited),) = visits.choose(visits.prepare(QUERIES), nprobe, at_least, allowed)
    for query, cells in zip(QUERIES, visited, strict=True):
        assert cells[cells >= 0].tolist() == visits_of(query, metric, nprobe, at_least, allowed)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("nprobe", "at_least"), [(5, 1), (5, 100), (NLIST + 3, 1)])
def test_a_query_visits_the_same_cells_alone_as_in_a_batch_even_where_centroids_are_alike(
    metric: Metric, nprobe: int, at_least: int
):
    # Whole numbers, and some twice, so that many cells are equally far.
    centroids = RANDOM.integers(-2, 3, (NLIST, DIM)).astype(np.float32)
    centroids[::4] = CELLS.centroids[::4]
    centroids[1::4] = centroids[::4]
    visits = Visits(Cells(centroids, OFFSETS, np.arange(ROWS)), metric)
    ((_, visited),) = visits.choose(visits.prepare(QUERIES), nprobe, at_least)
    together = zip(*visits.nearest_first(QUERIES, visited), strict=True)
    for number, (cells, distances) in enumerate(together):
        query = QUERIES[number : number + 1]
        ((_, visited),) = visits.choose(visits.prepare(query), nprobe, at_least)
        ((cells_alone,), (distances_alone,)) = visits.nearest_first(query, visited)
        assert cells[cells >= 0].tolist() == cells_alone[cells_alone >= 0].tolist()
        assert distances[cells >= 0].tolist() == distances_alone[cells_alone >= 0].tolist()


#: The vectors, and such as are hard to rank.
OF_LENGTH = {
    "as they are": lambda vectors: vectors,
    "huge": lambda vectors: vectors * np.float32(1e30),
    "one": unit_vectors,
    "about one": lambda vectors: (
        unit_vectors(vectors) * np.linspace(1, 1 + 4e-7, len(vectors), dtype=np.float32)[:, None]
    ),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("length", OF_LENGTH)
@pytest.mark.parametrize("limit", [1, 10, 500])
@pytest.mark.parametrize("share", [None, 0.5, 0.004])
def test_the_nearest_rows_of_the_cells_are_found_alone_and_together(
    metric: Metric, length: str, limit: int, share: float | None
):
    vectors, queries = OF_LENGTH[length](VECTORS), OF_LENGTH[length](QUERIES)
    mask = np.ones(ROWS, dtype=bool) if share is None else np.random.default_rng(2).random(ROWS) < share
    counts = CellCounts.of(mask, OFFSETS).counts
    among = None if share is None else Among(~mask, counts)
    scan = CellScan(OFFSETS, vectors, metric, Measured.of(vectors, metric))
    # Some cells lie side by side, some do not; of each query at least one holds an allowed row.
    held = np.flatnonzero(counts)
    cells = np.stack([np.random.default_rng(seed).permutation(held)[: min(20, len(held))] for seed in range(200)])
    cells[::3, 5:] = -1
    together = scan.nearest(scan.prepare(queries), cells, limit, among)
    for number, found_together in enumerate(together):
        (alone,) = scan.nearest(scan.prepare(queries[number : number + 1]), cells[number : number + 1], limit, among)
        inside = [np.arange(OFFSETS[cell], OFFSETS[cell + 1]) for cell in cells[number] if cell >= 0]
        rows = np.concatenate(inside)
        rows = rows[mask[rows]]
        farness = distances_to(queries[number], vectors, rows, metric) * (1 if metric == "L2" else -1)
        nearest = rows[farness <= np.sort(farness)[min(limit, len(rows)) - 1]]
        for found in (alone, found_together):
            assert len(np.unique(found)) == len(found)
            assert np.isin(found, rows).all()
            assert np.isin(nearest, found).all()
            if length == "as they are":
                assert len(found) <= len(nearest) + limit, "hardly any others are candidates"
