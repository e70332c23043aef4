"""The figure of a calibration: what was measured, what placebos do, what was asked and achieved."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from valueflow.dose.arms import row_means
from valueflow.dose.calibrate import Calibration, Verified
from valueflow.study.report import PLACEBOS

# Okabe and Ito's palette: told apart under every common form of colour blindness.
VECTOR, RANDOM, SHUFFLED, ACHIEVED = "#0072B2", "#B8860B", "#009E73", "#D55E00"
INK, FAINT = "#222222", "#8A8A8A"
LOOKS = {"random": (RANDOM, "s", (0, (4, 2))), "shuffled": (SHUFFLED, "^", (0, (1, 1.5)))}
CURVE_POINTS = 201


def dose_figure(calibration: Calibration, verified: Sequence[Verified]) -> Figure:
    """Dose curve above, damage below, over the same coefficients.

    Above: measured means with their intervals, the fitted curve with its bootstrap band,
    every draw of the placebos, and per target the intensity asked for and the one achieved. Below:
    mean damage of vector and draws, and the limit. The usable range is shaded in both. Placebos
    other than "random" and "shuffled" are not drawn. pyplot is not touched: the figure belongs
    to the caller alone.
    """
    figure = Figure(figsize=(7.4, 6.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.1, 1.0))
    for axes in (above, below):
        _style(axes)
        # The edge keeps a range of no width visible.
        axes.axvspan(
            *calibration.curve.usable_range_, facecolor="#EDF2F6", edgecolor="#D5DFE7", zorder=0
        )
    _draw_curve(above, calibration)
    _draw_placebos(above, below, calibration)
    _draw_verified(above, verified)
    _draw_damage(below, calibration)
    above.set_ylim(*_limits(calibration, verified))
    above.set_ylabel("intensity (−10 to 10)", fontsize=10.5)
    below.set_ylabel("damage\n(nats per token)", fontsize=10.5)
    below.set_xlabel("coefficient (multiples of the typical residual norm)", fontsize=10.5)
    _label_range(above)
    figure.legend(
        *above.get_legend_handles_labels(),
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9.5,
        handlelength=2.2,
    )
    return figure


def _draw_placebos(above: Axes, below: Axes, calibration: Calibration) -> None:
    """A thin line per draw; the first of a kind stands for all of it in the legend."""
    for kind, (colour, marker, dashes) in LOOKS.items():
        draws = calibration.placebos.get(kind, ())
        for i, arm in enumerate(draws):
            label = f"{PLACEBOS[kind]} ({len(draws)})" if i == 0 else f"_{kind} {i}"
            for axes, y in ((above, arm.means), (below, row_means(arm.damage))):
                axes.plot(
                    arm.coefficients,
                    y,
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linestyle=dashes,
                    linewidth=0.9,
                    alpha=0.85,
                    label=label,
                    zorder=2,
                )


def _draw_curve(axes: Axes, calibration: Calibration) -> None:
    curve = calibration.curve
    x = np.linspace(*curve.usable_range_, CURVE_POINTS)
    band = f"{curve.level:.0%} band"
    axes.fill_between(
        x, *curve.interval(x), color=VECTOR, alpha=0.2, linewidth=0, label=band, zorder=3
    )
    axes.plot(x, np.asarray(curve.predict(x)), color=VECTOR, linewidth=2, label="curve", zorder=4)
    axes.vlines(curve.coefficients_, *curve.ci_.T, color=VECTOR, linewidth=1.3, zorder=4)
    axes.plot(
        curve.coefficients_,
        curve.means_,
        color=VECTOR,
        marker="o",
        markersize=5.5,
        markerfacecolor="white",
        linestyle="none",
        label=f"measured, {curve.level:.0%} interval",
        zorder=5,
    )


def _draw_verified(axes: Axes, verified: Sequence[Verified]) -> None:
    if not verified:
        return
    x = [row.coefficient for row in verified]
    target, achieved = [row.target for row in verified], [row.achieved for row in verified]
    axes.vlines(x, target, achieved, color=FAINT, linewidth=0.9, linestyle=":", zorder=5)
    axes.vlines(x, *zip(*(row.ci for row in verified), strict=True), color=ACHIEVED, zorder=6)
    axes.plot(
        x,
        achieved,
        color=ACHIEVED,
        marker="D",
        markersize=5.5,
        linestyle="none",
        label="achieved on new prompts",
        zorder=7,
    )
    for status, marker, label in (("ok", "_", "target"), ("unreachable", "x", "target, no dose")):
        rows = [row for row in verified if row.status == status]
        if rows:
            axes.plot(
                [row.coefficient for row in rows],
                [row.target for row in rows],
                color=INK,
                marker=marker,
                markersize=13 if status == "ok" else 6.5,
                markeredgewidth=1.7,
                linestyle="none",
                label=label,
                zorder=8,
            )


def _draw_damage(axes: Axes, calibration: Calibration) -> None:
    arm, limit = calibration.arm, calibration.curve.damage_limit
    axes.axhline(limit, color=INK, linewidth=1.1, linestyle="--", label="limit", zorder=1)
    axes.annotate(
        f"limit {limit:g}",
        (0.5, limit),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=INK,
    )
    axes.plot(
        arm.coefficients,
        row_means(arm.damage),
        color=VECTOR,
        marker="o",
        markersize=4.5,
        linewidth=1.8,
        label="vector",
        zorder=4,
    )
    axes.margins(y=0.14)


def _label_range(axes: Axes) -> None:
    """Named in words: a shade has no legend that says where it ends."""
    box = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    axes.annotate(
        "usable range",
        ((box.x0 + box.x1) / 2, 0.015),
        xycoords=("data", "axes fraction"),
        ha="center",
        va="bottom",
        fontsize=9,
        color="#5C6B77",
    )


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9.5, length=3)
    axes.axhline(0, color=FAINT, linewidth=0.7, zorder=1)


def _limits(calibration: Calibration, verified: Sequence[Verified]) -> tuple[float, float]:
    """Symmetric, so that both sides compare by eye; all that was measured is in the frame."""
    shown = [*calibration.curve.means_, *calibration.curve.ci_.ravel()]
    shown += [m for kind in LOOKS for arm in calibration.placebos.get(kind, ()) for m in arm.means]
    shown += [number for row in verified for number in (row.target, row.achieved, *row.ci)]
    finite = np.abs(np.array(shown)[np.isfinite(shown)])
    end = float(finite.max(initial=1.0)) * 1.08
    return -end, end
