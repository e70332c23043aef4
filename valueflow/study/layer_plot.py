"""The heat map of a layer sweep: intensity and damage by layer and coefficient."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from valueflow.dose.arms import Arm, row_means
from valueflow.study.layer_sweep import LayerSweep

INK, FAINT = "#222222", "#8A8A8A"
GAP = 0.6
"""Rows between the vector's layers and the random directions."""
MOST_NUMBERS = 200
"""Cells in which numbers can be read."""


def layer_figure(found: LayerSweep) -> Figure:
    """Intensity on the left, damage on the right; a row per layer, the first one at the bottom.

    Below a gap random directions at some of the layers. Cells beyond a limit, of damage or of
    looping and empty texts, are hatched in both; a cell without a ranked text is blank. pyplot is
    not touched: the figure belongs to the caller alone.
    """
    n_rows = len(found.arms) + len(found.placebos)
    figure = Figure(figsize=(10.2, 1.9 + 0.34 * max(n_rows, 5)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    arms = [*found.placebos.values(), *found.arms.values()]
    heights = _heights(found)
    past = np.array([_past(arm, found) for arm in arms])
    intensity = np.array([arm.means for arm in arms])
    damage = np.array([row_means(arm.damage) for arm in arms])
    end = max(float(np.nanmax(np.abs(intensity), initial=0.0)), 1.0)
    looks = [
        (left, intensity, "RdBu", Normalize(-end, end), "intensity (−10 to 10)"),
        (
            right,
            damage,
            "YlOrBr",
            Normalize(0, 2 * found.limits.damage, clip=True),
            f"damage (nats per token; limit {found.limits.damage:g})",
        ),
    ]
    for axes, table, colours, norm, title in looks:
        mesh = _cells(axes, table, past, heights, colours, norm)
        _hatch(axes, past, heights)
        _columns(axes, found.coefficients)
        axes.set_title(title, fontsize=10.5, color=INK)
        further = "max" if axes is right else "neither"
        bar = figure.colorbar(mesh, ax=axes, shrink=0.85, aspect=26, extend=further)
        bar.outline.set_visible(False)
    left.set_yticks([h + 0.5 for h in heights], _row_names(found))
    left.set_ylim(min(heights), max(heights) + 1)
    figure.supxlabel(
        "coefficient (multiples of the typical residual norm); hatched: beyond a limit",
        fontsize=10,
    )
    return figure


def _heights(found: LayerSweep) -> list[float]:
    """Lower edge of each row, the random directions first."""
    below = len(found.placebos)
    return [i - below - GAP for i in range(below)] + [float(i) for i in range(len(found.arms))]


def _row_names(found: LayerSweep) -> list[str]:
    return [f"random, layer {i}" for i in found.placebos] + [f"layer {i}" for i in found.arms]


def _past(arm: Arm, found: LayerSweep) -> list[bool]:
    unsteered = arm.degenerate[arm.coefficients.index(0.0)]
    over = row_means(arm.damage) > found.limits.damage
    loops = np.array(arm.degenerate) - unsteered > found.limits.degenerate
    return (over | loops).tolist()


def _cells(
    axes: Axes,
    table: Float[np.ndarray, "rows coefficients"],
    past: Bool[np.ndarray, "rows coefficients"],
    heights: Sequence[float],
    colours: str,
    norm: Normalize,
) -> QuadMesh:
    mesh = None
    columns = np.arange(table.shape[1] + 1)
    for row, beyond, height in zip(table, past, heights, strict=True):
        mesh = axes.pcolormesh(
            columns,
            [height, height + 1],
            np.ma.masked_invalid(row[None]),
            cmap=colours,
            norm=norm,
            edgecolors="white",
            linewidth=0.8,
        )
        if table.size <= MOST_NUMBERS:
            _numbers(axes, row, beyond, height, mesh)
    assert mesh is not None
    return mesh


def _numbers(
    axes: Axes,
    row: Float[np.ndarray, " n"],
    beyond: Bool[np.ndarray, " n"],
    height: float,
    mesh: QuadMesh,
) -> None:
    for column, number in enumerate(row.tolist()):
        if not np.isfinite(number):
            continue
        red, green, blue, _ = mesh.cmap(mesh.norm(number))
        # Cells beyond a limit are whitened.
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 and not beyond[column]
        # A plain 0.0 for what rounds to it: -0.0 reads as if it were something.
        text = f"{number:.1f}" if abs(number) >= 0.05 else "0.0"
        axes.text(
            column + 0.5,
            height + 0.5,
            text.replace("-", "−"),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else INK,
            zorder=4,
        )


def _hatch(
    axes: Axes, past: Bool[np.ndarray, "rows coefficients"], heights: Sequence[float]
) -> None:
    for row, height in zip(past, heights, strict=True):
        for column, beyond in enumerate(row):
            if beyond:
                axes.add_patch(
                    Rectangle(
                        (column, height),
                        1,
                        1,
                        facecolor="#FFFFFFA0",
                        edgecolor="#55555560",
                        hatch="////",
                        linewidth=0,
                        zorder=3,
                    )
                )


def _columns(axes: Axes, coefficients: Sequence[float]) -> None:
    names = [f"{c:+g}".replace("-", "−") if c else "0" for c in coefficients]
    axes.set_xticks(np.arange(len(names)) + 0.5, names)
    axes.tick_params(colors=INK, labelsize=9.5, length=0)
    axes.spines[:].set_visible(False)
