import dataclasses
import math

import numpy as np
import pytest

from valueflow.errors import InvalidInput
from valueflow.hives.profile import ValueProfile, ValueScore
from valueflow.study.profile_plot import profile_figure
from valueflow.theories import get_theory, get_value

CIRCLE = get_theory("svt").circle
SILENT, SINGLE, EDGE = CIRCLE[3], CIRCLE[5], CIRCLE[8]


def score(value, intensity, stderr, status):
    n = {"ok": 7, "single": 1, "silent": 0}[status]
    return ValueScore(value, intensity, stderr, n, n / 70, status, ())


def planted(shift=0.0):
    """A round profile with one silent value, one of a single text and one at the scale's end."""
    scores = {
        v: score(v, 6 * math.cos(2 * math.pi * i / 12) + shift, 0.8, "ok")
        for i, v in enumerate(CIRCLE)
    }
    scores[SILENT] = score(SILENT, math.nan, math.nan, "silent")
    scores[SINGLE] = score(SINGLE, -7.0, math.nan, "single")
    scores[EDGE] = score(EDGE, 9.5, 1.0, "ok")
    scores["mft/care-harm"] = score("mft/care-harm", 3.0, 0.5, "ok")
    return ValueProfile(scores, 70, 10, 0.0, "beef", "planted")


def drawn(figure):
    (axes,) = figure.axes
    lines = axes.get_lines()
    named = {line.get_label(): np.array(line.get_xydata(), float) for line in lines}
    bars = [np.array(x.get_xydata()) for x in lines if x.get_xydata().shape == (2, 2)]
    return axes, named, bars


def test_values_stand_in_circle_order_clockwise_from_the_top():
    axes, named, _ = drawn(profile_figure({"Ada": planted()}))
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert [n.partition("\n")[0] for n in names] == [get_value(v).name for v in CIRCLE]
    assert (axes.get_theta_direction(), axes.get_theta_offset()) == (-1, pytest.approx(np.pi / 2))
    points = named["Ada (70 texts)"]
    scores = planted().scores
    ok = [i for i, v in enumerate(CIRCLE) if scores[v].status != "single"]
    np.testing.assert_allclose(points[:, 0], [2 * np.pi * i / 12 for i in ok])
    np.testing.assert_allclose(points[:, 1], [scores[CIRCLE[i]].intensity for i in ok])
    assert (axes.get_rmin(), axes.get_rmax()) == (-10, 10)


def test_bars_are_the_intervals_cut_at_the_scale():
    _, _, bars = drawn(profile_figure({"Ada": planted()}, level=0.9))
    known = [v for v in CIRCLE if planted()[v].status == "ok"]
    assert len(bars) == len(known) == 10
    for value, bar in zip(known, bars, strict=True):
        middle, half = planted()[value].intensity, 1.6448536 * planted()[value].stderr
        expected = np.clip([middle - half, middle + half], -10, 10)
        np.testing.assert_allclose(bar[:, 1], expected, rtol=1e-6)


def test_the_line_breaks_at_what_is_silent_and_its_name_says_so():
    axes, named, _ = drawn(profile_figure({"Ada": planted()}))
    assert np.flatnonzero(np.isnan(named["_line"][:, 1])).tolist() == [CIRCLE.index(SILENT)]
    said = {t.get_text() for t in axes.get_xticklabels() if "(silent)" in t.get_text()}
    assert said == {f"{get_value(SILENT).name}\n(silent)"}


def test_a_single_text_is_hollow():
    axes, named, _ = drawn(profile_figure({"Ada": planted()}))
    at = [2 * np.pi * CIRCLE.index(SINGLE) / 12, -7.0]
    np.testing.assert_allclose(named["_Ada, single"], [at])
    line = next(x for x in axes.get_lines() if x.get_label() == "_Ada, single")
    assert line.get_markerfacecolor() == "white"


def test_several_profiles_stand_apart_and_are_named():
    speaks = planted(shift=2.0)
    heard = {**speaks.scores, SILENT: score(SILENT, 1.0, 0.5, "ok")}
    other = dataclasses.replace(speaks, scores=heard, n_texts=12)
    figure = profile_figure({"Ada": planted(), "Bo": other})
    axes, named, _ = drawn(figure)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "Ada (70 texts)",
        "Bo (12 texts)",
    ]
    first, second = named["Ada (70 texts)"], named["Bo (12 texts)"]
    assert second[0, 0] - first[0, 0] == pytest.approx(0.075)
    assert not any("(silent)" in t.get_text() for t in axes.get_xticklabels())
    colours = {x.get_color() for x in axes.get_lines() if x.get_label() in named and
               x.get_label().endswith("texts)")}  # fmt: skip
    assert len(colours) == 2


def test_everything_fits_the_picture(tmp_path):
    figure = profile_figure({"Ada": planted()})
    figure.savefig(tmp_path / "profile.png")
    box = figure.bbox
    for label in figure.axes[0].get_xticklabels():
        extent = label.get_window_extent()
        assert box.x0 <= extent.x0 and extent.x1 <= box.x1, label.get_text()
        assert box.y0 <= extent.y0 and extent.y1 <= box.y1, label.get_text()


@pytest.mark.parametrize(
    ("profiles", "level", "says"),
    [
        ({}, 0.95, "got 0 and"),
        ({str(i): planted() for i in range(4)}, 0.95, "got 4 and"),
        ({"Ada": planted()}, 1.0, "got 1 and 1.0"),
        (
            {"Ada": ValueProfile({"mft/care-harm": planted()["care-harm"]}, 7, 10, 0.0, "b", "p")},
            0.95,
            "profile 'Ada' has no value of svt",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(profiles, level, says):
    with pytest.raises(InvalidInput, match=says):
        profile_figure(profiles, level=level)


def test_a_profile_that_is_all_silence_is_an_empty_circle():
    scores = {v: score(v, math.nan, math.nan, "silent") for v in CIRCLE}
    figure = profile_figure({"Ada": ValueProfile(scores, 2, 10, 0.0, "beef", "planted")})
    axes, named, bars = drawn(figure)
    assert bars == []
    assert np.isnan(named["Ada (2 texts)"][:, 1]).all()
    assert all("(silent)" in t.get_text() for t in axes.get_xticklabels())
