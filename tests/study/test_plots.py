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
    own = calibration.arm
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
    ("kind", "label"), [("random", "random directions (4)"), ("shuffled", "label-shuffled (3)")]
)
def test_every_draw_of_a_placebo_is_drawn_in_both_panels(axes, calibration, kind, label):
    draws = calibration.placebos[kind]
    for panel, measured in ((axes[0], "intensities"), (axes[1], "damage")):
        named = next(line for line in panel.get_lines() if line.get_label() == label)
        looks = (named.get_color(), named.get_marker(), named.get_linewidth())
        alike = [line for line in panel.get_lines() if line.get_color() == looks[0]]
        assert len(alike) == len(draws)
        for line, arm in zip(alike, draws, strict=True):
            assert (line.get_color(), line.get_marker(), line.get_linewidth()) == looks
            expected = columns(arm.coefficients, getattr(arm, measured).mean(axis=1))
            np.testing.assert_allclose(line.get_xydata(), expected)


def test_the_legend_names_every_kind_once(axes):
    legend = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert [t for t in legend if "random" in t] == ["random directions (4)"]
    assert [t for t in legend if "shuffled" in t] == ["label-shuffled (3)"]
    assert len(legend) == 8


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
    own, drawn = calibration.arm, lines(axes[1])
    np.testing.assert_allclose(drawn["vector"], columns(own.coefficients, own.damage.mean(axis=1)))
    assert set(drawn["limit"][:, 1]) == {0.7}


def test_nothing_drawn_lies_outside_the_panel(axes, verified):
    low, high = axes[0].get_ylim()
    for label, points in lines(axes[0]).items():
        assert (points[:, 1] > low).all() and (points[:, 1] < high).all(), label
    assert low == -high


@pytest.mark.parametrize("kind", ["random", "shuffled"])
@pytest.mark.parametrize("size", [9.0, -9.0])
def test_the_frame_holds_any_draw(calibration, verified, kind, size):
    """Also the last of its kind, which the legend does not name, and whatever it damages."""
    *others, last = calibration.placebos[kind]
    far = replace(last, intensities=last.intensities + size, damage=last.damage + 4)
    found = replace(calibration, placebos=calibration.placebos | {kind: (*others, far)})
    above, below = dose_figure(found, verified).axes
    drawn = np.concatenate([line.get_ydata() for line in above.get_lines()])
    assert above.get_ylim()[0] < drawn.min() and drawn.max() < above.get_ylim()[1]
    assert np.abs(drawn).max() > 8 and far.damage.mean(axis=1).max() > 4.5
    assert below.get_ylim()[1] > far.damage.mean(axis=1).max()


def test_a_draw_with_nothing_ranked_at_one_end_is_drawn_where_it_was(calibration, verified):
    *others, last = calibration.placebos["random"]
    lost = replace(last, intensities=last.intensities.copy(), damage=last.damage.copy())
    lost.intensities[2], lost.damage[2] = np.nan, np.nan
    found = replace(calibration, placebos={"random": (lost, *others)})
    drawn = lines(dose_figure(found, verified).axes[0])["random directions (4)"]
    np.testing.assert_allclose(drawn[:2, 1], lost.intensities[:2].mean(axis=1))
    assert np.isnan(drawn[2, 1])


def test_without_placebos_and_targets_only_the_curve_is_left(calibration):
    alone = replace(calibration, placebos={})
    labels = dose_figure(alone, []).axes[0].get_legend_handles_labels()[1]
    assert labels == ["95% band", "curve", "measured, 95% interval"]


def test_pyplot_holds_no_figure(calibration, verified):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    dose_figure(calibration, verified)
    assert pyplot.get_fignums() == before
