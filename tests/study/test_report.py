"""`results`: what a calibration showed, as plain JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from study_cases import made

KEYS = set(
    [
        "model",
        "value",
        "layer",
        "coefficients",
        "intensity",
        "intensity_ci",
        "damage_nll",
        "placebo_intensity",
        "spearman",
        "usable_range",
        "targets",
        "mae",
        "prompts_calibration",
        "prompts_verification",
        "seconds",
        "shuffled_intensity",
        "placebo_coefficients",
        "span",
        "span_ratio_random",
        "span_ratio_shuffled",
        "placebo_change",
        "changes",
        "arms",
        "second_judge",
        "judge",
        "seed",
        "n_prompts",
    ]
)


def test_keys_and_plain_facts(data):
    assert set(data) >= KEYS
    assert (data["model"], data["value"], data["layer"]) == ("tiny/llama", "svt/power", 9)
    assert (data["judge"], data["seed"], data["n_prompts"]) == ("hives", 3, 32)
    assert data["seconds"] == 61.5
    assert (data["prompts_calibration"], data["prompts_verification"]) == (12, 20)
    assert data["fingerprints"]["panel"] == "f00d" and data["fingerprints"]["vidb"] == "beef"


def test_numbers_equal_numpy(data, calibration):
    own = calibration.arm
    assert data["coefficients"] == list(own.coefficients)
    assert data["intensity"] == pytest.approx(own.intensities.mean(axis=1))
    assert data["damage_nll"] == pytest.approx(own.damage.mean(axis=1))
    np.testing.assert_allclose(data["intensity_ci"], calibration.curve.ci_)
    low, high = data["usable_range"]
    inside = [i for i, c in enumerate(own.coefficients) if low <= c <= high]
    c, y = np.array(own.coefficients)[inside], own.intensities.mean(axis=1)[inside]
    assert data["spearman"] == pytest.approx(spearmanr(c, y)[0])
    change = np.polyfit(c, y, 1)[0] * (high - low)
    assert data["changes"]["vector"] == pytest.approx(change) and change > 9


@pytest.mark.parametrize(
    ("kind", "key"), [("random", "placebo_intensity"), ("shuffled", "shuffled_intensity")]
)
def test_every_draw_is_told_and_sizes_do_not_cancel(data, calibration, kind, key):
    draws, (low, high) = calibration.placebos[kind], data["usable_range"]
    assert data["placebo_coefficients"] == [low, 0, high]
    np.testing.assert_allclose(data[key], [arm.intensities.mean(axis=1) for arm in draws])
    assert [arm["intensity"] for arm in data["arms"][kind]] == data[key]
    damage = [arm["damage_nll"] for arm in data["arms"][kind]]
    np.testing.assert_allclose(damage, [arm.damage.mean(axis=1) for arm in draws])
    changes = data["changes"][kind]
    slopes = [np.polyfit([low, 0, high], arm.intensities.mean(axis=1), 1)[0] for arm in draws]
    np.testing.assert_allclose(changes, np.multiply(slopes, high - low))
    assert min(changes) < -1 < 1 < max(changes)
    size = data["placebo_change"][kind]
    assert size == pytest.approx(np.abs(changes).mean()) and size > 1.5 * abs(np.mean(changes))
    ratio = data["changes"]["vector"] / size
    assert data[f"span_ratio_{kind}"] == pytest.approx(ratio) and ratio > 4


def test_targets_and_their_error(data, verified):
    keys = {"target", "coefficient", "achieved", "ci", "status", "damage", "degenerate"}
    assert all(set(row) >= keys for row in data["targets"])
    assert [row["target"] for row in data["targets"]] == [-6, -4, -2, 0, 2, 4, 6]
    errors = [abs(r.target - r.achieved) for r in verified if r.status == "ok"]
    assert 0 < len(errors) < len(verified)
    assert data["mae"] == pytest.approx(sum(errors) / len(errors))


@pytest.mark.parametrize(("sign", "same"), [(1, True), (-1, False)])
def test_second_judge_confirms_or_contradicts(calibration, verified, sign, same):
    own = calibration.arm
    turned = replace(own, second=tuple(sign * s for s in own.second))
    second = made(replace(calibration, arm=turned), verified)["second_judge"]
    assert second["name"] == "prototype" and second["same_sign"] is same
    assert second["spearman"] == pytest.approx(sign)
    assert second["intensity"] == list(turned.second)


def test_what_is_missing_is_null_and_json_is_strict(calibration, verified):
    own = calibration.arm
    damage = own.damage.copy()
    damage[0] = np.nan
    lost = replace(own, damage=damage, second=None)
    rows = [replace(verified[0], damage=float("nan"), status="unreachable")]
    data = made(replace(calibration, arm=lost, placebos={}), rows)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["damage_nll"][0] is None and data["damage_nll"][1] is not None
    assert data["targets"][0]["damage"] is None and data["mae"] is None
    absent = ["coefficients", "intensity"]
    absent = [*(f"placebo_{key}" for key in absent), "shuffled_intensity", "second_judge"]
    absent += ["span_ratio_random", "span_ratio_shuffled"]
    assert [data[key] for key in absent] == [None] * 6
    assert data["placebo_change"] == {"random": None, "shuffled": None}
    for key in ("changes", "arms"):
        own = data[key].pop("vector")
        assert own and data[key] == {"random": None, "shuffled": None}


def test_a_kind_that_was_not_measured_is_null_and_the_other_stays(calibration, verified, data):
    alone = replace(calibration, placebos={"shuffled": calibration.placebos["shuffled"]})
    found = made(alone, verified)
    assert found["placebo_intensity"] is None and found["span_ratio_random"] is None
    assert found["changes"]["random"] is None and found["placebo_change"]["random"] is None
    for key in ("placebo_coefficients", "shuffled_intensity", "span_ratio_shuffled"):
        assert found[key] == data[key] is not None
    assert found["arms"]["shuffled"] == data["arms"]["shuffled"]


def test_a_coefficient_the_curve_dropped_keeps_its_place(calibration, verified):
    own = calibration.arm
    intensities = own.intensities.copy()
    intensities[-1] = np.nan
    curve = type(calibration.curve)("pchip", n_bootstrap=20, seed=0)
    curve.fit(list(own.coefficients), intensities, damage=own.damage)
    lost = replace(own, intensities=intensities)
    data = made(replace(calibration, arm=lost, curve=curve), verified)
    assert data["intensity"][-1] is None and data["intensity_ci"][-1] == [None, None]
    np.testing.assert_allclose(data["intensity_ci"][:-1], curve.ci_)
