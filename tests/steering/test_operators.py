"""Ablating, clamping and combining vectors: what each row of a batch ends up with."""

import math

import numpy as np
import pytest
import torch
from tiny import tiny_model

from valueflow.backends.base import Intervention
from valueflow.backends.hf import HFBackend
from valueflow.errors import InvalidInput
from valueflow.models import decoder_blocks
from valueflow.steering import ablate, clamp, combine, intervention, stack
from valueflow.steering.vector import SteeringVector

HIDDEN = 32


def vector(value, *, seed, layers=(1, 2), norm=6.0, model="m1"):
    generator = torch.Generator().manual_seed(seed)
    drawn = {layer: torch.randn(HIDDEN, generator=generator) for layer in layers}
    directions = {layer: d / d.norm() for layer, d in drawn.items()}
    norms = {layer: norm + layer for layer in layers}
    return SteeringVector(value, directions, norms, {"model": {"model": model}})


POWER = vector("svt/power", seed=0)
HEDONISM = vector("svt/hedonism", seed=1, layers=(2, 3), norm=2.5)
SECURITY = vector("svt/security", seed=2)


def streams(rows=3):
    return 5 * torch.randn(rows, 4, HIDDEN, generator=torch.Generator().manual_seed(7))


def after(made, layer, rows=3):
    """The stream after the intervention at one layer, which may not act there."""
    plans = made.plans()
    return plans[layer](streams(rows)) if layer in plans else streams(rows)


def component(hidden, made_for, layer):
    """In units of what the vector adds at coefficient 1."""
    direction = made_for.directions[layer]
    length = direction.norm()
    return hidden @ (direction / length) / (made_for.norms[layer] * length)


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, torch.as_tensor(expected).expand_as(found), atol=atol, rtol=0)
    return True


def test_ablated_vectors_are_gone_at_their_own_layers():
    made = ablate([POWER, HEDONISM])
    for layer in (1, 2):
        assert close(component(after(made, layer), POWER, layer), 0.0)
    for layer in (2, 3):
        assert close(component(after(made, layer), HEDONISM, layer), 0.0)
    assert component(after(made, 1), SECURITY, 1).abs().max() > 0.05
    alone = ablate([POWER])
    torch.testing.assert_close(after(made, 1), after(alone, 1), atol=1e-5, rtol=0)


def test_each_row_loses_its_own():
    made = ablate([POWER, SECURITY], rows=[[True, False], [False, False], [True, True]])
    hidden = after(made, 2)
    assert close(component(hidden[[0, 2]], POWER, 2), 0.0)
    assert close(component(hidden[2], SECURITY, 2), 0.0)
    assert torch.equal(hidden[1], streams()[1])
    assert component(hidden[0], SECURITY, 2).abs().max() > 0.05


@pytest.mark.parametrize("stretched", [POWER, 3 * POWER, POWER - 0.5 * SECURITY, -POWER])
def test_clamping_is_ablating_and_adding_for_vectors_of_any_length(stretched):
    clamped = clamp({stretched: 0.4})
    for layer in (1, 2):
        ablated = after(ablate([stretched]), layer)
        expected = intervention([stretched], [[0.4]]).plans()[layer](ablated)
        torch.testing.assert_close(after(clamped, layer), expected, atol=1e-5, rtol=0)
        assert close(component(after(clamped, layer), stretched, layer), 0.4)


def test_clamping_twice_a_vector_is_clamping_at_twice_the_coefficient():
    for layer in (1, 2):
        twice, once = after(clamp({2 * POWER: 0.3}), layer), after(clamp({POWER: 0.6}), layer)
        torch.testing.assert_close(twice, once, atol=1e-5, rtol=0)


def test_rows_clamp_what_they_name():
    made = clamp({POWER: [0.5, None, -1], HEDONISM: 0.2})
    for layer in (1, 2):
        hidden = after(made, layer)
        assert close(component(hidden[0], POWER, layer), 0.5)
        assert close(component(hidden[2], POWER, layer), -1.0)
    for layer in (2, 3):
        assert close(component(after(made, layer), HEDONISM, layer), 0.2)
    free = component(streams()[1], POWER, 1)
    torch.testing.assert_close(component(after(made, 1)[1], POWER, 1), free)


@pytest.mark.parametrize(
    "number", [np.float32(0.1), np.float64(0.1), np.array(0.1), torch.tensor(0.1)]
)
def test_any_real_number_is_a_target(number):
    expected = clamp({POWER: 0.1, SECURITY: [0.1, None]}).held
    made = clamp({POWER: number, SECURITY: [number, None]})
    torch.testing.assert_close(made.held, expected, equal_nan=True)
    column = clamp({POWER: np.array([0.1, 1.0]), SECURITY: torch.tensor([0.1, 2.0])})
    assert close(column.held, torch.tensor([[0.1, 0.1], [1.0, 2.0]]))
    assert clamp({POWER: np.int64(1)}).held.tolist() == [[1.0]]


