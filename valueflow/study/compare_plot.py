"""The figure of a comparison: the range of each way on one axis, value by value."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from valueflow.study.compare_summary import Estimate, Summary
from valueflow.study.plots import ACHIEVED, FAINT, INK, RANDOM, SHUFFLED, VECTOR

WAYS: Mapping[str, tuple[str, str]] = {
    "activation": ("activation steering", VECTOR),
    "levels": ("prompt: levels", ACHIEVED),
    "texts": ("prompt: a person's texts", RANDOM),
    "both": ("both together", SHUFFLED),
}
"""Ways with what they are called and their colour."""

ROW = 1.0
STEP = 0.19


def compare_figure(summaries: Sequence[Summary], *, limit: float | int) -> Figure:
    """Ranges on the left, differences of ranges on the right, a row per value.

    Left: from the lowest to the highest mean intensity of each way on prompts that nothing was
    chosen on, with 95% intervals at both ends; a hollow end had more damage there than the limit.
    The vertical tick is the unsteered intensity. Right: range of activation steering minus that of
    each way of prompting, paired over prompts, with 95% intervals. pyplot is not touched.
    """
    n = max(len(summaries), 1)
    figure = Figure(figsize=(9.6, 1.7 + 0.72 * n), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.6, 1.0))
    for axes in (left, right):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        axes.tick_params(colors=INK, labelsize=9.5, length=3)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=1)
    for row, summary in enumerate(summaries):
        if row % 2:
            for axes in (left, right):
                axes.axhspan(row - ROW / 2, row + ROW / 2, color="#F5F6F7", zorder=0, linewidth=0)
        _draw_ranges(left, row, summary, limit)
        _draw_differences(right, row, summary)
    left.set_yticks(range(len(summaries)), [s.value.partition("/")[2] for s in summaries])
    left.tick_params(axis="y", length=0)
    right.tick_params(axis="y", length=0)
    left.set_ylim(n - ROW / 2, -ROW / 2)
    left.set_xlabel("intensity reached (−10 to 10)", fontsize=10.5)
    right.set_xlabel("range: activation − prompt", fontsize=10.5)
    _legend(figure, limit)
    return figure


def _draw_ranges(axes: Axes, row: int, summary: Summary, limit: float | int) -> None:
    shown = [way for way in WAYS if way in summary.ways]
    for place, way in enumerate(shown):
        own, colour = summary.ways[way], WAYS[way][1]
        y = row + STEP * (place - (len(shown) - 1) / 2)
        axes.plot(
            [own.lowest.mean, own.highest.mean],
            [y, y],
            color=colour,
            linewidth=4.5,
            alpha=0.45,
            solid_capstyle="butt",
            zorder=2,
        )
        for end, damage in zip((own.lowest, own.highest), own.damage, strict=True):
            _interval(axes, end, y, colour)
            over = not damage <= limit
            axes.plot(
                end.mean,
                y,
                marker="o",
                markersize=5,
                color=colour,
                markerfacecolor="white" if over else colour,
                zorder=4,
            )
    half = STEP * len(shown) / 2
    if np.isfinite(summary.unsteered.mean):
        axes.vlines(
            summary.unsteered.mean, row - half, row + half, color=INK, linewidth=1.3, zorder=5
        )


def _draw_differences(axes: Axes, row: int, summary: Summary) -> None:
    shown = [way for way in ("levels", "texts") if f"activation - {way}" in summary.differences]
    for place, way in enumerate(shown):
        found, colour = summary.differences[f"activation - {way}"], WAYS[way][1]
        y = row + STEP * (place - (len(shown) - 1) / 2)
        _interval(axes, found, y, colour)
        axes.plot(found.mean, y, marker="D", markersize=4.5, color=colour, zorder=4)


def _interval(axes: Axes, found: Estimate, y: float, colour: str) -> None:
    if np.isfinite([found.low, found.high]).all():
        axes.hlines(y, found.low, found.high, color=colour, linewidth=1.3, zorder=3)


def _legend(figure: Figure, limit: float | int) -> None:
    handles = [
        Line2D([], [], color=colour, marker="o", markersize=5, linewidth=3, label=name)
        for name, colour in WAYS.values()
    ]
    handles += [
        Line2D([], [], color=INK, marker="|", markersize=11, linestyle="none", label="unsteered"),
        Line2D(
            [],
            [],
            color=INK,
            marker="o",
            markersize=5,
            markerfacecolor="white",
            linestyle="none",
            label=f"damage above {limit:g}",
        ),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=9.5)
