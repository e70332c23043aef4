import math

import numpy as np
import pytest
from scipy.integrate import quad

from valueflow.ranking._mean import mean_position, outside_shift
from valueflow.ranking.anchored import fit_one
from valueflow.ranking.simulate import simulate_rankings
from valueflow.ranking.windows import bucketed_anchors

PANEL = np.linspace(-10, 10, 41)
ITEM = len(PANEL)


def rankings(position, beta, *, rng, n_windows=8, size=5):
    windows = [
        (*map(int, bucketed_anchors(PANEL, size=size, rng=rng)), ITEM) for _ in range(n_windows)
    ]
    return simulate_rankings([*(beta * PANEL), position], windows, rng=rng)


def fitted(found, beta, **options):
    return fit_one(found, [*(beta * PANEL), math.nan], item=ITEM, mode="mean", **options)


def oracle(found, utilities):
    """Mean, SD and cdf by quadrature, everything from the definition, no logs of sums."""

    def density(theta):
        result, information = 1.0, 0.0
        for ranking in found:
            others = [math.exp(utilities[i]) for i in ranking if i != ITEM]
            place, reached = ranking.index(ITEM), 1.0
            for stage in range(len(others)):
                p = math.exp(theta) / (math.exp(theta) + sum(others[stage:]))
                information += reached * p * (1 - p)
                reached *= 1 - p
                if stage < place:
                    result *= 1 - p
                elif stage == place:
                    result *= p
        return result * information

    def integral(function, low=-25.0, high=25.0):
        return quad(function, low, high, limit=400, points=[-5, 0, 5])[0]

    total = integral(density)
    mean = integral(lambda t: t * density(t)) / total
    sd = math.sqrt(integral(lambda t: (t - mean) ** 2 * density(t)) / total)
    return mean, sd, lambda x: quad(density, -25, x, limit=400)[0] / total


@pytest.mark.parametrize("position", [-2.0, 0.5, 3.0])
@pytest.mark.parametrize("n_windows", [1, 4])
def test_mean_spread_and_interval_are_those_of_the_density(position, n_windows):
    found = rankings(position, 0.4, rng=np.random.default_rng(4), n_windows=n_windows, size=3)
    got = fitted(found, 0.4)
    mean, sd, below = oracle(found, [*(0.4 * PANEL), 0.0])
    assert got.status == "ok" and got.central == got.estimate
    assert got.estimate == pytest.approx(mean, abs=0.01)
    assert got.stderr == pytest.approx(sd, rel=0.01)
    assert (below(got.low), below(got.high)) == pytest.approx((0.025, 0.975), abs=0.002)


def test_many_windows_give_the_maximum_of_the_likelihood():
    found = rankings(0.7, 0.5, rng=np.random.default_rng(2), n_windows=3000)
    most = fit_one(found, [*(0.5 * PANEL), math.nan], item=ITEM)
    got = fitted(found, 0.5)
    assert got.estimate == pytest.approx(most.estimate, abs=0.1 * most.stderr)
    assert got.stderr == pytest.approx(most.stderr, rel=0.03)


@pytest.mark.slow
def test_it_is_less_biased_than_the_maximum_when_windows_are_few():
    rng = np.random.default_rng(3)
    beta, position, bias = 0.25, 1.5, {"ml": [], "mean": []}
    for _ in range(2500):
        found = rankings(position, beta, rng=rng, n_windows=3)
        for mode, own in bias.items():
            got = fit_one(found, [*(beta * PANEL), math.nan], item=ITEM, mode=mode)
            own.append(got.central)
    error = np.nanstd(bias["mean"]) / 50
    assert abs(np.mean(bias["mean"]) - position) < 3 * error
    assert np.nanmean(bias["ml"]) - position > 3 * error


def test_shifting_the_anchors_shifts_everything_and_turning_them_does_not_lose_it():
    found = rankings(0.5, 0.4, rng=np.random.default_rng(4))
    first, utilities = fitted(found, 0.4), np.array([*(0.4 * PANEL), math.nan])
    moved = fit_one(found, utilities + 7.5, item=ITEM, mode="mean")
    ends = [first.estimate + 7.5, first.stderr, first.low + 7.5, first.high + 7.5]
    assert [moved.estimate, moved.stderr, moved.low, moved.high] == pytest.approx(ends, abs=1e-6)
    assert first.low < first.estimate < first.high


@pytest.mark.parametrize("place", [0, 5])
def test_outside_the_panel_one_end_is_open_and_the_other_is_a_97_percent_limit(place):
    anchors = (5, 12, 20, 28, 35)
    found = [(*anchors[::-1][:place], ITEM, *anchors[::-1][place:])] * 6
    got = fitted(found, 0.5)
    limit = fit_one(found, [*(0.5 * PANEL), math.nan], item=ITEM, confidence=0.975).bound
    ends = (got.low, got.high) if place == 0 else (got.high, got.low)
    assert ends == (limit, math.inf if place == 0 else -math.inf)
    assert math.isnan(got.estimate) and abs(got.central) > abs(limit)


def test_the_shift_makes_items_at_the_end_unbiased():
    # Losses of an item t above the anchors are Poisson(exp(-t)) where it is far above.
    rng = np.random.default_rng(5)
    from scipy.special import digamma

    for t in (-0.5, 0.0, 0.8):
        losses = rng.poisson(math.exp(-t), 400_000)
        measured = -digamma(losses + 1.0)
        shift = outside_shift(np.array([0.0]), t)
        assert (measured + shift * (losses == 0)).mean() == pytest.approx(t, abs=0.01)
        assert measured.mean() < t - 0.05
    assert outside_shift(np.array([0.0]), 50.0) == outside_shift(np.array([0.0]), 5.0)
    assert 0 < outside_shift(np.array([0.0]), -50.0) < 0.1


def test_a_sharp_judges_gap_is_halved():
    # Above the anchor at 0, below the one at 20 logits: anything between is as likely.
    got = mean_position(np.array([[20.0, 0.0]]), np.array([1]), confidence=0.95)
    assert got.mean == pytest.approx(10.0, abs=0.1)
    assert got.low < 1 and got.high > 19