def test_what_is_no_target_is_said():
    with pytest.raises(InvalidInput, match="svt/power: expected a number .* got an empty list"):
        clamp({POWER: []})
    for odd in (np.array([[0.1]]), [torch.ones(2)]):
        with pytest.raises(InvalidInput, match="svt/power: expected a number, or None"):
            clamp({POWER: odd})


@pytest.mark.parametrize("rows", [[[True]], [[True, False, True]]])
def test_rows_of_another_width_are_named(rows):
    with pytest.raises(InvalidInput, match=r"rows: expected \(rows, 2\) flags"):
        ablate([POWER, SECURITY], rows=rows)


def test_combined_parts_hold_first_and_add_then():
    made = combine([intervention([SECURITY], [[0.3]]), ablate([POWER]), clamp({HEDONISM: 0.2})])
    for layer in (1, 2, 3):
        held = clamp({POWER: 0.0, HEDONISM: 0.2})
        expected = after(held, layer)
        if layer in SECURITY.norms:
            expected = expected + 0.3 * SECURITY.norms[layer] * SECURITY.directions[layer]
        torch.testing.assert_close(after(made, layer), expected, atol=1e-5, rtol=0)


def test_combining_spreads_single_rows_over_many():
    coefficients = [[0.1], [0.0], [-0.4]]
    made = combine([ablate([POWER], keep_norm=True), intervention([SECURITY], coefficients)])
    assert made.coefficients.tolist() == [[0.0, pytest.approx(c[0])] for c in coefficients]
    assert close(after(made, 1).norm(dim=-1) - streams().norm(dim=-1), 0.0)
    plain = combine([intervention([POWER], [[1.0]]), intervention([SECURITY], coefficients)])
    assert plain.only_adds
    expected = intervention([POWER, SECURITY], [[1.0, *c] for c in coefficients])
    for layer, delta in plain.deltas().items():
        torch.testing.assert_close(delta, expected.deltas()[layer], atol=1e-5, rtol=0)


def test_contradicting_parts_are_refused():
    with pytest.raises(InvalidInput, match="contradict"):
        combine([ablate([POWER]), clamp({POWER: 0.5})]).plans()


def test_stacked_arms_are_what_they_are_alone():
    arms = [
        None,
        ablate([POWER], keep_norm=True),
        intervention([POWER, HEDONISM], [[0.5, 0.0], [0.0, -0.5]]),
        clamp({HEDONISM: [0.1, None]}),
    ]
    made, before = stack(arms), 0
    for arm in arms:
        n_rows = 1 if arm is None else len(arm.coefficients)
        own = slice(before, before + n_rows)
        for layer in (1, 2, 3):
            hidden = after(made, layer, rows=6)[own]
            if arm is None or layer not in arm.plans():
                assert torch.equal(hidden, streams(6)[own])
            else:
                expected = arm.plans()[layer](streams(6)[own])
                torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
        before += n_rows
    assert before == len(made.coefficients) == 6


def test_one_call_of_generate_holds_several_arms():
    model = tiny_model("llama")
    backend = HFBackend(model, decoder_blocks(model)[1])
    ids = torch.tensor([[5, 9, 33, 71]])
    mask = torch.ones_like(ids)
    options = {"min_new_tokens": 6, "max_new_tokens": 6}
    arms = [
        None,
        ablate([POWER, SECURITY]),
        clamp({POWER: 1.5}),
        intervention([POWER], [[-1.5]]),
        combine([ablate([POWER]), intervention([HEDONISM], [[2.0]])]),
    ]
    together = backend.generate(ids.repeat(5, 1), mask.repeat(5, 1), stack(arms), **options)
    alone = torch.cat([backend.generate(ids, mask, arm, **options) for arm in arms])
    assert torch.equal(together, alone)
    assert len({tuple(row) for row in together.tolist()}) >= 4, "too weak an effect to show a mix"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ablate([]), "one or more steering vectors"),
        (lambda: ablate([POWER], rows=[[True, False]]), "one column per vector"),
        (lambda: ablate([POWER, vector("x", seed=3, model="m2")]), "derive both from the same"),
        (lambda: clamp({}), "one or more steering vectors"),
        (lambda: clamp({POWER: math.nan}), "not finite; None leaves"),
        (lambda: clamp({POWER: [0.1, 0.2], HEDONISM: [0.1] * 3}), "has 2 targets, another .* 3"),
        (lambda: combine([]), "one or more interventions"),
        (lambda: stack([None, None]), "one or more interventions"),
        (lambda: combine([ablate([POWER]), ablate([POWER], positions="last")]), "have positions"),
        (
            lambda: combine([intervention([POWER], [[1.0]] * n) for n in (2, 3)]),
            r"\[2, 3\] rows; expected as many",
        ),
        (
            lambda: stack(
                [ablate([POWER]), Intervention({1: torch.eye(1, 8)}, {1: 1.0}, torch.ones(1, 1))]
            ),
            r"hidden sizes \[8, 32\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()
