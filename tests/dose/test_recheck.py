"""A card measured again in the planted world, where it holds, and where it does not."""

import dataclasses
import functools

import numpy as np
import pytest
from planted_loop import ASKED, CALIBRATED_ON, calibration, evaluator, loaded

from valueflow.dose.curve import DoseCurve
from valueflow.dose.prediction import scale_noise
from valueflow.dose.recheck import recheck, share_inside, spread_targets, used_prompts
from valueflow.dose.steerer import Card
from valueflow.errors import InvalidInput, StaleArtifact

NEW = ASKED[48:56]


@functools.cache
def card():
    found = calibration()
    made_on = dataclasses.asdict(loaded().fingerprint)
    vector = dataclasses.replace(
        found.vector, value="svt/power", provenance={"model": {"name": "tiny", **made_on}}
    )
    kept = {"scale_noise": scale_noise(evaluator()).to_dict(), "verified_on": ASKED[24:30]}
    return Card(vector, found.curve, found.decoding, found.provenance, kept)


def test_targets_come_back_inside_what_was_promised():
    rows, grid = recheck(loaded(), card(), evaluator(), prompts=NEW)
    assert len(rows) == 7 and grid.prompts == tuple(NEW)
    assert share_inside(rows) >= 6 / 7
    achieved = [row.achieved for row in rows]
    assert np.corrcoef(achieved, [row.target for row in rows])[0, 1] > 0.9
    assert all(row.promised[0] < row.target < row.promised[1] for row in rows)
    assert all(row.n_prompts == len(NEW) for row in rows)


def test_a_card_that_is_wrong_is_found_out():
    """The same card, but its curve says 6 points more than is true."""
    c, y = calibration().arm.coefficients, calibration().arm.intensities
    curve = DoseCurve(damage_limit=5.0, seed=0).fit(
        list(c), y + 6.0, damage=calibration().arm.damage
    )
    rows, _ = recheck(
        loaded(), dataclasses.replace(card(), curve=curve), evaluator(), prompts=NEW, n_targets=4
    )
    assert share_inside(rows) == 0


def test_targets_are_spread_inside_the_range():
    low, high = sorted(map(float, card().curve.predict(card().curve.usable_range_)))
    found = spread_targets(card(), 3)
    assert found == pytest.approx([low + (high - low) * s for s in (0.25, 0.5, 0.75)])


def test_prompts_that_made_the_card_are_refused():
    assert used_prompts(card()) == {*CALIBRATED_ON, *ASKED[24:30]}
    for used in (CALIBRATED_ON[3], ASKED[25]):
        with pytest.raises(InvalidInput, match="was used for the card"):
            recheck(loaded(), card(), evaluator(), prompts=[*NEW, used])
    with pytest.raises(InvalidInput, match="two or more prompts"):
        recheck(loaded(), card(), evaluator(), prompts=NEW[:1])


def test_a_target_out_of_reach_and_another_panel_are_refused():
    with pytest.raises(InvalidInput, match="out of reach"):
        recheck(loaded(), card(), evaluator(), prompts=NEW, targets=[60.0])
    other = evaluator().among(evaluator().panel.take(range(30)), seed=0)
    with pytest.raises(StaleArtifact, match="panel"):
        recheck(loaded(), card(), other, prompts=NEW)
