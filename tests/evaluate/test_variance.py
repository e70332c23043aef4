import functools
import math

import numpy as np
import pytest
from evaluator_cases import fitted, texts

from valueflow.errors import InvalidInput, NotFitted
from valueflow.evaluate import AnchorEvaluator, VarianceComponents, mean_stderr, measure_components
from valueflow.evaluate.variance import variance_components

PLANTED = {"prompt": 4.0, "panel": 1.0, "judge": 0.49}
SHAPE = (60, 3, 2)


def table(rng, shape=SHAPE, **variances):
    known = PLANTED | variances
    n, draws, _ = shape
    prompt = rng.normal(0, known["prompt"] ** 0.5, (n, 1, 1))
    panel = rng.normal(0, known["panel"] ** 0.5, (n, draws, 1))
    return 2.5 + prompt + panel + rng.normal(0, known["judge"] ** 0.5, shape)


@functools.cache
def many(n=400, **variances):
    rng = np.random.default_rng(0)
    return [variance_components(table(rng, **variances)) for _ in range(n)]


@pytest.mark.parametrize("source", PLANTED)
def test_planted_components_are_recovered_without_bias_and_with_honest_errors(source):
    found = np.array([getattr(c, source) for c in many()])
    stated = np.array([getattr(c, f"{source}_stderr") for c in many()])
    assert found.mean() == pytest.approx(PLANTED[source], abs=3 * found.std() / 20)
    assert stated.mean() == pytest.approx(found.std(), rel=0.15)
    inside = np.abs(found - PLANTED[source]) < 1.96 * stated
    assert 0.9 < inside.mean() < 0.98


def test_a_component_that_is_not_there_is_zero_on_average_and_not_clipped():
    found = np.array([c.panel for c in many(panel=0.0)])
    assert abs(found.mean()) < 0.02 and (found < 0).mean() > 0.3


def test_the_error_of_a_mean_is_the_scatter_of_means():
    rng = np.random.default_rng(1)
    components = VarianceComponents(**PLANTED, **dict.fromkeys(ERRORS, 0.0), shape=SHAPE)
    for shape in ((10, 1, 1), (10, 4, 1), (25, 2, 3)):
        means = [table(rng, shape).mean() for _ in range(3000)]
        stated = mean_stderr(components, shape[0], n_draws=shape[1], n_showings=shape[2])
        assert stated == pytest.approx(np.std(means), rel=0.05)


ERRORS = ("prompt_stderr", "panel_stderr", "judge_stderr")


def test_no_number_of_prompts_averages_out_the_scale():
    components = VarianceComponents(4.0, 1.0, -0.2, 0.0, 0.0, 0.0, SHAPE)
    assert mean_stderr(components, 10**8, scale_stderr=0.3) == pytest.approx(0.3, abs=1e-4)
    assert mean_stderr(components, 5) == pytest.approx(1.0)
    assert mean_stderr(components, 5, scale_stderr=1) == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("shape", [(1, 3, 2), (5, 1, 2), (5, 3, 1)])
def test_too_small_a_design_is_refused(shape):
    with pytest.raises(InvalidInput, match="2 or more prompts, draws and showings"):
        variance_components(np.zeros(shape))


def test_a_missing_measurement_is_refused_not_filled_in():
    measured = table(np.random.default_rng(2))
    measured[3, 1, 0] = np.nan
    with pytest.raises(InvalidInput, match="missing"):
        variance_components(measured)


@pytest.mark.slow
def test_an_evaluators_own_error_bar_is_judge_and_panel_together():
    # A Plackett-Luce judge errs anew in every window, so all but the prompts is judge noise.
    evaluator = fitted(n_windows=8, sharpness=0.5)
    items, known = texts(60, seed=21)
    found = measure_components(evaluator, items, n_draws=3, n_showings=2, seed=3)
    scores = evaluator.score(items)
    bars = np.mean([s.stderr**2 - s.scale_stderr**2 for s in scores if s.status == "ok"])
    assert found.judge + found.panel == pytest.approx(bars, abs=3 * found.judge_stderr + 0.1)
    assert abs(found.panel) < 3 * found.panel_stderr
    assert found.prompt == pytest.approx(known.var(ddof=1), abs=3 * found.prompt_stderr)


def test_a_judge_without_noise_has_panel_variance_only():
    found = measure_components(fitted(sharpness=None, n=60), texts(30, seed=22)[0], seed=4)
    assert found.judge == 0.0 and found.judge_stderr == 0.0
    assert found.panel > 2 * found.panel_stderr > 0


def test_texts_that_were_not_ranked_are_left_out_and_a_scale_is_needed():
    evaluator = fitted(n=60, n_windows=2)
    evaluator.judge.failure_rate = 0.3
    found = measure_components(evaluator, texts(40, seed=23)[0], n_draws=2, seed=5)
    assert 20 < found.shape[0] < 40 and found.shape[1:] == (2, 2)
    with pytest.raises(NotFitted):
        bare = AnchorEvaluator(evaluator.judge, evaluator.panel, seed=0)
        measure_components(bare, texts(5, seed=24)[0], seed=0)
