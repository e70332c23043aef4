"""Pictures of a value space, a map and a heat map, and whether its basic values lie in a circle."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from valueflow.artifacts import write_file
from valueflow.errors import InvalidInput
from valueflow.study._image import DPI, image_bytes
from valueflow.study._labels import BETWEEN as BETWEEN
from valueflow.study._labels import REACHES as REACHES
from valueflow.study._labels import label_places
from valueflow.study.circle import DECIMALS as DECIMALS
from valueflow.study.circle import FEWEST_ON_CIRCLE as FEWEST_ON_CIRCLE
from valueflow.study.circle import CircularOrder as CircularOrder
from valueflow.study.circle import circular_order as circular_order
from valueflow.study.circle import unit_vectors
from valueflow.study.plots import FAINT, INK
from valueflow.theories import get_theory, get_value, theories

LOOKS = {
    "svt": ("#0072B2", "o"),
    "mft": ("#D55E00", "s"),
    "duty": ("#00805C", "^"),
    "right": ("#A8478A", "D"),
}
"""Of Okabe and Ito's palette, the last two darker so that names can be read in them."""

ENDINGS = (".png", ".svg")
MAP_INCHES, MAP_BOX = (9.0, 8.8), (0.02, 0.105, 0.96, 0.81)
ROOM = 1.22
"""Sides of the map, in those of what is drawn: names need room beyond the outermost points."""

LEAD = 0.03 * DPI


def map_figure(
    vectors: Mapping[str, Float[np.ndarray, " width"]],
    *,
    title: str,
    order: CircularOrder | None = None,
) -> Figure:
    """Steered values as points in a plane, coloured by theory; a line joins the circle of `svt`.

    Classical scaling: the vectors less their mean, on the two directions that keep most of the
    squared cosines; distances are those of the unit vectors, shortened by what the plane leaves
    out. The caption says what share of the squared cosines remains without the mean, and what
    share of those the plane keeps. The picture is then turned and mirrored, never stretched, so
    that the values of `svt` come nearest to their circle, clockwise from the top (with fewer than
    three: all values to a circle in their order). So turning the space leaves it as it is, unless
    the plane itself is undecided, as for vectors that are all at right angles.

    Args:
        vectors: by id of a steered value, of one width; their lengths do not count.
        title: above the picture, as it stands; no markup.
        order: for the caption, what `circular_order` found for these vectors.

    Raises:
        InvalidInput, UnknownName: as `draw_map` says.
    """
    ids, rows = unit_vectors(vectors)
    points, kept, remains = _plane(rows)
    points = _turned(points, ids)
    figure = Figure(figsize=MAP_INCHES, dpi=DPI)
    axes = figure.add_axes(MAP_BOX)
    axes.set_axis_off()
    _frame(axes, points)
    circle = [ids.index(value) for value in get_theory("svt").circle or () if value in ids]
    around = points[[*circle, *circle[:1]]]
    axes.plot(*around.T, color=LOOKS["svt"][0], linewidth=1.0, alpha=0.45, zorder=1)
    axes.plot(0, 0, "+", color=FAINT, markersize=11, zorder=2)
    _draw_points(axes, points, ids)
    _draw_labels(axes, points, ids)
    _title_and_legend(figure, title, ids)
    said = (
        "Classical scaling: the unit vectors less their mean (+), on the plane that keeps most. "
        f"Without the mean {remains:.0%} of all squared\n"
        f"cosines remain, and the plane keeps {kept:.0%} of those. Turned and mirrored, not "
        "stretched, towards the circle of svt (line)."
    )
    if order is not None:
        correlation = f"{order.statistic:.2f}".replace("-", "−")
        said += (
            f"\nCircular order: rank correlation {correlation} of steps on the circle and angle, "
            f"p = {order.p:.2g} (permutations), {order.n} values."
        )
    figure.text(0.03, 0.015, said, fontsize=9, color=INK, va="bottom", linespacing=1.35)
    return figure


def heat_map_figure(vectors: Mapping[str, Float[np.ndarray, " width"]], *, title: str) -> Figure:
    """Cosines of all pairs of value vectors; blue is positive, red negative, white none.

    Values stand in the order of `steered_values`: theories one after the other, `svt` around its
    circle, the others down their trees. Lines part the theories. Colours reach from -1 to 1
    whatever the vectors, so that pictures of several spaces compare.

    Raises:
        InvalidInput, UnknownName: as `draw_map` says.
    """
    ids, rows = unit_vectors(vectors)
    figure = Figure(figsize=(10.4, 10.2), dpi=DPI)
    axes = figure.add_axes((0.165, 0.175, 0.735, 0.735))
    cosines = np.clip(rows @ rows.T, -1, 1)
    image = axes.imshow(cosines, cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, cax=figure.add_axes((0.918, 0.32, 0.017, 0.46)))
    bar.set_ticks([-1, -0.5, 0, 0.5, 1], labels=["−1", "−0.5", "0", "0.5", "1"])
    bar.ax.set_title("cosine", fontsize=10.5, pad=8)
    bar.outline.set_edgecolor(FAINT)
    names = [_short(value) for value in ids]
    axes.set_xticks(range(len(ids)), names, rotation=90, fontsize=9.5)
    axes.set_yticks(range(len(ids)), names, fontsize=9.5)
    axes.tick_params(length=0, pad=5)
    axes.spines[:].set_color(INK)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, value in zip(labels, ids, strict=True):
            label.set_color(LOOKS[_theory(value)][0])
    of = [_theory(value) for value in ids]
    for edge in (i - 0.5 for i in range(1, len(of)) if of[i] != of[i - 1]):
        axes.axhline(edge, color=INK, linewidth=1.3)
        axes.axvline(edge, color=INK, linewidth=1.3)
    _title_and_legend(figure, title, ids)
    return figure


