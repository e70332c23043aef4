import math

import numpy as np
import pytest
from oracles import plackett_luce as oracle
from scipy.optimize import minimize_scalar

from valueflow.errors import InvalidInput
from valueflow.ranking.anchored import fit_one, fit_sharpness
from valueflow.ranking.simulate import simulate_rankings
from valueflow.ranking.windows import bucketed_anchors

BETA = 0.6
PANEL = np.linspace(-10, 10, 25)
ITEM = len(PANEL)


def panel_windows(n_windows, *, rng, size=5):
    """Windows of `size` bucketed anchors and the item."""
    anchors = [bucketed_anchors(PANEL, size=size, rng=rng) for _ in range(n_windows)]
    return [(*map(int, chosen), ITEM) for chosen in anchors]


def simulated(position, n_windows, *, seed, size=5):
    rng = np.random.default_rng(seed)
    windows = panel_windows(n_windows, rng=rng, size=size)
    return simulate_rankings([*(BETA * PANEL), position], windows, rng=rng)


UTILITIES = [*(BETA * PANEL).tolist(), math.nan]


@pytest.mark.parametrize("position", [-5.0, 0.0, 2.5])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_estimate_is_the_maximum_of_the_oracles_likelihood(position, size):
    rankings = simulated(position, 12, seed=1, size=size)
    fitted = fit_one(rankings, UTILITIES, item=ITEM)
    expected = oracle.maximise_one(rankings, UTILITIES, ITEM)
    assert fitted.status == "ok" and fitted.n_rankings == 12 and math.isnan(fitted.bound)
    assert fitted.estimate == pytest.approx(expected, abs=1e-5)

    def slope(theta):
        utilities = [[*UTILITIES[:-1], theta[0] + step] for step in (-1e-4, 1e-4)]
        low, high = (oracle.log_likelihood(rankings, u) for u in utilities)
        return (high - low) / 2e-4

    curvature = -oracle.gradient(slope, [fitted.estimate], step=1e-4)[0]
    assert fitted.stderr == pytest.approx(curvature**-0.5, rel=1e-4)


def test_shifting_the_anchors_shifts_the_item():
    for position in (1.0, 40.0, -40.0):
        rankings = simulated(position, 6, seed=2)
        first = fit_one(rankings, UTILITIES, item=ITEM)
        moved = fit_one(rankings, np.array(UTILITIES) + 7.5, item=ITEM)
        assert moved.status == first.status
        shifted = [first.estimate + 7.5, first.stderr, first.bound + 7.5]
        assert [moved.estimate, moved.stderr, moved.bound] == pytest.approx(
            shifted, abs=1e-8, nan_ok=True
        )


def test_only_rankings_with_the_item_count_and_its_own_entry_is_not_read():
    rankings = simulated(0.5, 8, seed=3)
    more = [(0, 5, 3), *rankings, (7, 2)]
    expected = fit_one(rankings, UTILITIES, item=ITEM)
    assert expected.status == "ok"
    assert fit_one(more, [*UTILITIES[:-1], 99.0], item=ITEM) == expected


def test_an_item_in_no_ranking_is_unranked():
    for rankings, n in (([], 0), ([(0, 1), (2, 1)], 0), ([(ITEM,)], 1)):
        for mode in ("ml", "paper"):
            fitted = fit_one(rankings, UTILITIES, item=ITEM, mode=mode)
            assert fitted.status == "unranked" and fitted.n_rankings == n
            assert all(math.isnan(x) for x in (fitted.estimate, fitted.stderr, fitted.bound))


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_winner_of_all_gets_the_position_that_wins_all_with_one_minus_confidence(confidence):
    windows = panel_windows(3, rng=np.random.default_rng(4))
    won = [(ITEM, *window[:-1]) for window in windows]
    fitted = fit_one(won, UTILITIES, item=ITEM, confidence=confidence)
    assert fitted.status == "above_panel"
    assert math.isnan(fitted.estimate) and math.isnan(fitted.stderr)
    n = 4000
    drawn = simulate_rankings(
        [*UTILITIES[:-1], fitted.bound], windows * n, rng=np.random.default_rng(5)
    )
    first = np.array([r[0] == ITEM for r in drawn]).reshape(n, 3)
    expected = 1 - confidence
    error = math.sqrt(expected * confidence / n)
    assert first.all(axis=1).mean() == pytest.approx(expected, abs=3 * error)


def test_loser_of_all_gets_the_position_that_loses_all_given_the_anchors_order():
    lost = [(14, 10, ITEM), (12, 11, ITEM)]
    fitted = fit_one(lost, UTILITIES, item=ITEM)
    assert fitted.status == "below_panel" and math.isnan(fitted.estimate)
    drawn = simulate_rankings(
        [*UTILITIES[:-1], fitted.bound], lost * 40_000, rng=np.random.default_rng(6)
    )
    chance = 1.0
    for row, ranking in enumerate(lost):
        order = [r for r in drawn[row::2] if r.index(ranking[0]) < r.index(ranking[1])]
        chance *= np.mean([r[-1] == ITEM for r in order])
    assert chance == pytest.approx(0.05, abs=0.004)


