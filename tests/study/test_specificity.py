"""Matrices of effects with a truth that is known: what is own, what is next, what is circle."""

import numpy as np
import pytest
from scipy.stats import kstest, pearsonr

from valueflow.errors import InvalidInput
from valueflow.study.specificity import (
    EffectMatrix,
    circle_agreement,
    column_spread,
    effects,
    own_effects,
    siblings_of,
    specificity_summary,
    standardised,
)
from valueflow.theories import get_theory

CIRCLE = get_theory("svt").circle
ANGLES = 2 * np.pi * np.arange(12) / 12
COSINES = np.cos(ANGLES[:, None] - ANGLES)
IDS = ("svt/power", "svt/hedonism", "svt/security")
TRUTH = np.array([[4.0, -1.0, 2.5], [0.5, 3.0, 0.0], [2.0, 0.0, 1.0]])


def matrix(truth, *, seed, sd=2.0, n=30, vectors=IDS, values=IDS):
    """Texts at both ends share their prompts' own level, which is far larger than the noise."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 20, n)
    noise = rng.normal(0, sd, (2, *np.shape(truth), n))
    half = np.asarray(truth)[:, :, None] / 2
    return effects(level + half + noise[0], level - half + noise[1], vectors, values)


def test_planted_effects_come_back_by_size_whatever_the_prompts_are_like():
    found = matrix(TRUTH, seed=0, n=400)
    assert found.means == pytest.approx(TRUTH, abs=3.5 * 2 * 2**0.5 / 400**0.5)


def test_half_widths_cover_the_truth():
    inside = [
        np.abs(found.means - TRUTH) <= found.half_widths
        for found in (matrix(TRUTH, seed=seed, n=6) for seed in range(200))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_own_effect_its_rival_and_the_margin_between():
    found = own_effects(matrix(TRUTH, seed=1, n=200))
    assert [row.value for row in found] == list(IDS)
    assert [row.largest for row in found] == [True, True, False]
    assert [row.other for row in found] == ["svt/security", "svt/power", "svt/power"]
    for row, margin in zip(found, (1.5, 2.5, -1.0), strict=True):
        low, high = row.ci
        half = (high - low) / 2
        assert abs(row.margin - margin) < 1.4 * half and half < 0.8
        assert row.margin == pytest.approx((low + high) / 2)


def test_an_effect_that_was_not_measured_is_no_rival_and_not_largest():
    table = matrix(TRUTH, seed=2, n=20).by_prompt.copy()
    table[0, 2] = np.nan
    table[1, 1] = np.nan
    found = own_effects(EffectMatrix(IDS, IDS, table))
    assert found[0].other == "svt/hedonism" and found[0].largest
    assert not found[1].largest and np.isnan(found[1].effect)
    summary = specificity_summary(EffectMatrix(IDS, IDS, table), seed=0)
    assert summary["effects"]["svt/hedonism"]["svt/hedonism"] is None
    assert summary["largest"] == 1


def test_missing_texts_leave_the_others_of_the_pair():
    table = np.full((1, 2, 4), np.nan)
    table[0, 0] = [1.0, np.nan, 3.0, np.nan]
    table[0, 1, 0] = 5.0
    found = EffectMatrix(IDS[:1], IDS[:2], table)
    assert found.means.tolist() == [[2.0, 5.0]]
    assert found.half_widths[0, 0] == pytest.approx(12.706 * 1.0, abs=0.01)
    assert np.isnan(found.half_widths[0, 1])


def test_standardised_effects_undo_a_value_that_moves_easily():
    """One value of which all texts make ten times as much wins every row, until it is scaled."""
    easy = np.array([1.0, 1.0, 10.0])
    rng = np.random.default_rng(3)
    own = np.eye(3) * 3 + rng.normal(0, 0.4, (3, 3))
    raw = matrix(own * easy, seed=4, sd=0.3, n=40)
    drawn = matrix(rng.normal(0, 1, (12, 3)) * easy, seed=5, sd=0.3, n=40,
                   vectors=[f"random/{i}" for i in range(12)])  # fmt: skip
    spread = column_spread(drawn)
    assert spread[2] / spread[0] == pytest.approx(10, rel=0.6)
    scaled = standardised(raw, spread)
    assert sum(row.largest for row in own_effects(scaled)) == 3
    assert scaled.means == pytest.approx(raw.means / spread)
    with pytest.raises(InvalidInput, match="already"):
        standardised(scaled, spread)


def test_the_spread_is_that_of_effects_not_of_noise():
    rng = np.random.default_rng(6)
    true = rng.normal(0, 1.5, (60, 3))
    true[:, 0] = 0.0
    drawn = matrix(true, seed=7, sd=3.0, n=25, vectors=[f"random/{i}" for i in range(60)])
    spread = column_spread(drawn)
    noise = 3.0 * 2**0.5 / 5
    assert spread[1:] == pytest.approx([1.5, 1.5], rel=0.25)
    assert spread[0] == pytest.approx(noise, rel=0.35)
    with pytest.raises(InvalidInput, match="two or more placebo"):
        column_spread(matrix(TRUTH[:1], seed=0, vectors=IDS[:1]))


def test_a_circle_is_found_and_its_opposites_move_the_other_way():
    found = circle_agreement(matrix(3 * COSINES, seed=8, vectors=CIRCLE, values=CIRCLE), seed=0)
    assert found.correlation > 0.9 and found.p <= 0.001
    assert found.opposed == found.with_opposite == CIRCLE and found.n == 12


def test_warmth_is_no_circle_and_opposes_nothing():
    """Every vector moves all values alike, each by another amount."""
    rng = np.random.default_rng(9)
    warmth = np.repeat(rng.uniform(1, 6, (12, 1)), 12, axis=1)
    made = matrix(warmth, seed=10, sd=0.5, vectors=CIRCLE, values=CIRCLE)
    found = circle_agreement(made, seed=0)
    assert abs(found.correlation) < 0.35 and found.opposed == ()
    margins = [row.margin for row in own_effects(made)]
    assert max(margins) < 0.5 and min(row.effect for row in own_effects(made)) > 0.5


def test_p_is_uniform_without_structure():
    ps = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        table = rng.normal(0, 1, (12, 12, 1))
        made = EffectMatrix(CIRCLE, CIRCLE, table)
        ps.append(circle_agreement(made, n_permutations=199, seed=seed + 1000).p)
    assert kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) < 0.11


def test_the_correlation_is_that_of_a_slow_loop():
    made = matrix(2 * COSINES, seed=11, sd=3, vectors=CIRCLE, values=CIRCLE)
    x, y = [], []
    for i in range(12):
        others = [j for j in range(12) if j != i]
        middle = np.mean([made.means[i, j] for j in others])
        x += [made.means[i, j] - middle for j in others]
        y += [np.cos(2 * np.pi * (i - j) / 12) for j in others]
    found = circle_agreement(made, n_permutations=9, seed=0)
    assert found.correlation == pytest.approx(pearsonr(x, y)[0])


def test_the_order_of_rows_and_columns_does_not_matter():
    made = matrix(2 * COSINES, seed=12, vectors=CIRCLE, values=CIRCLE)
    turned = made.only(CIRCLE[5:] + CIRCLE[:5][::-1])
    first, second = (circle_agreement(m, n_permutations=99, seed=3) for m in (made, turned))
    assert first.correlation == pytest.approx(second.correlation) and first.p == second.p


def test_a_part_of_the_values_and_what_is_refused():
    made = matrix(TRUTH, seed=13)
    part = made.only(["svt/security", "svt/power"])
    assert part.means.tolist() == made.means[np.ix_([2, 0], [2, 0])].tolist()
    with pytest.raises(InvalidInput, match="mft/care-harm was not measured"):
        made.only(["mft/care-harm"])
    with pytest.raises(InvalidInput, match="four or more values of svt"):
        circle_agreement(made, seed=0)
    with pytest.raises(InvalidInput, match="shape"):
        EffectMatrix(IDS, IDS[:2], made.by_prompt)


def test_siblings_are_those_that_are_there():
    assert siblings_of("svt/power", CIRCLE) == list(get_theory("svt").siblings("svt/power"))
    assert siblings_of("svt/power", ["svt/power", "svt/universalism"]) == []
