"""Promised intervals hold in a world whose truth is known."""

import numpy as np
import pytest
from planted_loop import evaluator

from valueflow.dose.curve import DoseCurve
from valueflow.dose.prediction import (
    NO_NOISE,
    ScaleNoise,
    noise_of,
    prediction_interval,
    scale_noise,
)
from valueflow.errors import InvalidInput, NotFitted
from valueflow.evaluate.scale import IntensityScale

COEFFICIENTS = np.linspace(-0.4, 0.4, 9)
TARGETS = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])


def intensities(coefficients, n_prompts, rng):
    """Prompts differ in level and in how far they follow; texts have noise of their own."""
    level = rng.normal(0.5, 1.5, n_prompts)
    follow = rng.normal(1.0, 0.3, n_prompts)
    truth = 6 * np.tanh(3 * np.asarray(coefficients))
    noise = rng.normal(0, 1.2, (len(truth), n_prompts))
    return truth[:, None] * follow + level + noise


def promised(rng, *, n_new, noise=NO_NOISE, n_prompts=24):
    """Targets, what came of them on new prompts, and the intervals that the card had given."""
    measured = intensities(COEFFICIENTS, n_prompts, rng)
    curve = DoseCurve("pchip", n_bootstrap=200, seed=0).fit(COEFFICIENTS, measured)
    fine = np.linspace(*curve.usable_range_, 801)
    doses = np.interp(TARGETS, np.asarray(curve.predict(fine)), fine)
    achieved = intensities(doses, n_new, rng).mean(axis=1)
    shift, turn = rng.normal(0, [noise.at_middle, noise.per_point])
    achieved = achieved + shift + turn * (achieved - noise.middle)
    ends = [prediction_interval(curve, float(c), n_new, noise=noise) for c in doses]
    return achieved, np.array(ends)


@pytest.mark.slow
@pytest.mark.parametrize(("n_new", "noise"), [(16, NO_NOISE), (40, ScaleNoise(1.0, 0.6, 0.08))])
def test_a_promised_interval_covers_the_mean_of_new_prompts(n_new, noise):
    rng = np.random.default_rng(7)
    inside = []
    for _ in range(300):
        achieved, ends = promised(rng, n_new=n_new, noise=noise)
        inside.append((ends[:, 0] <= achieved) & (achieved <= ends[:, 1]))
    assert 0.93 <= np.mean(inside) <= 0.97
    assert np.mean(inside, axis=0).min() > 0.92


def test_the_curves_own_interval_would_promise_too_much():
    rng = np.random.default_rng(8)
    inside = []
    for _ in range(60):
        measured = intensities(COEFFICIENTS, 24, rng)
        curve = DoseCurve("pchip", n_bootstrap=200, seed=0).fit(COEFFICIENTS, measured)
        low, high = curve.interval(0.1)
        inside.append(low <= intensities([0.1], 6, rng).mean() <= high)
    assert np.mean(inside) < 0.85


def test_more_prompts_and_less_noise_promise_more():
    rng = np.random.default_rng(9)
    curve = DoseCurve("pchip", n_bootstrap=200, seed=0)
    curve.fit(COEFFICIENTS, intensities(COEFFICIENTS, 24, rng))

    def width(n, noise=NO_NOISE):
        low, high = prediction_interval(curve, 0.1, n, noise=noise)
        return high - low

    lowest, highest = curve.interval(0.1)
    assert width(5) > width(20) > width(10**6) == pytest.approx(highest - lowest, rel=0.01)
    assert width(20, ScaleNoise(0.0, 0.5, 0.0)) > width(20)
    with pytest.raises(InvalidInput, match="one or more"):
        prediction_interval(curve, 0.1, 0)
    assert np.isnan(prediction_interval(curve, 0.9, 5)).all()
    with pytest.raises(NotFitted):
        prediction_interval(DoseCurve(seed=0), 0.1, 5)


def test_spread_over_prompts_is_that_of_the_texts():
    measured = np.random.default_rng(3).normal(0, 2, (9, 12))
    measured[0, 3:] = np.nan
    curve = DoseCurve("pchip", n_bootstrap=20, seed=0).fit(COEFFICIENTS, measured)
    assert curve.sds_ == pytest.approx(np.nanstd(measured, axis=1, ddof=1))


def test_the_scales_noise_is_the_scatter_of_scales_learned_anew():
    """The same texts, the same misreadings, other windows: two lines, and how far they differ."""
    rng = np.random.default_rng(4)
    known = np.linspace(-9, 9, 30)
    misread = rng.normal(0, 1.5, 30)
    at = np.array([-6.0, 0.0, 6.0])
    differences, stated = [], []
    for _ in range(300):
        found = []
        for _ in range(2):
            positions = 0.8 * (known + misread + rng.normal(0, 1.0, 30)) + 0.3
            scale = IntensityScale().fit(positions, known, position_stderrs=np.full(30, 0.8))
            found.append(scale)
        true = 0.3 + 0.8 * at
        differences.append(found[0].transform(true) - found[1].transform(true))
        stated.append(found[0].redraw_stderr(at))
    assert np.mean(stated, axis=0) == pytest.approx(np.std(differences, axis=0), rel=0.12)


def test_the_kept_noise_is_that_of_the_scale_everywhere():
    noise, scale = scale_noise(evaluator()), evaluator().scale_
    for intensity in (-10.0, -3.0, 0.0, 4.5, 10.0):
        assert noise.stderr(intensity) == pytest.approx(float(scale.redraw_stderr(intensity)))
    assert noise_of({"scale_noise": noise.to_dict()}) == noise
    assert noise_of({}) == NO_NOISE
