import numpy as np
import pytest

from valueflow.dose.arms import Arm
from valueflow.dose.effect import Limits, effect_within, resampled_changes

GRID = (-0.6, -0.3, 0.0, 0.3, 0.6)
LOOP = "on and on and on and on and on and on and on"


def arm(slope=10.0, cost=2.0, *, c=GRID, noise=0.0, prompts=6, looping=(), shift=0.0, seed=0):
    """Intensity slope * c, damage cost * c^2, and loops at the named coefficients."""
    rng = np.random.default_rng(seed)
    x = np.array(c)[:, None]
    each = shift + rng.normal(0, noise, (len(c), prompts)) if noise else np.zeros((1, prompts))
    return Arm(
        coefficients=tuple(c),
        intensities=slope * x + each,
        damage=cost * x**2 + np.zeros((1, prompts)),
        degenerate=tuple(float(v in looping) for v in c),
        outside=(0.0,) * len(c),
        second=None,
        texts=tuple((LOOP if v in looping else "a word",) * prompts for v in c),
    )


def test_the_range_ends_where_interpolated_damage_meets_the_limit():
    # 0.18 at 0.3 and 0.72 at 0.6: on the line between them 0.45 lies halfway.
    found = effect_within(arm(), Limits(0.45))
    assert found.coefficient == pytest.approx(0.45)
    assert found.change == pytest.approx(9.0)
    assert found.bounded


def test_the_worse_side_bounds_both():
    one_sided = arm()
    one_sided.damage[:2] *= 3  # 0.54 at -0.3
    found = effect_within(one_sided, Limits(0.27))
    assert found.coefficient == pytest.approx(0.15)
    assert found.change == pytest.approx(3.0)


def test_without_a_limit_met_the_outermost_coefficient_bounds():
    found = effect_within(arm(), Limits(5.0))
    assert (found.coefficient, found.change, found.bounded) == (0.6, pytest.approx(12.0), False)


def test_a_window_and_a_layer_compare_at_the_same_damage():
    """Three times the effect and the damage of a coefficient, which is a third as large."""
    single = effect_within(arm(slope=10, cost=2), Limits(0.5))
    window = effect_within(arm(slope=30, cost=18, c=tuple(x / 3 for x in GRID)), Limits(0.5))
    assert window.change == pytest.approx(single.change)
    assert window.coefficient == pytest.approx(single.coefficient / 3)


def test_loops_count_though_they_are_likely_text():
    looping = arm(cost=-1.0, looping=(0.6,))
    found = effect_within(looping, Limits(0.7, degenerate=0.25))
    assert found.coefficient == pytest.approx(0.375)
    assert found.bounded


def test_a_vector_that_steers_backwards_has_a_negative_change():
    assert effect_within(arm(slope=-10), Limits(0.45)).change == pytest.approx(-9.0)


@pytest.mark.parametrize("missing", [[0, 1], [3, 4], [0, 1, 2, 3, 4]])
def test_a_side_that_was_not_ranked_leaves_no_change(missing):
    silent = arm()
    silent.intensities[missing] = np.nan
    found = effect_within(silent, Limits(0.45))
    assert np.isnan(found.change) and found.coefficient == 0 and not found.bounded


def test_an_end_that_was_not_ranked_shortens_the_range():
    silent = arm()
    silent.intensities[4] = np.nan
    found = effect_within(silent, Limits(5.0))
    assert found.coefficient == pytest.approx(0.3) and found.change == pytest.approx(6.0)


def test_redraws_have_the_error_of_the_mean_and_share_the_prompts():
    many = [arm(noise=2.0, prompts=40, seed=s) for s in range(40)]
    changes = resampled_changes(many[:6], Limits(5.0), n_bootstrap=400, seed=1)
    # A change is a difference of two means of 40 texts each.
    assert changes.std(axis=0) == pytest.approx(2 * (2 / 40) ** 0.5, rel=0.3)
    truth = np.std([effect_within(a, Limits(5.0)).change for a in many])
    assert changes.std(axis=0).mean() == pytest.approx(truth, rel=0.3)
    twice = resampled_changes([many[0], many[0]], Limits(5.0), n_bootstrap=50, seed=2)
    assert np.array_equal(twice[:, 0], twice[:, 1])