def test_more_wins_raise_the_bound_and_more_confidence_lowers_it():
    won = (ITEM, 12, 20)
    bounds = [fit_one([won] * n, UTILITIES, item=ITEM).bound for n in (1, 3, 10, 100)]
    assert (np.diff(bounds) > 0.5).all()
    levels = [
        fit_one([won], UTILITIES, item=ITEM, confidence=c).bound
        for c in (0.5, 0.9, 0.999, 1 - 1e-15)
    ]
    assert (np.diff(levels) < 0).all()
    # One toss at even odds.
    assert levels[0] == pytest.approx(math.log(sum(math.exp(UTILITIES[i]) for i in (12, 20))))


def test_an_upset_among_far_anchors_still_has_its_maximum():
    fitted = fit_one([(2, 0), (1, 2)], [-50.0, 50.0, math.nan], item=2)
    assert fitted.status == "ok"
    assert fitted.estimate == pytest.approx(0.0, abs=1e-6)
    assert fitted.stderr == pytest.approx((2 * math.exp(-50)) ** -0.5)


@pytest.mark.parametrize(
    ("rankings", "utilities"),
    [
        ([(2, 0), (2, 1)], [0.0, math.nan, 0.0]),
        ([(2, 0), (1, 2)], [0.0, math.inf, 0.0]),
        ([(2, 0), (3, 2)], [0.0, 0.0, 0.0]),
        ([(2, 0), (2, -1)], [0.0, 0.0, 0.0]),
        ([(2, 0), (2, 1, 1)], [0.0, 0.0, 0.0]),
        ([(2, 0), (2, 1, 2)], [0.0, 0.0, 0.0]),
    ],
    ids=["nan", "infinite", "unknown", "negative", "anchor twice", "item twice"],
)
@pytest.mark.parametrize("mode", ["ml", "paper"])
def test_rankings_that_cannot_be_used_are_refused_by_row(rankings, utilities, mode):
    with pytest.raises(InvalidInput, match="ranking 1: expected"):
        fit_one(rankings, utilities, item=2, mode=mode)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(InvalidInput, match="confidence"):
        fit_one([(1, 0)], [0.0, 0.0], item=1, confidence=confidence)


@pytest.mark.parametrize("intensity", [-8.0, -4.0, 0.0, 4.0, 8.0])
def test_planted_position_is_recovered_and_intervals_cover_over_500_simulations(intensity):
    rng = np.random.default_rng(int(10 + intensity))
    truth = BETA * intensity
    windows = panel_windows(24, rng=rng)
    planted = [*(BETA * PANEL), truth]
    fits = [
        fit_one(simulate_rankings(planted, windows, rng=rng), UTILITIES, item=ITEM)
        for _ in range(500)
    ]
    assert all(f.status == "ok" for f in fits)
    errors = np.array([f.estimate - truth for f in fits])
    claimed = np.array([f.stderr for f in fits])
    assert abs(errors.mean()) < 4 * errors.std() / math.sqrt(500)
    assert claimed.mean() == pytest.approx(errors.std(), rel=0.12)
    assert 0.93 <= (np.abs(errors) <= 1.959964 * claimed).mean() <= 0.97


def random_case(rng):
    """Windows of an item and anchors, some beyond the scale; won, lost, mixed or by chance."""
    n_anchors = int(rng.integers(1, 7))
    intensities = rng.uniform(-14, 14, n_anchors)
    if rng.random() < 0.1:
        intensities[:] = rng.choice([-10.0, 10.0, 3.0])
    strength = rng.choice([-30.0, -6.0, 0.0, 6.0, 30.0])
    truth = [*np.clip(intensities, -10, 10), strength]
    windows = []
    for _ in range(int(rng.integers(1, 5))):
        some = rng.permutation(n_anchors)[: rng.integers(1, n_anchors + 1)]
        windows.append([*map(int, some), n_anchors])
    return simulate_rankings(truth, windows, rng=rng), [*intensities.tolist(), 0.0], n_anchors


def test_paper_mode_is_the_published_rule():
    rng = np.random.default_rng(7)
    statuses = []
    for _ in range(300):
        rankings, intensities, item = random_case(rng)
        fitted = fit_one(rankings, intensities, item=item, mode="paper")
        expected = oracle.paper_position(rankings, intensities, item)
        assert fitted.estimate == pytest.approx(expected, abs=1e-6)
        assert -10 <= fitted.estimate <= 10
        met = np.clip([intensities[i] for r in rankings for i in r if i != item], -10, 10)
        if fitted.status == "above_panel":
            assert fitted.estimate > met.max() or met.max() == 10
        elif fitted.status == "below_panel":
            assert fitted.estimate < met.min() or met.min() == -10
        elif np.ptp(met) > 0:
            assert met.min() < fitted.estimate < met.max()
        assert math.isnan(fitted.bound) and math.isfinite(fitted.stderr)
        statuses.append(fitted.status)
    assert all(statuses.count(s) > 40 for s in ("ok", "above_panel", "below_panel"))


