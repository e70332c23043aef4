from dataclasses import replace

import numpy as np
import pytest

from valueflow.study import dose_figure


def lines(axes):
    return {line.get_label(): np.array(line.get_xydata()) for line in axes.get_lines()}


def columns(x, y):
    return np.column_stack([x, y])


def collection(axes, kind, index=0):
    return [c for c in axes.collections if type(c).__name__ == kind][index]


@pytest.fixture(scope="module")
def axes(calibration, verified):
    return dose_figure(calibration, verified).axes


def test_means_and_intervals_are_those_measured(axes, calibration):
    own = calibration.arms["vector"]
    drawn = lines(axes[0])["measured, 95% interval"]
    np.testing.assert_allclose(drawn, columns(own.coefficients, own.intensities.mean(axis=1)))
    segments = np.array(collection(axes[0], "LineCollection").get_segments())
    np.testing.assert_allclose(segments[:, 0, 0], own.coefficients)
    np.testing.assert_allclose(segments[:, :, 1], calibration.curve.ci_)


def test_curve_and_band_span_the_usable_range_and_no_more(axes, calibration):
    curve = calibration.curve
    drawn = lines(axes[0])["curve"]
    assert drawn[[0, -1], 0] == pytest.approx(curve.usable_range_)
    np.testing.assert_allclose(drawn[:, 1], curve.predict(drawn[:, 0]))
    vertices = collection(axes[0], "FillBetweenPolyCollection").get_paths()[0].vertices
    low, high = curve.interval(curve.usable_range_[0])
    left = vertices[vertices[:, 0] == vertices[:, 0].min(), 1]
    assert (left.min(), left.max()) == pytest.approx((low, high))
    for panel in axes:
        box = panel.patches[0].get_bbox()
        assert (box.x0, box.x1) == pytest.approx(curve.usable_range_)


@pytest.mark.parametrize(
    ("name", "label"), [("random", "random direction"), ("shuffled", "label-shuffled")]
)
def test_placebos_are_drawn_in_both_panels(axes, calibration, name, label):
    arm = calibration.arms[name]
    expected = columns(arm.coefficients, arm.intensities.mean(axis=1))
    np.testing.assert_allclose(lines(axes[0])[label], expected)
    expected = columns(arm.coefficients, arm.damage.mean(axis=1))
    np.testing.assert_allclose(lines(axes[1])[label], expected)


def test_targets_and_what_was_achieved(axes, verified):
    drawn = lines(axes[0])
    expected = [(r.coefficient, r.achieved) for r in verified]
    np.testing.assert_allclose(drawn["achieved on new prompts"], expected)
    for label, status in (("target", "ok"), ("target, no dose", "unreachable")):
        rows = [(r.coefficient, r.target) for r in verified if r.status == status]
        assert rows, f"the fixture has no {status} target"
        np.testing.assert_allclose(drawn[label], rows)
    segments = np.array(collection(axes[0], "LineCollection", 2).get_segments())
    np.testing.assert_allclose(segments[:, :, 1], [r.ci for r in verified])


def test_damage_and_its_limit(axes, calibration):
    own, drawn = calibration.arms["vector"], lines(axes[1])
    np.testing.assert_allclose(drawn["vector"], columns(own.coefficients, own.damage.mean(axis=1)))
    assert set(drawn["limit"][:, 1]) == {0.7}


def test_nothing_drawn_lies_outside_the_panel(axes, verified):
    low, high = axes[0].get_ylim()
    for label, points in lines(axes[0]).items():
        assert (points[:, 1] > low).all() and (points[:, 1] < high).all(), label
    assert low == -high


def test_without_placebos_and_targets_only_the_curve_is_left(calibration):
    alone = replace(calibration, arms={"vector": calibration.arms["vector"]})
    labels = dose_figure(alone, []).axes[0].get_legend_handles_labels()[1]
    assert labels == ["95% band", "curve", "measured, 95% interval"]


def test_pyplot_holds_no_figure(calibration, verified):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    dose_figure(calibration, verified)
    assert pyplot.get_fignums() == before
