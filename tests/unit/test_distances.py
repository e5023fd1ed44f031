import numpy as np
import pytest

from nearmq_index_store import distances as module
from nearmq_index_store.distances import exact_distances, lengths, nearest_first, unit_vectors
from nearmq_index_store.schema import METRICS, Metric
from tests.segments import distances_to


def random_vectors(rows: int, dim: int) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((rows, dim)).astype(np.float32)


def in_float64(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    wide_query, wide = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "L2":
        return ((wide - wide_query) ** 2).sum(axis=1)
    products = (wide * wide_query).sum(axis=1)
    if metric == "IP":
        return products
    return products / (np.linalg.norm(wide, axis=1) * np.linalg.norm(wide_query))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 384])
def test_distances_are_float64_sums_rounded_to_float32(metric: Metric, dim: int):
    vectors = random_vectors(500, dim)
    found = distances_to(vectors[0], vectors, np.arange(500), metric)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, in_float64(vectors[0], vectors, metric).astype(np.float32), rtol=2e-7, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_pair_has_the_same_bits_whatever_it_is_computed_with(metric: Metric, monkeypatch: pytest.MonkeyPatch):
    vectors = random_vectors(200, 37)
    together = distances_to(vectors[3], vectors, np.arange(200), metric)
    order = np.random.default_rng(1).permutation(200)
    np.testing.assert_array_equal(distances_to(vectors[3], vectors, order, metric), together[order])
    alone = [distances_to(vectors[3], vectors, np.array([row]), metric)[0] for row in range(200)]
    np.testing.assert_array_equal(alone, together)
    monkeypatch.setattr(module, "_PAIRS_BLOCK", 100)  # 2 rows at a time
    np.testing.assert_array_equal(distances_to(vectors[3], vectors, np.arange(200), metric), together)


def test_a_small_distance_far_from_the_origin_keeps_its_digits():
    query = np.full(8, 10_000, dtype=np.float32)
    near = np.nextafter(query, np.float32(np.inf))[np.newaxis]
    step = float(near[0, 0]) - 10_000
    assert distances_to(query, near, np.array([0]), "L2")[0] == pytest.approx(8 * step**2, rel=1e-6)


def test_a_zero_vector_has_similarity_0_on_either_side():
    vectors = np.array([[0, 0], [1, 2]], dtype=np.float32)
    assert distances_to(vectors[1], vectors, np.array([0, 1]), "COSINE").tolist() == [0, 1]
    assert distances_to(vectors[0], vectors, np.array([0, 1]), "COSINE").tolist() == [0, 0]


def test_cosine_stays_within_1():
    vectors = random_vectors(1_000, 5)
    for scale in (np.float32(1), np.float32(-3)):
        found = np.array([distances_to(row, scale * row[np.newaxis], np.array([0]), "COSINE")[0] for row in vectors])
        assert np.abs(found).max() <= 1


@pytest.mark.parametrize(("metric", "expected"), [("L2", 3.4028235e38), ("IP", -3.4028235e38), ("COSINE", -1.0)])
def test_what_float32_cannot_hold_is_its_largest_value(metric: Metric, expected: float):
    vectors = np.array([[3e38, 3e38], [-3e38, -3e38]], dtype=np.float32)
    assert distances_to(vectors[0], vectors, np.array([1]), metric)[0] == np.float32(expected)


def test_ties_go_to_the_smaller_id():
    tied, owner = np.array([2, 1, 1, 1], dtype=np.float32), np.zeros(4, np.int64)
    assert nearest_first(owner, np.array([5, 9, -3, 7]), tied, "L2").tolist() == [2, 3, 1, 0]
    assert nearest_first(owner, np.array([5, 9, -3, 7]), tied, "IP").tolist() == [0, 2, 3, 1]
    words = np.array(["a", "é", "z", "Z"], dtype=object)
    assert nearest_first(owner, words, tied, "L2").tolist() == [3, 2, 1, 0]
    assert nearest_first(np.array([1, 0, 1, 0]), words, tied, "L2").tolist() == [3, 1, 2, 0]


@pytest.mark.parametrize("metric", METRICS)
def test_hits_are_ordered_as_by_a_lexsort_whatever_the_signs(metric: Metric):
    random = np.random.default_rng(3)
    owners, ids = random.integers(7, size=3_000), random.permutation(3_000)
    values = random.choice(np.array([0.0, -0.0, 1e-45, -1e-45, 1, -1, 0.5, 3e38, -3e38], np.float32), 3_000)
    values = np.abs(values) if metric == "L2" else values
    expected = np.lexsort((ids, values if metric == "L2" else -values, owners))
    np.testing.assert_array_equal(nearest_first(owners, ids, values, metric), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_the_pairs_of_many_queries_have_the_bits_that_each_has_alone(metric: Metric):
    vectors, random = random_vectors(200, 37), np.random.default_rng(2)
    owners, rows = np.sort(random.integers(5, size=4_000)), random.integers(200, size=4_000)
    pairs = zip(owners, rows, strict=True)
    alone = [distances_to(vectors[owner], vectors, np.array([row]), metric)[0] for owner, row in pairs]
    np.testing.assert_array_equal(exact_distances(vectors[:5], owners, vectors, rows, metric), alone)


def test_unit_vectors_have_length_1_and_zero_stays_zero():
    vectors = np.array([[3, 4], [0, 0], [1e-30, 0], [0, 1e30]], dtype=np.float32)
    np.testing.assert_allclose(lengths(unit_vectors(vectors)), [1, 0, 1, 1], rtol=1e-7)
