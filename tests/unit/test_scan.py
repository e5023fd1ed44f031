"""The keys by which an exact scan ranks rows."""

import numpy as np
import pytest

from nearmq_index_store.distances import lengths
from nearmq_index_store.indexes.scan import Scan
from nearmq_index_store.schema import METRICS, Metric
from tests.segments import distances_to

RANDOM = np.random.default_rng(1)
# More than fit the cache, so that several queries go over them block by block; the last block is short.
VECTORS = RANDOM.standard_normal((9_001, 64), dtype=np.float32)
QUERIES = RANDOM.standard_normal((40, 64), dtype=np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 2, 6, 7, 40])
def test_keys_err_by_less_than_half_the_slack_however_many_queries_there_are(metric: Metric, count: int):
    scan, queries, rows = Scan(VECTORS, metric), QUERIES[:count], np.arange(len(VECTORS))
    prepared = scan.prepare(queries)
    keys = scan.keys(prepared.queries, 0, len(VECTORS))
    for query, line, slack in zip(queries, keys, prepared.slack.tolist(), strict=True):
        distances = distances_to(query, VECTORS, rows, metric).astype(np.float64)
        exact = distances - lengths(query[np.newaxis]) ** 2 if metric == "L2" else -distances
        assert np.abs(line - exact).max() < slack / 2
