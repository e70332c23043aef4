"""What an intervention accepts, and what it adds."""

import dataclasses

import jaxtyping
import pytest
import torch

from valueflow.backends.base import POSITIONS, Intervention, check_layers, prompt_scope
from valueflow.errors import InvalidInput


def make(**changes):
    generator = torch.Generator().manual_seed(0)
    given = {
        "directions": {1: torch.randn(2, 8, generator=generator), 3: torch.eye(2, 8)},
        "norms": {1: 2.0, 3: 5.0},
        "coefficients": torch.tensor([[0.3, -1.1], [0.0, 0.0], [2.0, 0.25]]),
    }
    return Intervention(**(given | changes))


@pytest.fixture
def without_shape_checks():
    """As users run it: the test run's own check of the annotations would refuse first."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


def test_deltas_are_the_sum_over_values_written_out():
    intervention = make()
    for layer, delta in intervention.deltas().items():
        for row, coefficients in enumerate(intervention.coefficients):
            expected = torch.zeros(8)
            for value, coefficient in enumerate(coefficients):
                direction = intervention.directions[layer][value]
                expected += intervention.norms[layer] * float(coefficient) * direction
            torch.testing.assert_close(delta[row], expected)


def test_deltas_of_zero_coefficients_are_none_at_all():
    assert make(coefficients=torch.zeros(3, 2)).deltas() == {}
    assert set(make().deltas()) == {1, 3}


def test_a_zero_row_among_others_is_exactly_zero():
    assert all(not delta[1].any() for delta in make().deltas().values())


def test_deltas_are_fp32_whatever_the_parts_are():
    half = {layer: d.bfloat16() for layer, d in make().directions.items()}
    deltas = make(directions=half, coefficients=make().coefficients.double()).deltas()
    assert {delta.dtype for delta in deltas.values()} == {torch.float32}
    torch.testing.assert_close(deltas[1], make().deltas()[1], atol=0.05, rtol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norms": {1: 2.0}}, r"layers \[1, 3\], norms for \[1\]"),
        ({"norms": {1: 2.0, 4: 1.0}}, "expected the same layers"),
        ({"norms": {1: float("nan"), 3: 1.0}}, "layer 1: expected a positive norm, got nan"),
        ({"norms": {1: 1.0, 3: float("inf")}}, "layer 3: expected a positive norm, got inf"),
        ({"norms": {1: -1.0, 3: 1.0}}, "layer 1: expected a positive norm, got -1"),
        ({"positions": "everywhere"}, "positions must be one of .*'everywhere'"),
        ({"coefficients": torch.ones(2)}, r"expected \(rows, values\), got \(2,\)"),
        ({"coefficients": torch.ones(3, 3)}, r"layer 1: directions \(2, 8\) do not fit"),
        ({"coefficients": torch.tensor([[1.0, torch.nan]])}, "coefficient is not finite"),
        ({"coefficients": torch.tensor([[1.0, torch.inf]])}, "coefficient is not finite"),
        (
            {"directions": {1: torch.eye(2, 8), 3: torch.full((2, 8), torch.nan)}},
            "layer 3: a direction is not finite",
        ),
        ({"directions": {1: torch.eye(2, 8), 3: torch.ones(8)}}, r"layer 3: directions \(8,\)"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message, without_shape_checks):
    with pytest.raises(InvalidInput, match=message):
        make(**changes)


def test_an_intervention_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().positions = "last"


def test_comparison_is_by_identity_as_tensors_have_no_truth_value():
    intervention = make()
    assert intervention == intervention
    assert intervention != make()
    assert len({intervention, make()}) == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ((3, 8, None), r"layers \[1, 3\]: expected one or more of 0..2"),
        ((4, 16, None), "layer 1: directions have 8 dimensions, the model's residual stream 16"),
        ((4, 8, torch.ones(2, 5).bool()), "3 rows, the prompts 2"),
    ],
)
def test_a_model_or_batch_of_another_size_is_refused(model, message):
    with pytest.raises(InvalidInput, match=message):
        make().check_fit(*model)


def test_what_fits_is_accepted():
    make().check_fit(4, 8, None)
    make().check_fit(4, 8, torch.ones(3, 5).bool())
    make(coefficients=torch.ones(1, 2)).check_fit(4, 8, torch.ones(7, 5).bool())


@pytest.mark.parametrize("positions", ["prompt", "generated", "last"])
def test_a_scope_within_the_sequence_needs_the_prompt(positions):
    with pytest.raises(InvalidInput, match=f"{positions}.*needs prompt_mask"):
        make(positions=positions).check_fit(4, 8, None)


def test_layers_are_sorted_and_distinct():
    assert check_layers([3, 0, 3], 4) == [0, 3]


@pytest.mark.parametrize("layers", [[], [-1], [0, 4], {1: "a", 9: "b"}])
def test_layers_outside_the_model_are_refused(layers):
    with pytest.raises(InvalidInput, match=r"expected one or more of 0\.\.3"):
        check_layers(layers, 4)


LEFT, RIGHT, FULL, EMPTY = [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]
IN_SCOPE = {
    "all": [LEFT, RIGHT, FULL, EMPTY],
    "prompt": [LEFT, RIGHT, FULL, EMPTY],
    "generated": [EMPTY, EMPTY, EMPTY, EMPTY],
    "last": [[0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1], EMPTY],
}


@pytest.mark.parametrize("positions", POSITIONS)
def test_prompt_tokens_in_scope(positions):
    mask = torch.tensor([LEFT, RIGHT, FULL, EMPTY]).bool()
    expected = torch.tensor(IN_SCOPE[positions]).bool()
    assert torch.equal(prompt_scope(mask, positions), expected)
