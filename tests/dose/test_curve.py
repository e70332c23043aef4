import doctest
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm
from scipy.stats import t as student
from sklearn.isotonic import IsotonicRegression

from valueflow.dose import curve as curve_module
from valueflow.dose.curve import Dose, DoseCurve, Unreachable
from valueflow.dose.families import FAMILIES, fit_logistic, fit_pchip, isotonic
from valueflow.errors import ArtifactError, InvalidInput, NotFitted, UnknownName

C = np.linspace(-0.6, 0.6, 13)
FITTED = [
    "coefficients_",
    "means_",
    "counts_",
    "ci_",
    "dropped_",
    "increasing_",
    "turning_points_",
    "usable_range_",
    "family_",
    "cv_error_",
    "span_",
    "spearman_",
]


def sigmoid(c):
    return -5 + 10 * expit(8 * (c - 0.1))


def kinked(c):
    """Steep on the left, nearly flat on the right: no logistic."""
    return np.where(c < 0, 12 * c, 1.5 * c)


def hill(c):
    return 5 - 20 * (c - 0.3) ** 2


def flat(c):
    return 0 * c


def sweep(truth, *, seed, prompts=40, c=C, noise=1.5, prompt_sd=1.0):
    """Intensities [coefficients, prompts]: a curve, an offset per prompt, and noise per text."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(0, prompt_sd, prompts)
    return truth(c)[:, None] + offset + rng.normal(0, noise, (len(c), prompts))


def fitted(truth=sigmoid, *, family="pchip", prompts=40, seed=0, c=C, **parameters):
    data = sweep(truth, seed=seed, prompts=prompts, c=c)
    return DoseCurve(family, **{"n_bootstrap": 200, "seed": 0, **parameters}).fit(c, data)


def exact(truth, c=C):
    """Two prompts that agree."""
    return np.repeat(np.asarray(truth(c), dtype=float)[:, None], 2, axis=1)


def same(one, other):
    """Every learned attribute, the curve, its interval and its inverse are equal, bit for bit."""
    grid = np.linspace(-0.7, 0.7, 57)
    for name in FITTED:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.predict(grid), other.predict(grid))
    np.testing.assert_array_equal(one.interval(grid), other.interval(grid))
    assert one.inverse(1.0) == other.inverse(1.0)


# Recovery of planted curves


def worst_errors(truth, family, prompts, runs=10):
    grid = np.linspace(-0.6, 0.6, 49)
    curves = (fitted(truth, family=family, prompts=prompts, seed=seed) for seed in range(runs))
    return [np.nanmax(np.abs(curve.predict(grid) - truth(grid))) for curve in curves]


@pytest.mark.parametrize(
    ("truth", "family", "typical"),
    [(sigmoid, "logistic", 0.4), (sigmoid, "pchip", 0.6), (kinked, "pchip", 0.6)],
)
def test_a_planted_curve_of_ten_points_height_is_recovered(truth, family, typical):
    # The standard error of one mean is sqrt((1 + 1.5**2) / 40) = 0.29.
    errors = worst_errors(truth, family, prompts=40)
    assert np.median(errors) < typical
    assert max(errors) < 1.0


@pytest.mark.parametrize(("truth", "family"), [(sigmoid, "logistic"), (kinked, "pchip")])
def test_sixteen_times_the_prompts_give_about_a_quarter_of_the_error(truth, family):
    few, many = (np.mean(worst_errors(truth, family, n)) for n in (25, 400))
    assert 0.15 < many / few < 0.4


@pytest.mark.parametrize("family", FAMILIES)
def test_without_noise_the_points_are_met(family):
    curve = DoseCurve(family, n_bootstrap=20, seed=0).fit(C, exact(sigmoid))
    np.testing.assert_allclose(curve.predict(C), sigmoid(C), atol=1e-6)
    np.testing.assert_allclose(curve.interval(C), [sigmoid(C)] * 2, atol=1e-6)
    assert curve.span_ == pytest.approx(sigmoid(0.6) - sigmoid(-0.6), abs=1e-6)
    assert curve.spearman_ == pytest.approx(1.0)


def test_the_logistic_can_be_a_straight_line():
    curve = DoseCurve("logistic", n_bootstrap=20, seed=0).fit(C, exact(lambda c: 5 * c))
    np.testing.assert_allclose(curve.predict(C), 5 * C, atol=0.06)


@pytest.mark.parametrize(
    ("truth", "family"), [(sigmoid, "logistic"), (kinked, "pchip"), (flat, "pchip")]
)
def test_auto_takes_what_predicts_left_out_coefficients(truth, family):
    curve = DoseCurve(n_bootstrap=20, seed=0).fit(C, exact(truth))
    assert curve.family_ == family
    assert set(curve.cv_error_) == set(FAMILIES)
    assert curve.cv_error_[family] == min(curve.cv_error_.values()) < 0.5


def test_auto_is_mostly_right_under_noise():
    def share(truth):
        curves = [fitted(truth, family="auto", prompts=200, seed=s, c=C[::2]) for s in range(5)]
        return np.mean([curve.family_ == "logistic" for curve in curves])

    assert share(sigmoid) > 0.6
    assert share(kinked) < 0.4


def test_auto_below_five_usable_points_is_pchip():
    c = [-0.2, 0.0, 0.2, 0.4]
    curve = DoseCurve(seed=0).fit(c, exact(np.array, np.array(c)))
    assert (curve.family_, curve.cv_error_) == ("pchip", {})


def test_isotonic_agrees_with_scikit_learn():
    rng = np.random.default_rng(3)
    y, weights = rng.normal(size=(12, 30)), rng.integers(1, 9, (12, 30)).astype(float)
    columns = [
        IsotonicRegression().fit_transform(np.arange(12), y[:, k], sample_weight=weights[:, k])
        for k in range(30)
    ]
    np.testing.assert_allclose(isotonic(y, weights), np.transpose(columns), atol=1e-12)


def test_a_coefficient_with_more_texts_pulls_a_pooled_block_its_way():
    data = exact(lambda c: c, np.array([-1.0, 0.0, 1.0, 2.0]))
    data = np.hstack([data, data])
    data[1], data[2] = 0.9, [0.0, np.nan, np.nan, np.nan]
    curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit([-1, 0, 1, 2], data)
    assert curve.predict(0.5) == pytest.approx((4 * 0.9 + 0.0) / 5)


# Inverse


@pytest.mark.parametrize("family", FAMILIES)
def test_inverse_undoes_predict(family):
    curve = DoseCurve(family, n_bootstrap=20, seed=0).fit(C, exact(sigmoid))
    for c in np.linspace(-0.6, 0.6, 9):
        dose = curve.inverse(float(curve.predict(c)))
        assert isinstance(dose, Dose)
        assert dose.status == "ok"
        assert dose.coefficient == pytest.approx(c, abs=1e-9)


def test_predict_undoes_inverse_of_a_noisy_curve_and_its_interval_holds_the_coefficient():
    curve = fitted()
    for target in np.linspace(*curve.predict(curve.usable_range_), 6):
        dose = curve.inverse(float(target))
        assert curve.predict(dose.coefficient) == pytest.approx(target, abs=1e-9)
        lower, upper = dose.interval
        assert -0.6 <= lower <= dose.coefficient <= upper <= 0.6


@pytest.mark.parametrize("sign", [1, -1])
def test_the_interval_of_a_dose_is_the_percentiles_of_the_replicates_inverses(sign):
    data = sweep(lambda c: sign * sigmoid(c), seed=1)
    direction = "increasing" if sign > 0 else "decreasing"
    curve = DoseCurve("pchip", n_bootstrap=200, direction=direction, seed=0).fit(C, data)
    grid = np.linspace(-0.6, 0.6, 4801)
    replicates = curve._replicates(grid).T
    inverses = np.sort([grid[np.argmax(replicate >= sign * 1.5)] for replicate in replicates])
    # Left out on either side, of 200: Student's t and n - 1 in place of 2.5%.
    rank = int(199 * norm.cdf(student.ppf(0.025, 39) * np.sqrt(40 / 39)))
    lower, upper = curve.inverse(1.5).interval
    step = grid[1] - grid[0]
    assert inverses[rank] - step <= lower <= inverses[rank + 1]
    assert inverses[-rank - 2] - step <= upper <= inverses[-rank - 1]


@pytest.mark.parametrize("direction", ["increasing", "decreasing"])
def test_on_a_plateau_the_inverse_is_the_smallest_coefficient(direction):
    c = np.arange(-3.0, 4.0)
    steps = np.array([-2.0, -2.0, 0.0, 0.0, 0.0, 4.0, 4.0]) * (1 if direction[0] == "i" else -1)
    curve = DoseCurve("pchip", n_bootstrap=20, direction=direction, seed=0)
    curve.fit(c, np.repeat(steps[:, None], 2, axis=1))
    found = [curve.inverse(float(target)).coefficient for target in steps[[0, 3, 6]]]
    np.testing.assert_allclose(found, [-2.0, 0.0, 2.0], atol=1e-6)
    beyond = [curve.inverse(target).coefficient for target in (steps[0] * 9, steps[6] * 9)]
    np.testing.assert_allclose(beyond, [-2.0, 2.0], atol=1e-6)


@pytest.mark.parametrize("target", [-30.0, 30.0])
def test_unreachable_names_the_bounds_and_the_nearest(target):
    curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit(C, exact(sigmoid))
    answer = curve.inverse(target)
    assert isinstance(answer, Unreachable)
    end = np.copysign(0.6, target)
    assert answer.target == target
    assert answer.lowest == pytest.approx(sigmoid(-0.6))
    assert answer.highest == pytest.approx(sigmoid(0.6))
    assert answer.nearest == pytest.approx(sigmoid(end))
    assert answer.coefficient == pytest.approx(end)
    assert answer.status == "unreachable"
    with pytest.raises(FrozenInstanceError):
        answer.target = 0.0


def test_a_target_at_the_very_end_is_reachable_and_just_beyond_it_is_not():
    curve = fitted()
    highest = float(curve.predict(curve.usable_range_[1]))
    assert isinstance(curve.inverse(highest), Dose)
    assert isinstance(curve.inverse(highest + 1e-6), Unreachable)


# Where the curve is defined


def test_outside_the_usable_range_all_is_nan_and_shapes_are_kept():
    curve = fitted()
    where = np.array([[-0.61, -0.6, 0.0], [0.6, 0.61, np.nan]])
    outside = np.array([[True, False, False], [False, True, True]])
    np.testing.assert_array_equal(np.isnan(curve.predict(where)), outside)
    for end in curve.interval(where):
        np.testing.assert_array_equal(np.isnan(end), outside)
    assert curve.predict([]).shape == curve.interval([])[0].shape == (0,)
    assert isinstance(curve.predict(0.1), float)
    assert curve.predict(0.1) == curve.predict([0.1])[0]
    assert np.isnan(curve.predict(np.inf))


def test_an_inverted_u_ends_the_range_near_its_peak():
    curves = [fitted(hill, seed=seed) for seed in range(30)]
    ends = np.array([curve.usable_range_ for curve in curves])
    assert (ends[:, 0] == -0.6).mean() >= 0.9
    assert (np.abs(ends[:, 1] - 0.3) < 0.11).mean() >= 0.9
    assert [curve.turning_points_[1] for curve in curves if curve.usable_range_[1] < 0.6] == [
        curve.usable_range_[1] for curve in curves if curve.usable_range_[1] < 0.6
    ]


def test_a_turn_on_the_lower_side_is_found_too():
    ends = [fitted(lambda c: -hill(-c), seed=seed).turning_points_ for seed in range(10)]
    assert sum(low is not None and abs(low + 0.3) < 0.11 for low, _ in ends) >= 9


def test_a_turn_is_seen_through_large_differences_between_prompts():
    # The same prompts at every coefficient: what they share cancels in a drop.
    data = sweep(hill, seed=0, prompt_sd=30.0)
    _, high = DoseCurve("pchip", seed=0).fit(C, data).turning_points_
    assert high == pytest.approx(0.3, abs=0.11)


def test_noise_alone_seldom_makes_a_turn():
    turned = [
        fitted(flat, seed=seed, prompts=12).turning_points_ != (None, None) for seed in range(100)
    ]
    # Expected 5%; 12% would be three standard errors off.
    assert np.mean(turned) < 0.12


def test_a_dip_on_the_way_up_is_no_turn():
    data = exact(sigmoid)
    data[9] -= 4.0
    curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit(C, data)
    assert curve.turning_points_ == (None, None)
    assert curve.usable_range_ == (-0.6, 0.6)


def test_a_vector_that_points_the_wrong_way_has_no_range():
    curve = DoseCurve("auto", seed=0).fit(C, sweep(lambda c: -sigmoid(c), seed=0))
    assert curve.turning_points_ == (0.0, 0.0)
    assert curve.usable_range_ == (0.0, 0.0)
    assert curve.span_ == 0.0
    assert np.isnan(curve.spearman_)
    assert curve.predict(0.0) == pytest.approx(curve.means_[6])
    answer = curve.inverse(3.0)
    assert isinstance(answer, Unreachable)
    assert answer.coefficient == 0.0


def quadratic(a, c=C):
    return np.repeat(a * c[:, None] ** 2, 2, axis=1)


@pytest.mark.parametrize("limit", [0.1, 0.3, 0.7, 1.0])
def test_the_damage_limit_is_found_between_the_points(limit):
    curve = DoseCurve("pchip", damage_limit=limit, n_bootstrap=20, seed=0)
    curve.fit(C, exact(sigmoid), damage=quadratic(3.0))
    crossing = np.sqrt(limit / 3.0)
    np.testing.assert_allclose(curve.usable_range_, [-crossing, crossing], atol=0.01)
    # Between points the curve interpolates up to the crossing and says nothing beyond it.
    near = np.array([-1, 1]) * (crossing - 0.011)
    np.testing.assert_allclose(curve.predict(near), sigmoid(near), atol=0.1)
    assert np.isnan(curve.predict([-crossing - 0.011, crossing + 0.011])).all()


def test_each_side_has_its_own_damage_limit_and_a_low_one_beyond_a_high_one_does_not_count():
    damage = np.where(C < 0, 10.0, 2.0)[:, None] * C[:, None] ** 2 + np.zeros(2)
    damage[-1] = 0.0
    curve = DoseCurve("pchip", damage_limit=0.4, n_bootstrap=20, seed=0)
    curve.fit(C, exact(sigmoid), damage=damage)
    np.testing.assert_allclose(curve.usable_range_, [-np.sqrt(0.04), np.sqrt(0.2)], atol=0.01)


def test_without_damage_or_below_the_limit_the_range_is_all_that_was_measured():
    for damage in (None, quadratic(0.1)):
        curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit(C, exact(sigmoid), damage=damage)
        assert curve.usable_range_ == (-0.6, 0.6)


def test_unknown_damage_is_interpolated_inside_and_too_high_outside():
    damage = quadratic(1.0)
    damage[[0, 6, 8, 12]] = np.nan
    curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit(C, exact(sigmoid), damage=damage)
    np.testing.assert_allclose(curve.usable_range_, [-0.5, 0.5])


def test_intensities_beyond_the_next_point_do_not_bend_the_curve():
    data = sweep(sigmoid, seed=0)
    wild = data.copy()
    wild[0], wild[-1] = -40.0, 40.0
    one, other = (
        DoseCurve("pchip", damage_limit=0.5, seed=0).fit(
            C, y, damage=quadratic(4.0, C)[:, [0] * 40]
        )
        for y in (data, wild)
    )
    grid = np.linspace(*one.usable_range_, 20)
    np.testing.assert_array_equal(one.predict(grid), other.predict(grid))


def test_a_one_sided_sweep_is_enough():
    c = np.linspace(0, 0.6, 7)
    curve = fitted(c=c)
    assert curve.usable_range_ == (0.0, 0.6)
    assert np.isnan(curve.predict(-0.01))


# Error bars


def coverage(family, prompts, runs, at=0.2):
    c = np.linspace(-0.6, 0.6, 7)
    curves = (fitted(family=family, seed=s, c=c, prompts=prompts) for s in range(runs))
    ends = [curve.interval(at) for curve in curves]
    return np.mean([low <= sigmoid(at) <= high for low, high in ends])


@pytest.mark.parametrize(("family", "prompts", "runs"), [("pchip", 40, 200), ("logistic", 16, 40)])
def test_the_interval_covers_the_truth_as_often_as_it_says(family, prompts, runs):
    assert 0.90 <= coverage(family, prompts, runs) <= 0.99


def test_the_logistic_borrows_strength_from_its_neighbours():
    curves = [fitted(family="logistic", seed=seed) for seed in range(5)]
    widths = [np.diff(curve.interval(C[1:-1]), axis=0).mean() for curve in curves]
    assert np.mean(widths) < 0.9 * np.mean([np.diff(curve.ci_[1:-1]).mean() for curve in curves])


@pytest.mark.parametrize("truth", [sigmoid, kinked])
def test_replicates_of_the_logistic_are_least_squares_fits(truth):
    rng = np.random.default_rng(0)
    y = truth(C)[:, None] + rng.normal(0, 0.4, (13, 9))
    weights = rng.integers(10, 30, y.shape).astype(float)
    together = fit_logistic(C, y, weights)(C)
    for k in range(1, 9):
        alone = fit_logistic(C, y[:, [k]], weights[:, [k]])(C)[:, 0]
        np.testing.assert_allclose(together[:, k], alone, atol=0.02)


@pytest.mark.parametrize(("prompts", "within"), [(6, 0.15), (200, 0.05)])
def test_the_interval_of_a_mean_is_as_wide_as_students(prompts, within):
    data = sweep(sigmoid, seed=0, prompts=prompts)
    curve = DoseCurve("pchip", n_bootstrap=2000, seed=0).fit(C, data)
    half = student.ppf(0.975, prompts - 1) * data.std(axis=1, ddof=1) / np.sqrt(prompts)
    widths = np.diff(curve.ci_)[:, 0]
    assert np.mean(widths / (2 * half)) == pytest.approx(1.0, abs=within)
    np.testing.assert_allclose(curve.ci_.mean(axis=1), curve.means_, atol=0.3 * half.max())


def test_a_lower_level_gives_an_interval_inside():
    narrow, wide = (fitted(level=level).interval(C) for level in (0.5, 0.95))
    assert (wide[0] < narrow[0]).all()
    assert (narrow[1] < wide[1]).all()


def test_a_mean_of_one_prompt_has_no_error_bar():
    data = sweep(sigmoid, seed=0)
    data[12, 1:] = np.nan
    curve = DoseCurve("pchip", n_bootstrap=100, seed=0).fit(C, data)
    assert np.isnan(curve.ci_[12]).all()
    assert np.isfinite(curve.ci_[:12]).all()
    assert curve.counts_.tolist() == [40] * 12 + [1]


def test_a_random_direction_spans_little():
    noise = [fitted(flat, seed=seed).span_ for seed in range(20)]
    planted = [fitted(sigmoid, seed=seed).span_ for seed in range(20)]
    assert np.median(np.abs(noise)) < 0.15 * np.median(planted)
    assert max(np.abs(noise)) < 0.25 * min(planted)
    assert abs(np.median([fitted(flat, seed=s, direction="auto").span_ for s in range(20)])) < 1.0


# Invariances


@pytest.mark.parametrize("family", FAMILIES)
def test_the_order_of_prompts_and_coefficients_changes_nothing(family):
    rng = np.random.default_rng(0)
    data, damage = sweep(sigmoid, seed=0), sweep(lambda c: 4 * c**2, seed=1) * 0.5
    data[rng.random(data.shape) < 0.1] = np.nan
    rows, columns = rng.permutation(13), rng.permutation(40)
    one, other = (DoseCurve(family, n_bootstrap=30, damage_limit=1.0, seed=0) for _ in range(2))
    one.fit(C, data, damage=damage)
    other.fit(C[rows], data[rows][:, columns], damage=damage[rows][:, columns])
    same(one, other)


@pytest.mark.parametrize(("a", "b"), [(1.0, 3.0), (4.0, -2.0), (-2.0, 1.0), (0.01, 0.0)])
def test_affine_intensities_give_the_affine_curve(a, b):
    data = sweep(sigmoid, seed=0)
    grid = np.linspace(-0.6, 0.6, 31)
    direction = "increasing" if a > 0 else "decreasing"
    one = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(C, data)
    other = DoseCurve("pchip", n_bootstrap=50, direction=direction, seed=0).fit(C, a * data + b)
    np.testing.assert_allclose(other.predict(grid), a * one.predict(grid) + b, atol=1e-9)
    assert other.span_ == pytest.approx(a * one.span_)
    assert other.spearman_ == pytest.approx(np.sign(a) * one.spearman_)
    assert other.usable_range_ == one.usable_range_
    coefficient = one.inverse(1.0).coefficient
    assert other.inverse(a + b).coefficient == pytest.approx(coefficient, abs=1e-9)
    if a > 0:
        expected = a * np.array(one.interval(grid)) + b
        np.testing.assert_allclose(other.interval(grid), expected, atol=1e-9)


def test_the_unit_of_the_coefficient_is_free_and_its_sign_turns_the_curve():
    data = sweep(sigmoid, seed=0)
    grid = np.linspace(-0.6, 0.6, 31)
    for family, tolerance in (("pchip", 1e-9), ("logistic", 1e-3)):
        one = DoseCurve(family, n_bootstrap=20, seed=0).fit(C, data)
        scaled = DoseCurve(family, n_bootstrap=20, seed=0).fit(7 * C, data)
        turned = DoseCurve(family, n_bootstrap=20, direction="decreasing", seed=0).fit(-C, data)
        np.testing.assert_allclose(scaled.predict(7 * grid), one.predict(grid), atol=tolerance)
        np.testing.assert_allclose(turned.predict(-grid), one.predict(grid), atol=tolerance)
        assert turned.span_ == pytest.approx(-one.span_, abs=tolerance)


@pytest.mark.parametrize(("sign", "increasing"), [(1, True), (-1, False)])
def test_auto_direction_follows_the_data(sign, increasing):
    curve = fitted(lambda c: sign * sigmoid(c), direction="auto")
    assert curve.increasing_ is increasing
    assert curve.usable_range_ == (-0.6, 0.6)
    assert sign * curve.span_ > 8


def test_a_missing_measurement_is_the_same_as_none():
    data = sweep(sigmoid, seed=0)
    rows, columns = np.r_[:2, 3:13], np.r_[:5, 6:40]
    whole = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(C[rows], data[rows][:, columns])
    data[2], data[:, 5] = np.nan, np.nan
    holed = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(C, data)
    assert holed.dropped_ == (C[2],)
    assert whole.dropped_ == ()
    holed.dropped_ = ()
    same(holed, whole)


def test_single_missing_texts_are_left_out_of_means():
    data = sweep(sigmoid, seed=0)
    data[3, :39] = np.nan
    data[3, 39] = 0.25
    curve = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(C, data)
    assert curve.means_[3] == 0.25
    assert curve.counts_[3] == 1


def test_resamples_without_a_measurement_invent_none():
    data = sweep(sigmoid, seed=0)
    data[3] = np.nan
    data[3, :2] = 5.0, 6.0
    low, high = DoseCurve("pchip", n_bootstrap=200, seed=0).fit(C, data).ci_[3]
    assert 5.0 <= low < high <= 6.0


def test_fit_changes_no_input_and_can_be_repeated():
    data, damage, c = sweep(sigmoid, seed=0), quadratic(3.0)[:, [0] * 40], C[::-1].copy()
    before = data.copy(), damage.copy(), c.copy()
    curve = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(c, data, damage=damage)
    for array, old in zip((data, damage, c), before, strict=True):
        np.testing.assert_array_equal(array, old)
    again = DoseCurve("pchip", n_bootstrap=50, seed=0).fit(C, sweep(hill, seed=1))
    same(again.fit(c, data, damage=damage), curve)


def test_the_seed_decides_the_error_bars_and_nothing_else():
    data = sweep(sigmoid, seed=0)
    one, other = (DoseCurve("pchip", n_bootstrap=50, seed=s).fit(C, data) for s in (0, 1))
    np.testing.assert_array_equal(one.predict(C), other.predict(C))
    assert (one.ci_ != other.ci_).any()


# To and from JSON


@pytest.mark.parametrize("family", ["auto", "pchip", "logistic"])
def test_a_curve_survives_json(family):
    data = sweep(sigmoid, seed=0)
    data[4], data[3, :7] = np.nan, np.nan
    damage = quadratic(3.0)[:, [0] * 40]
    damage[2, 3] = np.nan
    parameters = {"damage_limit": np.float64(0.9), "seed": np.int64(7).item(), "level": 0.9}
    curve = DoseCurve(family, n_bootstrap=30, **parameters).fit(C, data, damage=damage)
    text = json.dumps(curve.to_dict(), allow_nan=False)
    other = DoseCurve.from_dict(json.loads(text))
    same(curve, other)
    assert repr(other) == repr(curve).replace("np.float64(0.9)", "0.9")
    assert other.to_dict() == json.loads(text)


def test_a_foreign_or_damaged_dict_is_refused():
    good = fitted().to_dict()
    assert DoseCurve.from_dict(good).family_ == "pchip"
    for change in (
        {"schema": 99},
        {"kind": "scale"},
        {"intensities": good["intensities"][1:]},
        {"intensities": "many"},
        {"parameters": {**good["parameters"], "colour": 1}},
        {"parameters": {**good["parameters"], "family": "cubic"}},
    ):
        with pytest.raises(ArtifactError):
            DoseCurve.from_dict({**good, **change})
    del good["coefficients"]
    with pytest.raises(ArtifactError, match="coefficients"):
        DoseCurve.from_dict(good)


# Hostile input


@pytest.mark.parametrize(
    "use",
    [
        lambda curve: curve.predict(0.0),
        lambda curve: curve.interval(0.0),
        lambda curve: curve.inverse(0.0),
        lambda curve: curve.to_dict(),
    ],
)
def test_use_before_fit_is_an_error(use):
    with pytest.raises(NotFitted, match="call fit"):
        use(DoseCurve(seed=0))


def test_a_fit_that_fails_leaves_no_older_curve():
    curve = DoseCurve("logistic", n_bootstrap=20, seed=0).fit(C, exact(sigmoid))
    with pytest.raises(InvalidInput, match="logistic needs 4"):
        curve.fit(C, sweep(lambda c: -sigmoid(c), seed=0))
    with pytest.raises(NotFitted):
        curve.predict(0.0)


def with_value(value):
    data = exact(sigmoid)
    data[1, 1] = value
    return data


TWICE = C[[0, 1, 2, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12]]


@pytest.mark.parametrize(
    ("c", "data", "damage", "match"),
    [
        (C[5:8], exact(sigmoid)[5:8], None, "4 or more coefficients"),
        (C, np.where(np.arange(13)[:, None] < 10, np.nan, 1.0) * [1, 1], None, "4 or more"),
        (C, np.full((13, 2), np.nan), None, "4 or more coefficients"),
        (TWICE, exact(sigmoid), None, "occurs twice"),
        (C + 1, exact(sigmoid), None, "both sides of 0"),
        (C - 1, exact(sigmoid), None, "both sides of 0"),
        (C, exact(sigmoid)[:, :1], None, "2 or more prompts"),
        (C, exact(sigmoid) * [1, np.nan], None, "2 or more prompts"),
        (C, exact(sigmoid).T, None, "with 13 coefficients"),
        (C, sigmoid(C), None, "with 13 coefficients"),
        (C, with_value(np.inf), None, "infinite"),
        (C, [["a", "b"]] * 13, None, "array of numbers"),
        (C, [[1.0, 2.0]] * 12 + [[1.0]], None, "array of numbers"),
        (C[:, None], exact(sigmoid), None, "finite vector"),
        (np.where(C > 0.5, np.nan, C), exact(sigmoid), None, "finite vector"),
        (np.where(C > 0.5, np.inf, C), exact(sigmoid), None, "finite vector"),
        (C, exact(sigmoid), quadratic(1.0)[:, :1], "damage: expected shape"),
        (C, exact(sigmoid), quadratic(np.inf, C + 9), "damage: infinite"),
        (C, exact(sigmoid), quadratic(np.nan), "damage: all is NaN"),
        (C, exact(sigmoid), quadratic(1.0) + 2.0, "relative to the unsteered"),
    ],
)
def test_a_sweep_that_is_none_is_refused(c, data, damage, match):
    with pytest.raises(InvalidInput, match=match):
        DoseCurve(seed=0).fit(c, data, damage=damage)


@pytest.mark.parametrize(
    ("parameters", "error", "match"),
    [
        ({"family": "logistik"}, UnknownName, "did you mean logistic"),
        ({"direction": "up"}, UnknownName, "known: auto, decreasing, increasing"),
        ({"damage_limit": 0.0}, InvalidInput, "damage_limit"),
        ({"damage_limit": float("nan")}, InvalidInput, "damage_limit"),
        ({"level": 1.0}, InvalidInput, "level"),
        ({"n_bootstrap": 5}, InvalidInput, "n_bootstrap: expected an int >= 20, got 5"),
        ({"seed": -1}, InvalidInput, "seed"),
    ],
)
def test_a_parameter_is_checked_by_fit_not_before(parameters, error, match):
    curve = DoseCurve(**{"seed": 0, **parameters})
    with pytest.raises(error, match=match):
        curve.fit(C, exact(sigmoid))


def test_the_seed_must_be_given():
    with pytest.raises(TypeError, match="seed"):
        DoseCurve()


@pytest.mark.parametrize("target", [np.nan, np.inf])
def test_a_target_must_be_a_number(target):
    with pytest.raises(InvalidInput, match="finite intensity"):
        fitted().inverse(target)


def test_equal_intensities_everywhere_give_a_level_curve():
    for family in ("auto", *FAMILIES):
        curve = DoseCurve(family, n_bootstrap=20, seed=0).fit(C, np.full((13, 3), 2.5))
        assert curve.span_ == pytest.approx(0.0, abs=1e-9)
        assert curve.turning_points_ == (None, None)
        assert np.isnan(curve.spearman_)
        np.testing.assert_allclose(curve.predict(C), 2.5)


def test_pchip_of_one_point_is_a_constant():
    level = fit_pchip(np.array([0.3]), np.array([[2.0, 3.0]]), np.ones((1, 2)))
    np.testing.assert_array_equal(level(np.array([0.3])), [[2.0, 3.0]])


def test_the_examples_run():
    assert doctest.testmod(curve_module).failed == 0
