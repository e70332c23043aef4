import itertools
from collections import Counter

import numpy as np
import pytest
from oracles import plackett_luce as oracle

from valueflow.ranking.simulate import simulate_rankings

THETA = (0.8, -0.5, 0.1, 1.6)


def test_orders_come_as_often_as_the_model_says():
    n = 20_000
    drawn = Counter(simulate_rankings(THETA, [(2, 0, 3, 1)] * n, rng=np.random.default_rng(1)))
    for order in itertools.permutations(range(4)):
        expected = oracle.likelihood([order], THETA)
        error = (expected * (1 - expected) / n) ** 0.5
        assert drawn[order] / n == pytest.approx(expected, abs=4 * error)


def test_a_ranking_is_a_permutation_of_its_window():
    windows = [(3, 1), [0, 2, 3], (1,)]
    rankings = simulate_rankings(THETA, windows, rng=np.random.default_rng(2))
    assert [sorted(r) for r in rankings] == [[1, 3], [0, 2, 3], [1]]
    assert all(type(i) is int for r in rankings for i in r)


def test_far_apart_items_come_in_their_order():
    theta = np.array([0.0, 300.0, -300.0])
    drawn = simulate_rankings(theta, [(0, 1, 2), (2, 0)] * 20, rng=np.random.default_rng(3))
    assert set(drawn) == {(1, 0, 2), (0, 2)}


def test_the_generator_decides():
    windows = [(0, 1, 2, 3)] * 30
    draws = [simulate_rankings(THETA, windows, rng=np.random.default_rng(s)) for s in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]
