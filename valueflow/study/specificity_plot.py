"""The picture of a specificity matrix: every vector's effect on every value."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from valueflow.artifacts import write_file
from valueflow.study._image import DPI, image_bytes
from valueflow.study.plots import FAINT, INK
from valueflow.study.space_plot import LOOKS, check_ending
from valueflow.study.specificity import EffectMatrix
from valueflow.theories import get_value, steered_values

NUMBERED = 14
"""Most values at which cells hold their number."""


def effects_figure(matrix: EffectMatrix, *, title: str) -> Figure:
    """Heat map, one row per vector, one column per value; blue moves up, red moves down.

    Values stand in the order of `steered_values` (`svt` around its circle), vectors in the same
    order; the cells of a vector's own value are framed. Colours are centred on 0 and reach as far
    as the largest effect shown. Up to 14 values, cells hold their numbers, grey where the 95%
    interval holds 0. A cell that was not measured is hatched.

    Args:
        matrix: the effects.
        title: above the picture, as it stands; no markup.
    """
    matrix = _ordered(matrix)
    n_rows, n_columns = matrix.means.shape
    numbered = n_columns <= NUMBERED
    cell = 0.62 if numbered else 0.3
    width, height = 3.3 + cell * n_columns, 2.45 + cell * n_rows
    figure = Figure(figsize=(width, height), dpi=DPI)
    box = (1.95 / width, 1.75 / height, cell * n_columns / width, cell * n_rows / height)
    axes = figure.add_axes(box)
    axes.set_facecolor("#DDDDDD")
    end = float(np.nanmax(np.abs(matrix.means), initial=1e-9))
    image = axes.imshow(
        matrix.means, cmap="RdBu", vmin=-end, vmax=end, interpolation="nearest", aspect="auto"
    )
    _bar(figure, image, box, width, standardised=matrix.standardised)
    _frames(axes, matrix)
    if numbered:
        _numbers(axes, matrix, end)
    _names(axes, matrix, numbered=numbered)
    wrapped = "\n".join(textwrap.wrap(title, int(width * 9), max_lines=2, placeholder=" …"))
    figure.suptitle(
        wrapped, y=1 - 0.15 / height, va="top", fontsize=12, color=INK, parse_math=False
    )
    return figure


def draw_effects(matrix: EffectMatrix, path: str | Path, *, title: str) -> None:
    """Write `effects_figure` to a file, PNG or SVG by its ending; it appears whole or not at all.

    Raises:
        InvalidInput: another ending.
    """
    ending = check_ending(path)
    write_file(Path(path), image_bytes(effects_figure(matrix, title=title), ending[1:]))


def _ordered(matrix: EffectMatrix) -> EffectMatrix:
    known = [value.id for value in steered_values()]
    return matrix.only([value for value in known if value in matrix.values])


def _bar(
    figure: Figure,
    image: object,
    box: tuple[float, float, float, float],
    width: float,
    *,
    standardised: bool,
) -> None:
    left, bottom, across, up = box
    place = (left + across + 0.2 / width, bottom + 0.15 * up, 0.16 / width, 0.7 * up)
    bar = figure.colorbar(image, cax=figure.add_axes(place))  # pyright: ignore[reportArgumentType]
    bar.ax.tick_params(labelsize=9, color=FAINT)
    bar.outline.set_edgecolor(FAINT)  # pyright: ignore[reportCallIssue]
    unit = (
        "effect,\nin spreads of\nrandom\ndirections"
        if standardised
        else "effect,\nintensity\npoints"
    )
    bar.ax.set_title(unit, fontsize=9, pad=8, loc="left")


def _frames(axes: Axes, matrix: EffectMatrix) -> None:
    from matplotlib.patches import Rectangle

    for row, value in enumerate(matrix.vectors):
        column = matrix.values.index(value)
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=1.6)
        )
    for row, column in zip(*np.nonzero(np.isnan(matrix.means)), strict=True):
        axes.add_patch(
            Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="///", edgecolor=FAINT)
        )


def _numbers(axes: Axes, matrix: EffectMatrix, end: float) -> None:
    for (row, column), effect in np.ndenumerate(matrix.means):
        if np.isnan(effect):
            continue
        doubtful = not abs(effect) > matrix.half_widths[row, column]
        dark = abs(effect) > 0.6 * end
        colour = "white" if dark else "#777777" if doubtful else INK
        text = f"{effect:+.1f}".replace("-", "−")
        axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)


def _names(axes: Axes, matrix: EffectMatrix, *, numbered: bool) -> None:
    size = 10 if numbered else 9
    axes.set_xticks(range(len(matrix.values)), _short(matrix.values), rotation=90, fontsize=size)
    axes.set_yticks(range(len(matrix.vectors)), _short(matrix.vectors), fontsize=size)
    axes.set_xlabel("value measured", fontsize=10.5, labelpad=8)
    axes.set_ylabel("vector steered along", fontsize=10.5, labelpad=8)
    axes.tick_params(length=0, pad=4)
    axes.spines[:].set_color(FAINT)
    shown = ((axes.get_xticklabels(), matrix.values), (axes.get_yticklabels(), matrix.vectors))
    for labels, values in shown:
        for label, value in zip(labels, values, strict=True):
            label.set_color(LOOKS[value.partition("/")[0]][0])


def _short(values: Sequence[str]) -> list[str]:
    return [get_value(value).name.removesuffix(" rights") for value in values]
