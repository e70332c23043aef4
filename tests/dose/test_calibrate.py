"""The closed loop in a planted world, from sweep to verified targets."""

import math

import numpy as np
import pytest
from planted_loop import (
    CALIBRATED_ON,
    COEFFICIENTS,
    DECODING,
    VERIFIED_ON,
    calibration,
    evaluator,
    loaded,
    planted_intensity,
    reachable,
    vector,
    verified,
)
from steering_cases import hooks

from valueflow.backends.hf import HFBackend
from valueflow.dose.calibrate import (
    Verified,
    calibrate,
    mean_absolute_error,
    mean_half_width,
    rank_correlation,
    verify,
)
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, NotFitted
from valueflow.evaluate import AnchorEvaluator
from valueflow.typing import Item


def test_the_vector_moves_the_measured_intensity_far_and_in_order():
    arm, curve = calibration().arm, calibration().curve
    assert curve.span_ > 4
    assert rank_correlation(arm.coefficients, arm.means.tolist()) > 0.9
    assert arm.coefficients == COEFFICIENTS
    assert arm.intensities.shape == arm.damage.shape == (7, 24)


def test_measured_intensities_are_those_planted_in_the_texts():
    arm = calibration().arm
    truth = np.array([[planted_intensity(Item(t)) for t in row] for row in arm.texts])
    gap = arm.means - truth.mean(axis=1)
    middle = np.abs(truth.mean(axis=1)) < 7
    assert middle.sum() >= 3 and np.abs(gap[middle]).max() < 0.4
    # Near the ends of the panel a bound stands for some texts, always on the cautious side.
    ends = gap[~middle] * np.sign(truth.mean(axis=1)[~middle])
    assert (ends < 0.3).all() and (ends > -1.2).all()
    assert np.corrcoef(arm.intensities.ravel(), truth.ravel())[0, 1] > 0.9


def test_targets_are_hit_on_prompts_never_seen():
    rows, grid = verified()
    assert grid.prompts == tuple(VERIFIED_ON)
    for row in rows[:4]:
        assert row.status == "ok" and row.nearest == row.target
        assert row.achieved == pytest.approx(row.target, abs=1.5), row
        assert row.ci[0] < row.achieved < row.ci[1]
    assert mean_absolute_error(rows) < 0.8
    texts = grid.texts[2]
    assert rows[1].achieved == pytest.approx(
        np.mean([planted_intensity(Item(t)) for t in texts]), abs=0.5
    )


def test_an_unreachable_target_is_named_and_the_nearest_is_tried():
    rows, grid = verified()
    row = rows[-1]
    assert (row.target, row.status) == (40.0, "unreachable")
    assert row.nearest == pytest.approx(reachable(1.0)[0])
    # What is planted in the answers to these prompts, which lies 1.7 below the calibrated ones'.
    truth = np.mean([planted_intensity(Item(text)) for text in grid.texts[-1]])
    assert row.achieved == pytest.approx(truth, abs=0.5)
    assert row.achieved == pytest.approx(row.nearest, abs=2.5)
    assert row.coefficient == pytest.approx(calibration().curve.usable_range_[1])


def test_the_second_judge_scores_the_same_texts():
    arm = calibration().arm
    assert len(arm.second) == 7
    assert np.corrcoef(arm.second, arm.means)[0, 1] > 0.98


def test_the_loop_leaves_the_model_unsteered():
    verified()
    assert not hooks(loaded().model)


def test_provenance_says_what_the_curve_holds_for():
    found = calibration().provenance
    assert found["model"]["model"] == loaded().fingerprint.model
    assert found["evaluator"] == evaluator().fingerprint()
    assert found["panel"] == evaluator().panel.fingerprint()
    assert found["prompts"] == CALIBRATED_ON and found["seed"] == 0
    assert calibration().decoding == DECODING


def test_targets_out_of_reach_on_one_side_share_their_texts():
    asked, generated = [40.0, 50.0, 0.0], []
    rows, grid = verify(
        loaded(),
        calibration(),
        evaluator(),
        prompts=VERIFIED_ON[:4],
        targets=asked,
        stage=lambda _name: lambda _done, total: generated.append(total),
    )
    assert [row.target for row in rows] == asked and len(grid.texts) == 4
    assert generated[-1] == 3 * 4  # unsteered, the end of the range, and 0
    assert grid.texts[1] == grid.texts[2] != grid.texts[3]
    assert rows[0].coefficient == rows[1].coefficient and rows[0].damage == rows[1].damage


def test_prompts_that_were_calibrated_on_are_refused():
    with pytest.raises(InvalidInput, match="was calibrated on"):
        verify(loaded(), calibration(), evaluator(), prompts=[*VERIFIED_ON, CALIBRATED_ON[5]])


@pytest.fixture
def generated(monkeypatch):
    """Counts the batches that a model answers."""
    calls, real = [], HFBackend.generate

    def counted(*args, **options):
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(HFBackend, "generate", counted)
    return calls


def unfitted():
    return AnchorEvaluator(evaluator().judge, evaluator().panel, seed=0)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"coefficients": (-0.2, 0.2)}, InvalidInput, "must include 0"),
        ({"placebos": {"random": []}}, InvalidInput, "placebo 'random' has no draw"),
        ({"evaluator": unfitted}, NotFitted, "call fit"),
        ({"second": unfitted}, NotFitted, "call fit"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_anything_is_generated(
    generated, changed, error, message
):
    given = {
        "evaluator": evaluator,
        "second": evaluator,
        "prompts": CALIBRATED_ON[:2],
        "decoding": Decoding(max_new_tokens=2),
        "damage_limit": 50.0,
        "seed": 0,
    }

    def run(**options):
        made = {name: x() if callable(x) else x for name, x in options.items()}
        return calibrate(loaded(), vector(), made.pop("evaluator"), **made)

    with pytest.raises(error, match=message):
        run(**given | changed)
    assert not generated
    run(**given)
    assert len(generated) == 1


def row(target, achieved, status="ok"):
    return Verified(target, 0.1, achieved, (0.0, 0.0), 0.0, 0.0, status, target)


def test_the_error_is_over_reachable_targets():
    rows = [row(2.0, 3.0), row(-2.0, -2.5), row(9.0, 0.0, "unreachable")]
    assert mean_absolute_error(rows) == pytest.approx(0.75)
    assert math.isnan(mean_absolute_error(rows[2:]))


@pytest.mark.parametrize("n", [2, 5, 24])
def test_intervals_of_a_mean_cover_it_however_few_prompts(n):
    drawn = np.random.default_rng(3).normal(2.0, 3.0, size=(4000, n))
    held = [abs(own.mean() - 2.0) < mean_half_width(own) for own in drawn]
    assert np.mean(held) == pytest.approx(0.95, abs=0.012)
    assert math.isnan(mean_half_width(drawn[0, :1]))


def test_rank_correlation_needs_three_points_and_variation():
    assert rank_correlation([1.0, 2.0, 3.0], [1.0, 8.0, 9.0]) == pytest.approx(1)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1.0, 2.0], [1.0, 2.0]))
    assert math.isnan(rank_correlation([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))
