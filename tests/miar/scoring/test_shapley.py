"""Shapley values by their axioms, by their textbook definition, and on a game whose answer is known."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from miar.scoring.shapley import shapley_values, subsets_of, to_masks

WORTH = arrays(np.float64, (1, 8), elements=st.floats(-3, 3))
MASK = st.integers(1, 7)


def by_definition(worth: np.ndarray, mask: int) -> np.ndarray:
    """The average marginal contribution over all orders of joining."""
    players = [player for player in range(3) if mask >> player & 1]
    total = np.zeros(3)
    orders = list(permutations(players))
    for order in orders:
        joined = 0
        for player in order:
            total[player] += worth[joined | 1 << player] - worth[joined]
            joined |= 1 << player
    return np.array([total[p] / len(orders) if p in players else np.nan for p in range(3)])


@settings(max_examples=150, deadline=None)
@given(WORTH, MASK)
def test_definition_and_efficiency(worth, mask):
    values = shapley_values(worth, mask)
    np.testing.assert_allclose(values[0], by_definition(worth[0], mask), atol=1e-12)
    assert np.nansum(values) == pytest.approx(worth[0, mask] - worth[0, 0], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(WORTH)
def test_symmetry(worth):
    swapped_roles = [0, 2, 1, 3, 4, 6, 5, 7]  # text and audio change places
    symmetric = (worth + worth[:, swapped_roles]) / 2
    values = shapley_values(symmetric, 7)
    assert values[0, 0] == pytest.approx(values[0, 1], abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(WORTH, st.floats(-2, 2))
def test_dummy(worth, alone):
    for coalition in (0, 1, 2, 3):  # face adds the same to whatever it joins
        worth[:, coalition | 4] = worth[:, coalition] + alone
    assert shapley_values(worth, 7)[0, 2] == pytest.approx(alone, abs=1e-12)


def test_absent_modalities_are_not_even_read():
    worth = np.full((1, 8), np.nan)
    worth[0, [0, 1, 4, 5]] = [0.5, 1.5, 0.0, 2.0]
    np.testing.assert_allclose(shapley_values(worth, 0b101), [[1.5, np.nan, 0.0]])


def test_coalitions():
    assert subsets_of(0b101) == [0b001, 0b100, 0b101]
    assert subsets_of(0) == []
    available = np.array([[True, False, True], [False, False, False], [True, True, True]])
    np.testing.assert_array_equal(to_masks(available), [0b101, 0, 0b111])
