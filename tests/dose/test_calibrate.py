"""The closed loop in a planted world: the judge reads off a text what the vector pushes into it."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from steering_cases import hooks
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.calibrate import (
    Arm,
    Calibration,
    Verified,
    calibrate,
    mean_absolute_error,
    rank_correlation,
    verify,
)
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput
from valueflow.evaluate import AnchorEvaluator, Panel
from valueflow.judges import ScriptedJudge
from valueflow.models import load
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.typing import Item

MARKED = frozenset("abcdefghijklm")
COEFFICIENTS = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
DECODING = Decoding(max_new_tokens=24)
WORDS = ["rain", "garden", "neighbour", "money", "letter", "train", "promise", "window"]
ASKED = [f"What would you say of the {a} and the {b}?" for a in WORDS for b in WORDS if a != b]
CALIBRATED_ON, VERIFIED_ON = ASKED[:24], ASKED[24:48]


def planted_intensity(item):
    """-10 to 10: the share of letters that are marked."""
    letters = [c for c in item.text.lower() if c.isalpha()]
    share = sum(c in MARKED for c in letters) / len(letters) if letters else 0.5
    return 20.0 * share - 10.0


def anchor(n_marked, tag, n=40):
    return Item("a" * n_marked + "z" * (n - n_marked) + f" {tag}")


@functools.cache
def evaluator():
    items = tuple(anchor(n, 0) for n in range(41))
    panel = Panel("svt/power", items, np.array([planted_intensity(i) for i in items]))
    judge = ScriptedJudge(planted_intensity, sharpness=1.5, seed=0)
    graded = [anchor(n, 1) for n in range(2, 39)]
    found = AnchorEvaluator(judge, panel, n_windows=6, seed=0)
    return found.fit(graded, [planted_intensity(i) for i in graded])


@functools.cache
def loaded():
    return load((tiny_model("llama", n_layers=2, hidden=64), tiny_tokenizer(chat=True)))


@functools.cache
def vector():
    """At the last layer, where it moves the logits of tokens of marked letters against others."""
    tokenizer, head = loaded().tokenizer, loaded().model.get_output_embeddings().weight
    text = [tokenizer.decode([i]).strip().lower() for i in range(len(tokenizer))]
    words = [i for i, t in enumerate(text) if t.isalpha()]
    marked = [i for i in words if set(text[i]) <= MARKED]
    others = [i for i in words if not set(text[i]) & MARKED]
    contrast = (head[marked].mean(0) - head[others].mean(0)).detach()
    return SteeringVector("planted", {1: contrast / contrast.norm()}, {1: 8.0}, {})


@functools.cache
def calibration():
    return calibrate(
        loaded(),
        vector(),
        evaluator(),
        prompts=CALIBRATED_ON,
        placebos={"random": random_like(vector(), seed=0)},
        coefficients=COEFFICIENTS,
        placebo_coefficients=(-0.4, 0.0, 0.4),
        decoding=DECODING,
        damage_limit=5.0,
        second=evaluator(),
        seed=0,
    )


def reachable(*shares):
    """Targets at those shares of the calibrated span."""
    lower, upper = map(calibration().curve.predict, calibration().curve.usable_range_)
    return [float(lower + share * (upper - lower)) for share in shares]


@functools.cache
def verified():
    targets = [*reachable(0.2, 0.4, 0.6, 0.8), 40.0]
    return verify(loaded(), calibration(), evaluator(), prompts=VERIFIED_ON, targets=targets)


def test_the_vector_moves_the_measured_intensity_far_and_in_order():
    arm, curve = calibration().arms["vector"], calibration().curve
    assert curve.span_ > 4
    assert rank_correlation(arm.coefficients, arm.means.tolist()) > 0.9
    assert arm.coefficients == COEFFICIENTS
    assert arm.intensities.shape == arm.damage.shape == (7, 24)


def test_measured_intensities_are_those_planted_in_the_texts():
    arm = calibration().arms["vector"]
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
    row = verified()[0][-1]
    assert (row.target, row.status) == (40.0, "unreachable")
    assert row.nearest == pytest.approx(reachable(1.0)[0])
    assert row.achieved == pytest.approx(row.nearest, abs=1.5)
    assert row.coefficient == pytest.approx(calibration().curve.usable_range_[1])


def test_the_placebo_moves_little():
    assert calibration().span_ratio("random") > 3
    lower, upper = calibration().curve.usable_range_
    placebo = calibration().arms["random"]
    assert abs(placebo.change(lower, upper)) < 0.3 * calibration().curve.span_
    assert placebo.coefficients == (-0.4, 0.0, 0.4)


def test_the_unsteered_texts_are_shared_and_do_no_damage():
    own, placebo = (calibration().arms[name] for name in ("vector", "random"))
    assert own.texts[3] == placebo.texts[1]
    assert own.means[3] == pytest.approx(placebo.means[1], abs=0.6)
    assert (own.damage[3] == 0).all()
    assert own.damage[[0, -1]].mean() > 0.1


def test_the_second_judge_scores_the_same_texts():
    arm = calibration().arms["vector"]
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


def test_prompts_that_were_calibrated_on_are_refused():
    with pytest.raises(InvalidInput, match="was calibrated on"):
        verify(loaded(), calibration(), evaluator(), prompts=[*VERIFIED_ON, CALIBRATED_ON[5]])


def test_coefficients_without_zero_and_placebos_named_vector_are_refused():
    with pytest.raises(InvalidInput, match="must include 0"):
        calibrate(
            loaded(),
            vector(),
            evaluator(),
            prompts=CALIBRATED_ON,
            coefficients=(-0.2, 0.2),
            seed=0,
        )
    with pytest.raises(InvalidInput, match="'vector' is the calibrated arm"):
        calibrate(
            loaded(),
            vector(),
            evaluator(),
            prompts=CALIBRATED_ON,
            placebos={"vector": random_like(vector(), seed=0)},
            seed=0,
        )


def arm(intensities, coefficients=(-0.2, 0.0, 0.2)):
    table = np.array(intensities, dtype=np.float64)
    nothing = (0.0,) * len(table)
    texts = (("text",) * table.shape[1],) * len(table)
    return Arm(coefficients, table, np.zeros_like(table), nothing, nothing, None, texts)


def test_change_is_of_the_line_through_the_means_within_the_range():
    assert arm([[0, 2], [2, 4], [4, 6]]).change(-0.2, 0.2) == pytest.approx(4)
    assert arm([[0, 2], [2, 4], [4, 6]]).change(-0.1, 0.3) == pytest.approx(4)
    assert arm([[0], [9], [0]]).change(-0.2, 0.2) == pytest.approx(0)
    assert math.isnan(arm([[0], [1], [2]]).change(-0.1, 0.1))


def test_texts_that_were_not_ranked_are_left_out_of_means_and_changes():
    nan = float("nan")
    partly = arm([[0, nan], [nan, nan], [4, 4]])
    assert partly.means == pytest.approx([0, nan, 4], nan_ok=True)
    assert partly.change(-0.2, 0.2) == pytest.approx(4)


def test_a_placebo_not_measured_in_the_range_gives_no_ratio():
    narrow = arm([[0, 0], [1, 1], [2, 2]], (-5.0, 0.0, 5.0))
    found = dataclasses.replace(calibration(), arms={**calibration().arms, "far": narrow})
    assert math.isnan(found.span_ratio("far"))
    still = arm([[1, 1], [1, 1], [1, 1]])
    found = Calibration(**(vars(calibration()) | {"arms": {**calibration().arms, "still": still}}))
    assert found.span_ratio("still") > 1e6


def row(target, achieved, status="ok"):
    return Verified(target, 0.1, achieved, (0.0, 0.0), 0.0, 0.0, status, target)


def test_the_error_is_over_reachable_targets():
    rows = [row(2.0, 3.0), row(-2.0, -2.5), row(9.0, 0.0, "unreachable")]
    assert mean_absolute_error(rows) == pytest.approx(0.75)
    assert math.isnan(mean_absolute_error(rows[2:]))


def test_rank_correlation_needs_three_points_and_variation():
    assert rank_correlation([1.0, 2.0, 3.0], [1.0, 8.0, 9.0]) == pytest.approx(1)
    assert rank_correlation([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert math.isnan(rank_correlation([1.0, 2.0], [1.0, 2.0]))
    assert math.isnan(rank_correlation([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
