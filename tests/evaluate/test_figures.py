import math

import numpy as np
import pytest
from scipy.stats import binomtest

from valueflow.evaluate.figures import NOTHING, Figure, mean, resampled, share, share_interval


@pytest.mark.parametrize(("count", "n"), [(0, 1), (0, 40), (7, 40), (40, 40), (950, 1000)])
def test_the_interval_of_a_share_is_the_exact_one(count, n):
    expected = binomtest(count, n).proportion_ci(method="exact")
    assert share_interval(count, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_counted_nothing_known():
    assert all(map(math.isnan, share_interval(0, 0)))
    for figure in (share([]), mean([]), mean([1.0]), mean([math.nan] * 3)):
        assert figure == NOTHING or math.isnan(figure.value)
    assert f"{NOTHING:.2f}" == "-" and f"{share([]):.0%}" == "-"


def test_students_interval_of_a_mean_covers():
    rng = np.random.default_rng(0)
    found = [mean(rng.normal(3.0, 2.0, 6).tolist()) for _ in range(3000)]
    inside = np.mean([f.low < 3.0 < f.high for f in found])
    assert inside == pytest.approx(0.95, abs=0.012) and found[0].n == 6


@pytest.mark.slow
def test_resampled_ladders_cover_where_single_texts_would_not():
    rng = np.random.default_rng(1)
    groups = [i // 5 for i in range(100)]
    inside = {"ladders": 0, "texts": 0}
    for draw in range(200):
        numbers = np.repeat(rng.standard_normal(20), 5) + 0.3 * rng.standard_normal(100)
        for name, own in (("ladders", groups), ("texts", range(100))):
            figure = resampled(lambda x: float(x.mean()), numbers, groups=own, seed=draw)
            inside[name] += figure.low < 0 < figure.high
    assert inside["ladders"] / 200 > 0.88 > 0.75 > inside["texts"] / 200


def test_draws_without_the_statistic_are_left_out():
    figure = resampled(
        lambda x: float(x[x > 0].mean()) if (x > 0).any() else math.nan,
        np.array([1.0, -1.0, -1.0]),
        groups="abc",
        n=7,
        seed=0,
    )
    assert figure == Figure(1.0, 1.0, 1.0, 7)


def test_a_figure_prints_with_its_interval():
    assert f"{Figure(0.5, 0.25, 0.75, 9):.2f}" == "0.50 (0.25 to 0.75)"
    assert f"{Figure(0.5, 0.25, 0.75, 9):.0%}" == "50% (25% to 75%)"
