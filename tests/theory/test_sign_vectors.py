"""The longest signed sum, against all sign vectors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from theory.sign_vectors import largest_signed_sum


def brute(vectors):
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=len(vectors))))
    return np.linalg.norm(signs @ vectors, axis=1).max()


@pytest.mark.parametrize("n", [1, 2, 7, 14])
@pytest.mark.parametrize("P", [1, 2, 3, 5])
def test_few_vectors_are_solved_exactly(n, P):
    vectors = np.random.default_rng(n * 10 + P).normal(size=(n, P))
    found = largest_signed_sum(vectors)
    assert found.lower == found.upper == pytest.approx(brute(vectors), rel=1e-12)
    assert np.linalg.norm(found.signs @ vectors) == pytest.approx(found.lower, rel=1e-12)
    if n > 2 and P > 1:
        assert found.lower < 0.999 * np.linalg.norm(vectors, axis=1).sum()


@pytest.mark.parametrize("P", [1, 2])
def test_many_vectors_in_two_dimensions_are_solved_exactly(P):
    plane = np.random.default_rng(0).normal(size=(P, 4))
    vectors = np.random.default_rng(1).normal(size=(18, P)) @ plane
    found = largest_signed_sum(vectors)
    assert found.lower == found.upper == pytest.approx(brute(vectors), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_many_vectors_in_many_dimensions_are_bracketed(seed):
    vectors = np.random.default_rng(seed).normal(size=(17, 4))
    found, maximum = largest_signed_sum(vectors), brute(vectors)
    assert found.lower <= maximum * (1 + 1e-12)
    assert maximum <= found.upper * (1 + 1e-12)
    assert 0.9 * maximum < found.lower  # a local search that finds nothing is no bound worth having
    assert found.upper < 2.0 * maximum
    assert np.linalg.norm(found.signs @ vectors) == pytest.approx(found.lower, rel=1e-12)


def test_vectors_without_a_common_coordinate_add_in_squares():
    rng = np.random.default_rng(3)
    left, right = rng.normal(size=(10, 3)), rng.normal(size=(12, 3))
    vectors = np.zeros((23, 6))
    vectors[:10, :3], vectors[10:22, 3:] = left, right
    found = largest_signed_sum(vectors)
    assert found.lower == found.upper == pytest.approx(np.hypot(brute(left), brute(right)), rel=1e-12)
    assert largest_signed_sum(np.zeros((4, 3)))[:2] == (0.0, 0.0)
