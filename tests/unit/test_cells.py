"""Which cells of an IVF index a query visits."""

import math

import numpy as np
import pytest

from nearmq_index_store.indexes.cells import CellCounts, Cells, Visits
from nearmq_index_store.schema import METRICS, Metric

ROWS, DIM, NLIST = 2_000, 8, 64
RANDOM = np.random.default_rng(1)
# The last cells hold nothing.
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
    ((_, visited),) = Visits(CELLS, metric).choose(QUERIES, nprobe, at_least, allowed)
    for query, cells in zip(QUERIES, visited.cells, strict=True):
        assert cells[cells >= 0].tolist() == visits_of(query, metric, nprobe, at_least, allowed)
