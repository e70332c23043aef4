"""Pictures of a value space, a map and a heat map, and whether its basic values lie in a circle."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from valueflow.artifacts import write_file
from valueflow.errors import InvalidInput
from valueflow.study.plots import FAINT, INK
from valueflow.study.report import DPI
from valueflow.theories import get_theory, get_value, steered_values, theories

LOOKS = {
    "svt": ("#0072B2", "o"),
    "mft": ("#D55E00", "s"),
    "duty": ("#00805C", "^"),
    "right": ("#A8478A", "D"),
}
"""Of Okabe and Ito's palette, the last two darker so that names can be read in them."""

ENDINGS = (".png", ".svg")
FEWEST_ON_CIRCLE = 4
DECIMALS = 6
"""Of cosines: what agrees so far is a tie, so that turning the space does not order it."""

MAP_INCHES, MAP_BOX = (9.0, 8.8), (0.02, 0.105, 0.96, 0.81)
ROOM = 1.22
"""Sides of the map, in those of what is drawn: names need room beyond the outermost points."""

REACHES = (0.11, 0.14, 0.19, 0.26, 0.38, 0.55, 0.8, 1.2, 1.7)
"""Inches from a point to its name, nearest first."""

LEAD = 0.03 * DPI
BETWEEN = np.array([0.05, 0.015]) * DPI
"""Pixels, across and up, that part two names."""


@dataclass(frozen=True)
class CircularOrder:
    """How far a space keeps the circle of the basic values; made by `circular_order`.

    Attributes:
        statistic: Spearman correlation, -1 to 1; NaN if all angles are equal.
        p: share of rearrangements at least as circular, above 0, at most 1.
        n: values on the circle that had a vector.
    """

    statistic: float
    p: float
    n: int


def circular_order(
    vectors: Mapping[str, Float[np.ndarray, " width"]], *, n_permutations: int = 9999, seed: int
) -> CircularOrder:
    """Whether values near each other on the circle of `svt` have a small angle in the space.

    The statistic is the Spearman correlation (mid-ranks for ties), over all pairs of values on
    the circle, of the steps between them the shorter way round (1 to 6) and the angle between
    their vectors. It is 1 for evenly spaced vectors in order; 1 also for any space whose angles
    only grow with the steps, so a circle is not proven round. The theory gives each of the twelve
    steered values one place of its own, also those with two parents (hedonism, face, humility);
    missing ones leave a gap. Other theories have no circle: their vectors do not count.

    The p-value is of a one-sided permutation test: vectors are dealt anew to the places, and
    p = (1 + deals with at least this statistic) / (1 + deals). Turning or mirroring the circle
    changes nothing, so few values cannot have a small p: four that are evenly
    spaced have 1/3 at best.

    Args:
        vectors: by value id, of one width; their lengths do not count.
        n_permutations: deals, 1 or more.
        seed: of the deals.

    Raises:
        InvalidInput: fewer than 4 values on the circle, no permutations, what `draw_map` refuses.
        UnknownName: a value that no theory has.
    """
    from scipy.stats import rankdata  # half a second to import

    ids, rows = _unit_rows(vectors)
    theory = get_theory("svt")
    on = [i for i, value in enumerate(ids) if value in (theory.circle or ())]
    if len(on) < FEWEST_ON_CIRCLE or n_permutations < 1:
        raise InvalidInput(
            f"expected vectors of {FEWEST_ON_CIRCLE} or more values of svt and 1 or more "
            f"permutations, got {len(on)} and {n_permutations}"
        )
    first, second = np.triu_indices(len(on), k=1)
    steps = np.array([[theory.circle_distance(ids[a], ids[b]) for b in on] for a in on])
    near = np.round((rows[on] @ rows[on].T)[first, second], DECIMALS)
    angles = _standard(rankdata(-near))
    places = np.zeros((len(on), len(on)))
    places[first, second] = _standard(rankdata(steps[first, second]))
    places += places.T
    if not angles.any():
        return CircularOrder(float("nan"), 1.0, len(on))
    rng = np.random.default_rng(seed)
    deals = rng.permuted(np.tile(np.arange(len(on)), (n_permutations, 1)), axis=1)
    statistic = float(places[first, second] @ angles)
    dealt = places[deals[:, first], deals[:, second]] @ angles
    # Deals that only turn the circle must count, whatever the order of their sums.
    as_good = int(np.count_nonzero(dealt >= statistic - 1e-9))
    return CircularOrder(statistic, (1 + as_good) / (1 + n_permutations), len(on))


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
    ids, rows = _unit_rows(vectors)
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
    ids, rows = _unit_rows(vectors)
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
    ending = _ending(path)
    _write(map_figure(vectors, title=title, order=order), Path(path), ending)


