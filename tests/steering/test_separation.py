import itertools
import math

import numpy as np
import pytest
import torch

from valueflow.errors import InvalidInput
from valueflow.steering.separation import auc, separation


def graded(n_ladders, *, shift=1.0, seed=0, between=0.7):
    """Scores of five texts per ladder: intensity, what the ladder adds, noise."""
    rng = np.random.default_rng(seed)
    intensities = np.tile([-8.0, -4.0, 0.0, 4.0, 8.0], n_ladders)
    ladders = [f"l{i // 5}" for i in range(5 * n_ladders)]
    own = np.repeat(rng.normal(0, between, n_ladders), 5)
    scores = shift * intensities / 6 + own + rng.normal(0, 1, 5 * n_ladders)
    return torch.tensor(scores).float(), torch.tensor(intensities).float(), ladders


def slow_auc(scores, intensities, weights):
    """By counting pairs, each as often as its texts occur."""
    won = total = 0.0
    for i, j in itertools.product(range(len(scores)), repeat=2):
        if intensities[i] > 2 and intensities[j] < -2:
            pairs = weights[i] * weights[j]
            total += pairs
            won += pairs * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return won / total


def test_auc_and_its_interval_are_those_of_counting():
    scores, intensities, ladders = graded(6)
    scores = scores.mul(2).round()  # Ties.
    found = auc(scores, intensities, ladders, rng=np.random.default_rng(3), draws=15)
    listed = (scores.tolist(), intensities.tolist())
    assert found.estimate == pytest.approx(slow_auc(*listed, [1] * 30))
    counts = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), size=15)
    names = sorted(set(ladders))
    redrawn = [slow_auc(*listed, [c[names.index(name)] for name in ladders]) for c in counts]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(redrawn, [0.025, 0.975])))
    assert found.ladders == 6


def test_auc_heeds_the_order_alone():
    scores, intensities, ladders = graded(10)

    def measure(scores, intensities=intensities):
        return auc(scores, intensities, ladders, rng=np.random.default_rng(0))

    found = measure(scores)
    assert measure(scores.exp()) == found
    assert measure(-scores).estimate == pytest.approx(1 - found.estimate)
    assert measure(scores, -intensities).estimate == pytest.approx(1 - found.estimate)
    assert measure(torch.zeros(50)).estimate == 0.5
    perfect = measure(intensities)
    assert (perfect.estimate, perfect.low, perfect.high) == (1, 1, 1)


def test_interval_is_of_ladders_not_of_texts():
    """Saying everything four times is no more evidence."""
    scores, intensities, ladders = graded(12)
    once = auc(scores, intensities, ladders, rng=np.random.default_rng(0))
    again = auc(scores.repeat(4), intensities.repeat(4), ladders * 4, rng=np.random.default_rng(0))
    assert (again.estimate, again.low, again.high) == pytest.approx(
        (once.estimate, once.low, once.high)
    )
    more = auc(*graded(192), rng=np.random.default_rng(0))
    assert more.high - more.low == pytest.approx((once.high - once.low) / 4, rel=0.4)


def test_interval_holds_the_truth_about_as_often_as_it_says():
    truth = auc(*graded(1500, seed=999), rng=np.random.default_rng(0), draws=10).estimate
    found = [
        auc(*graded(20, seed=seed), rng=np.random.default_rng(seed), draws=300)
        for seed in range(150)
    ]
    held = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.88 <= held <= 0.99


def test_separation_by_hand_and_without_scenarios():
    scores, intensities, ladders = graded(9)
    direction = torch.tensor([0.6, 0.8])
    rows = scores[:, None] * direction
    position = [
        s - np.mean(scores[i // 5 * 5 : i // 5 * 5 + 5].tolist())
        for i, s in enumerate(scores.tolist())
    ]
    high = [p for p, v in zip(position, intensities.tolist(), strict=True) if v > 2]
    low = [p for p, v in zip(position, intensities.tolist(), strict=True) if v < -2]
    effect = (np.mean(high) - np.mean(low)) / math.sqrt((np.var(high) + np.var(low)) / 2)
    found = separation(rows, intensities, ladders, direction)
    assert found.effect == pytest.approx(effect, rel=1e-5)
    assert found.auc == pytest.approx(np.mean([[h > x for x in low] for h in high]))
    moved = rows + 50 * torch.randn(
        9, 2, generator=torch.Generator().manual_seed(0)
    ).repeat_interleave(5, 0)
    again = separation(moved, intensities, ladders, 7 * direction)
    assert again == pytest.approx(found, rel=1e-4)
    assert separation(rows, intensities, ladders, -direction).effect == pytest.approx(-effect)
    nothing = separation(rows, intensities, ladders, torch.tensor([0.8, -0.6]) * 0)
    assert math.isnan(nothing.effect)
    assert nothing.auc == 0.5


def test_what_has_no_auc():
    scores, intensities, ladders = graded(3)
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidInput, match="15 scores, 15 intensities and 14 ladders"):
        auc(scores, intensities, ladders[:-1], rng=rng)
    with pytest.raises(InvalidInput, match="a pole has none"):
        auc(scores, intensities.abs(), ladders, rng=rng)
    with pytest.raises(InvalidInput, match="finite"):
        auc(scores * math.nan, intensities, ladders, rng=rng)
