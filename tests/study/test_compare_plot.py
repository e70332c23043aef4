import dataclasses

import numpy as np
import pytest
from compared import summary

from valueflow.study.compare_plot import WAYS, compare_figure
from valueflow.study.compare_summary import Estimate

SUMMARIES = [summary("svt/power"), summary("svt/face", 1.0), summary("mft/care-harm", -1.0)]


@pytest.fixture(scope="module")
def axes():
    return compare_figure(SUMMARIES, limit=0.7).axes


def test_bars_go_from_lowest_to_highest_in_the_row_of_the_value(axes):
    bars = [line for line in axes[0].get_lines() if len(line.get_xdata()) == 2]
    bars = [line for line in bars if line.get_linewidth() > 4]
    assert len(bars) == 12
    for row, found in enumerate(SUMMARIES):
        own = [b for b in bars if round(float(np.mean(b.get_ydata()))) == row]
        assert len(own) == 4
        for way, bar in zip(WAYS, own, strict=True):
            reached = found.ways[way]
            assert list(bar.get_xdata()) == [reached.lowest.mean, reached.highest.mean]
            assert bar.get_color() == WAYS[way][1]
    assert [t.get_text() for t in axes[0].get_yticklabels()] == ["power", "face", "care-harm"]


def test_hollow_ends_are_those_above_the_limit(axes):
    ends = [line for line in axes[0].get_lines() if line.get_marker() == "o"]
    hollow = [e for e in ends if e.get_markerfacecolor() == "white"]
    assert len(ends) == 24 and len(hollow) == 3
    drawn = sorted(float(e.get_xdata()[0]) for e in hollow)
    assert drawn == sorted(s.ways["activation"].highest.mean for s in SUMMARIES)


def test_differences_are_drawn_with_their_intervals(axes):
    points = [line for line in axes[1].get_lines() if line.get_marker() == "D"]
    assert sorted({float(p.get_xdata()[0]) for p in points}) == [4.0, 5.5]
    spans = {tuple(np.array(c.get_segments())[0, :, 0]) for c in axes[1].collections}
    assert {(3.5, 4.5), (5.0, 6.0)} <= spans


def test_everything_is_in_the_frame_and_rows_read_downwards(axes):
    low, high = axes[0].get_xlim()
    assert low < -6.5 and high > 6
    bottom, top = axes[0].get_ylim()
    assert bottom > top


def test_what_was_not_measured_is_not_drawn():
    nan = Estimate(float("nan"), float("nan"), float("nan"), 0)
    broken = dataclasses.replace(SUMMARIES[0].ways["texts"], lowest=nan)
    ways = {"activation": SUMMARIES[0].ways["activation"], "texts": broken}
    alone = dataclasses.replace(SUMMARIES[0], ways=ways, differences={}, unsteered=nan)
    left, right = compare_figure([alone], limit=0.7).axes
    assert len([line for line in left.get_lines() if line.get_linewidth() > 4]) == 2
    assert not [line for line in right.get_lines() if line.get_marker() == "D"]


def test_pyplot_holds_no_figure():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    compare_figure(SUMMARIES, limit=0.7)
    assert pyplot.get_fignums() == before
