"""Where a release's vectors come from."""

import functools

import pandas as pd
import planted_loop
import pytest
import torch

from valueflow.dose.prompts import load_prompts
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput
from valueflow.steering.derivation import derive
from valueflow.study.release_plan import Plan, check_plan, plan_deriver, steered_siblings
from valueflow.vidb import Vidb, load_starter

VALUE = "svt/universalism"
NAMES = (VALUE, *steered_siblings(VALUE))
PLAN = Plan(layer=(1,), apart=(VALUE,), n_calibration=4)


@functools.cache
def few_texts():
    """Eight ladders per value of the starter."""
    parts = []
    for value in NAMES:
        frame = load_starter().of(value, "steer").frame
        parts.append(frame[frame["ladder"].isin(sorted(set(frame["ladder"]))[:8])])
    return Vidb(pd.concat(parts, ignore_index=True))


@pytest.fixture(scope="module")
def found():
    deriver = plan_deriver(planted_loop.loaded(), few_texts(), PLAN)
    made = {(value, None): deriver(value, None) for value in NAMES}
    return made | {(VALUE, 3): deriver(VALUE, 3)}


def plain(value, **options):
    prompts = load_prompts("calibration")[:4]
    options |= {"layer": [1], "seed": 0, "prompts": prompts}
    return derive(planted_loop.loaded(), few_texts(), value, **options)


@pytest.mark.parametrize("shuffle", [None, 3])
def test_a_vector_set_apart_keeps_its_name_and_says_what_was_taken_out(found, shuffle):
    vector = found[VALUE, shuffle]
    assert vector.value == (VALUE if shuffle is None else f"shuffled({VALUE})")
    projected = vector.provenance["of"]
    assert projected["operation"] == "project_out"
    assert [other["value"] for other in projected["others"]] == list(NAMES[1:])


@pytest.mark.parametrize("shuffle", [None, 3])
def test_a_vector_set_apart_and_its_placebo_have_nothing_of_the_siblings(found, shuffle):
    own = found[VALUE, shuffle].directions[1]
    assert float(own.norm()) == pytest.approx(1.0, abs=1e-5)
    for sibling in NAMES[1:]:
        assert abs(float(own @ found[sibling, None].directions[1])) < 1e-5


def test_vectors_are_derived_in_the_format_that_answers_are_given_in(found):
    sibling = NAMES[1]
    plan = Plan(layer=(1,), n_calibration=4, decoding=Decoding(template="plain"))
    vector = plan_deriver(planted_loop.loaded(), few_texts(), plan)(sibling, None)
    expected = plain(sibling, template="plain")
    torch.testing.assert_close(vector.directions[1], expected.directions[1])
    assert vector.norms == expected.norms
    assert vector.cosine(found[sibling, None]) < 0.99  # Those are of the chat format.


def test_it_is_the_plain_vector_without_them_and_the_others_are_plain(found):
    siblings = [plain(value) for value in NAMES[1:]]
    for vector in siblings:
        torch.testing.assert_close(found[vector.value, None].directions[1], vector.directions[1])
    expected = plain(VALUE).directions[1]
    basis = torch.linalg.qr(torch.stack([v.directions[1] for v in siblings]).T)[0]
    expected = expected - basis @ (basis.T @ expected)
    assert float(expected.norm()) < 0.9999  # There was something to take out.
    torch.testing.assert_close(
        found[VALUE, None].directions[1], expected / expected.norm(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan(apart=(VALUE,)), "layers that all share"),
        (Plan(layer=(1,), coefficients=(0.1,)), "must include 0"),
        (Plan(layer=(1,), n_verification=1), "verification prompts: expected 2 to"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan, told):
    with pytest.raises(InvalidInput, match=told):
        check_plan(plan)