def test_the_two_modes_agree_in_the_middle_of_a_panel_in_logits():
    rankings = simulated(1.0, 12, seed=8)
    utilities = UTILITIES
    ml, paper = (fit_one(rankings, utilities, item=ITEM, mode=mode) for mode in ("ml", "paper"))
    # The published ridge of 1e-3 pulls by about 1e-3 * estimate * variance.
    assert paper.estimate == pytest.approx(ml.estimate, abs=2e-3)
    assert (ml.estimate - paper.estimate) * np.sign(ml.estimate) > 0


def sharpness_windows(n_windows, *, rng):
    return [tuple(rng.choice(len(PANEL), 5, replace=False).tolist()) for _ in range(n_windows)]


@pytest.mark.parametrize("beta", [-0.3, 0.05, 0.4, 2.0])
def test_sharpness_is_the_maximum_of_the_oracles_likelihood(beta):
    rng = np.random.default_rng(9)
    rankings = simulate_rankings(beta * PANEL, sharpness_windows(12, rng=rng), rng=rng)
    estimate, stderr = fit_sharpness(rankings, PANEL)

    def loss(b):
        return -oracle.log_likelihood(rankings, b * PANEL)

    expected = minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9}).x
    assert estimate == pytest.approx(expected, abs=1e-5)
    step = 0.1 * stderr
    curvature = (loss(estimate + step) - 2 * loss(estimate) + loss(estimate - step)) / step**2
    assert stderr == pytest.approx(curvature**-0.5, rel=0.01)


def test_sharpness_is_recovered_and_intervals_cover_over_500_simulations():
    rng = np.random.default_rng(10)
    windows = sharpness_windows(25, rng=rng)
    fits = np.array(
        [fit_sharpness(simulate_rankings(0.4 * PANEL, windows, rng=rng), PANEL) for _ in range(500)]
    )
    errors, claimed = fits[:, 0] - 0.4, fits[:, 1]
    assert abs(errors.mean()) < 0.02  # maximum likelihood overshoots by O(1 / windows)
    assert claimed.mean() == pytest.approx(errors.std(), rel=0.12)
    assert 0.93 <= (np.abs(errors) <= 1.959964 * claimed).mean() <= 0.97


def test_perfect_backward_and_random_judges():
    rng = np.random.default_rng(11)
    windows = sharpness_windows(40, rng=rng)
    best_first = [tuple(sorted(w, reverse=True)) for w in windows]
    assert fit_sharpness(best_first, PANEL) == (math.inf, pytest.approx(math.nan, nan_ok=True))
    backward = [r[::-1] for r in best_first]
    assert fit_sharpness(backward, PANEL) == (-math.inf, pytest.approx(math.nan, nan_ok=True))
    estimate, stderr = fit_sharpness(windows, PANEL)
    assert abs(estimate) < 3 * stderr < 0.15


def test_sharpness_is_in_units_of_the_intensities():
    rng = np.random.default_rng(12)
    rankings = simulate_rankings(0.4 * PANEL, sharpness_windows(15, rng=rng), rng=rng)
    first, tenth = fit_sharpness(rankings, PANEL), fit_sharpness(rankings, PANEL / 10 + 3)
    assert tenth == pytest.approx((10 * first[0], 10 * first[1]))


def test_equal_intensities_say_nothing_of_sharpness():
    intensities = [1.0, 1.0, 5.0]
    told = [(2, 0), (0, 2), (2, 1)]
    expected = fit_sharpness(told, intensities)
    assert fit_sharpness([*told, (0, 1), (1, 0), (0, 1)], intensities) == expected
    assert expected[0] == pytest.approx(math.log(2) / 4)
    assert fit_sharpness([(2, 0, 1), (2, 1, 0)], intensities)[0] == math.inf


@pytest.mark.parametrize("rankings", [[], [(0,)], [(0, 1), (1, 0)]], ids=["none", "one", "equal"])
def test_sharpness_needs_rankings_that_tell_something(rankings):
    with pytest.raises(InvalidInput, match="different intensities"):
        fit_sharpness(rankings, [2.0, 2.0])


@pytest.mark.parametrize("bad", [(0, 2), (0, 3), (0, -1), (0, 1, 0)])
def test_sharpness_refuses_bad_rankings_by_row(bad):
    with pytest.raises(InvalidInput, match="ranking 1: expected"):
        fit_sharpness([(0, 1), bad], [0.0, 1.0, math.nan])