def draw_map(
    vectors: Mapping[str, Float[np.ndarray, " width"]],
    path: str | Path,
    *,
    title: str,
    order: CircularOrder | None = None,
) -> None:
    """Write `map_figure` to a file, PNG or SVG by its ending; it appears whole or not at all.

    The same vectors give the same bytes.

    Raises:
        InvalidInput: another ending, fewer than two values, a value that is not steered or not
            named by its id, a vector that is zero, not finite, not one-dimensional or of another
            width, vectors that all are one (of the map).
        UnknownName: a value that no theory has.
    """
    ending = check_ending(path)
    figure = map_figure(vectors, title=title, order=order)
    write_file(Path(path), image_bytes(figure, ending[1:]))


def draw_heat_map(
    vectors: Mapping[str, Float[np.ndarray, " width"]], path: str | Path, *, title: str
) -> None:
    """Write `heat_map_figure` to a file, as `draw_map` does; raises as it does."""
    ending = check_ending(path)
    write_file(Path(path), image_bytes(heat_map_figure(vectors, title=title), ending[1:]))


def check_ending(path: str | Path) -> str:
    """The ending of a picture's name; raises InvalidInput for one that cannot be written."""
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InvalidInput(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
    return ending


def _plane(rows: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Points, the share of centred squared cosines they keep, the share of all that those are."""
    centred = rows - rows.mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    remains, every = float((size**4).sum()), float(((rows @ rows.T) ** 2).sum())
    if remains < 1e-12 * every:
        raise InvalidInput("expected vectors that differ, all point the same way; nothing to map")
    size, left = np.append(size, 0.0), np.pad(left, ((0, 0), (0, 1)))
    points = left[:, :2] * size[:2]
    return points, float((size[:2] ** 4).sum()) / remains, remains / every


def _turned(points: np.ndarray, ids: Sequence[str]) -> np.ndarray:
    """Rotated, or mirrored, to the least squared distance from where the circle has its values."""
    circle = get_theory("svt").circle or ()
    on = [i for i, value in enumerate(ids) if value in circle]
    places = np.array([circle.index(ids[i]) / len(circle) for i in on])
    if len(on) < 3:
        on, places = list(range(len(ids))), np.arange(len(ids)) / len(ids)
    target = np.column_stack([np.sin(2 * np.pi * places), np.cos(2 * np.pi * places)])
    left, _, right = np.linalg.svd((points[on] - points[on].mean(axis=0)).T @ target)
    return points @ left @ right


def _frame(axes: Axes, points: np.ndarray) -> None:
    """Limits with one unit for both directions, and room for names."""
    shown = np.vstack([points, np.zeros(2)])
    low, high = shown.min(axis=0), shown.max(axis=0)
    sides = np.array(MAP_INCHES) * MAP_BOX[2:]
    half = sides * np.max((high - low) / sides) * ROOM / 2
    for limit, middle, side in zip(
        (axes.set_xlim, axes.set_ylim), (low + high) / 2, half, strict=True
    ):
        limit(middle - side, middle + side)


def _draw_points(axes: Axes, points: np.ndarray, ids: Sequence[str]) -> None:
    for theory, (colour, marker) in LOOKS.items():
        rows = [i for i, value in enumerate(ids) if _theory(value) == theory]
        axes.plot(
            *points[rows].T,
            color=colour,
            marker=marker,
            markersize=7.5,
            markeredgecolor="white",
            linestyle="none",
            label=f"_{theory}",
            zorder=4,
        )


def _draw_labels(axes: Axes, points: np.ndarray, ids: Sequence[str]) -> None:
    """Names beside their points; a thin line leads to those that found no room at theirs."""
    halo = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    looks = {"ha": "center", "va": "center", "fontsize": 10.5, "path_effects": halo, "zorder": 5}
    names = [axes.text(0, 0, _short(v), color=LOOKS[_theory(v)][0], **looks) for v in ids]
    sizes = np.array([name.get_window_extent().size for name in names])
    to_pixels, to_data = axes.transData, axes.transData.inverted()
    pixels = to_pixels.transform(points)
    taken = to_pixels.transform(np.vstack([points, np.zeros(2)]))
    centres = label_places(pixels, sizes, taken, np.array(axes.get_window_extent().extents))
    for name, size, centre, pixel in zip(names, sizes, centres, pixels, strict=True):
        name.set(position=to_data.transform(centre))
        end = np.clip(pixel, centre - size / 2 - LEAD, centre + size / 2 + LEAD)
        if np.linalg.norm(end - pixel) > 5 * LEAD:
            ends = to_data.transform([pixel, end])
            axes.plot(*ends.T, color=FAINT, linewidth=0.7, zorder=3)


def _title_and_legend(figure: Figure, title: str, ids: Sequence[str]) -> None:
    wrapped = "\n".join(textwrap.wrap(title, 80, max_lines=2, placeholder=" …"))
    figure.suptitle(wrapped, y=0.99, va="top", fontsize=13, color=INK, parse_math=False)
    shown = {_theory(value) for value in ids}
    handles = [
        Line2D([], [], color=LOOKS[t.id][0], marker=LOOKS[t.id][1], linestyle="none", label=t.name)
        for t in theories()
        if t.id in shown
    ]
    figure.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.95),
        ncols=len(handles),
        frameon=False,
        fontsize=10,
        handletextpad=0.2,
    )


def _theory(value: str) -> str:
    return value.partition("/")[0]


def _short(value: str) -> str:
    """The name; of a right without the word, which the legend has."""
    return get_value(value).name.removesuffix(" rights")