def draw_heat_map(
    vectors: Mapping[str, Float[np.ndarray, " width"]], path: str | Path, *, title: str
) -> None:
    """Write `heat_map_figure` to a file, as `draw_map` does; raises as it does."""
    ending = _ending(path)
    _write(heat_map_figure(vectors, title=title), Path(path), ending)


def _unit_rows(vectors: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Ids in the order of `steered_values`, and their vectors at unit length."""
    known = [value.id for value in steered_values()]
    for name in vectors:
        if name not in known:
            value = get_value(name)
            raise InvalidInput(f"expected ids of steered values, got {name!r} (it is {value.id})")
    ids = [value for value in known if value in vectors]
    if len(ids) < 2:
        raise InvalidInput(f"expected vectors of two or more values, got {len(ids)}")
    rows = [np.asarray(vectors[value], dtype=np.float64) for value in ids]
    for value, row in zip(ids, rows, strict=True):
        length = np.linalg.norm(row)
        if row.shape != rows[0].shape or row.ndim != 1:
            raise InvalidInput(
                f"expected vectors of one width, got shape {rows[0].shape} of {ids[0]} "
                f"and {row.shape} of {value}"
            )
        if not (np.isfinite(length) and length > 0):
            raise InvalidInput(f"the vector of {value} is zero or not finite; leave it out")
    stacked = np.stack(rows)
    return ids, stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


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


def _standard(ranks: np.ndarray) -> np.ndarray:
    """Less their mean and at unit length, so that products are correlations; zeros if all tie."""
    centred = ranks - ranks.mean()
    return centred / (np.linalg.norm(centred) or 1.0)


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
    centres = _label_places(pixels, sizes, taken, np.array(axes.get_window_extent().extents))
    for name, size, centre, pixel in zip(names, sizes, centres, pixels, strict=True):
        name.set(position=to_data.transform(centre))
        end = np.clip(pixel, centre - size / 2 - LEAD, centre + size / 2 + LEAD)
        if np.linalg.norm(end - pixel) > 5 * LEAD:
            ends = to_data.transform([pixel, end])
            axes.plot(*ends.T, color=FAINT, linewidth=0.7, zorder=3)


def _label_places(
    points: np.ndarray, sizes: np.ndarray, taken: np.ndarray, frame: np.ndarray
) -> np.ndarray:
    """Centres of names, in pixels: in the frame, on no mark or other name, near their points.

    Greedy, the most crowded first. Where all places are taken the one that meets fewest is used.
    """
    boxes = np.hstack([taken - 0.055 * DPI, taken + 0.055 * DPI])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    crowd = np.sort(apart, axis=1)[:, 1:4].mean(axis=1)
    angle = np.arange(24) * np.pi / 12
    # Squarish: beside and above its point a name comes as near as at its corners.
    way = np.clip(1.5 * np.column_stack([np.cos(angle), np.sin(angle)]), -1, 1)
    way, reach = np.tile(way, (len(REACHES), 1)), np.repeat(REACHES, len(angle)) * DPI
    centres = np.zeros_like(points)
    for i in np.argsort(crowd, kind="stable"):
        tried = points[i] + way * (sizes[i] / 2 + reach[:, None])
        own = np.hstack([tried - sizes[i] / 2, tried + sizes[i] / 2])
        outside = (own[:, :2] < frame[:2]).any(axis=1) | (own[:, 2:] > frame[2:]).any(axis=1)
        # A place close to other marks and names is free, but leaves in doubt whose name it is.
        close = _meets(own, boxes, np.full(2, 0.13 * DPI))
        cost = reach + 0.06 * DPI * close + 1e4 * _meets(own, boxes, BETWEEN) + 1e6 * outside
        best = int(np.argmin(np.round(cost, 3)))
        centres[i], boxes = tried[best], np.vstack([boxes, own[best]])
    return centres


def _meets(own: np.ndarray, boxes: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How many of `boxes` each of `own` overlaps, or has within `room`."""
    low, high = own[:, None, :2] - room, own[:, None, 2:] + room
    return ((low < boxes[:, 2:]) & (high > boxes[:, :2])).all(axis=2).sum(axis=1)


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


def _ending(path: str | Path) -> str:
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise InvalidInput(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}")
    return ending


def _write(figure: Figure, path: Path, ending: str) -> None:
    stream = io.BytesIO()
    # No library's version, no date and no drawn ids: equal figures are equal files.
    unsaid = {".png": {"Software": None}, ".svg": {"Creator": None, "Date": None}}[ending]
    with rc_context({"svg.hashsalt": "valueflow"}):
        figure.savefig(stream, format=ending[1:], facecolor="white", metadata=unsaid)
    write_file(path, stream.getvalue())
