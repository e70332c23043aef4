"""The picture of value profiles: the basic values in their circle, with intervals."""

from collections.abc import Mapping
from statistics import NormalDist
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from valueflow.errors import InvalidInput
from valueflow.hives.profile import ValueProfile, ValueScore
from valueflow.study.plots import FAINT, INK
from valueflow.theories import get_theory, get_value

# Of Okabe and Ito's palette, as the other figures; each with its own marker.
LOOKS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"))
END = 10.0
HOLE = -14.0
"""Where the radius would be 0: low intensities keep apart instead of meeting in a point."""

APART = 0.075
"""Radians between the markers of several profiles, so that their intervals do not cover."""


def profile_figure(profiles: Mapping[str, ValueProfile], *, level: float = 0.95) -> Figure:
    """Profiles on the twelve basic values of `svt`, in the order of their circle, clockwise.

    Neighbouring values are compatible, opposite ones conflict. The radius is intensity, from -10
    at the inner ring over 0 (the heavy ring) to 10 at the edge. Bars are normal intervals, cut at
    the ends of the scale. A value with a single text has a hollow marker and no bar; one that is
    silent has no marker, the line is broken there, and its name says so if all are silent.
    Areas are not filled: they would grow with the square of what is measured.

    Args:
        profiles: one to three, by the name to be shown.
        level: of the intervals, between 0 and 1.

    Raises:
        InvalidInput: no profile or more than three, a level out of range, or a profile that has
            none of the twelve values.
    """
    if not 1 <= len(profiles) <= len(LOOKS) or not 0 < level < 1:
        raise InvalidInput(
            f"expected 1 to {len(LOOKS)} profiles and a level between 0 and 1, "
            f"got {len(profiles)} and {level}"
        )
    circle = get_theory("svt").circle or ()
    for name, profile in profiles.items():
        if not set(circle) & set(profile.scores):
            raise InvalidInput(f"profile {name!r} has no value of svt; draw one made with them")
    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    axes = cast(PolarAxes, figure.add_subplot(projection="polar"))
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    _style(axes, circle, [_silent(circle, profile) for profile in profiles.values()])
    z = NormalDist().inv_cdf((1 + level) / 2)
    for i, (name, profile) in enumerate(profiles.items()):
        shift = (i - (len(profiles) - 1) / 2) * APART
        _draw(axes, circle, profile, LOOKS[i], shift, z, name)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(profiles),
        frameon=False,
        fontsize=10,
        title=f"bars: {level:.0%} intervals; hollow: a single text",
        title_fontsize=9,
    )
    return figure


def _draw(
    axes: PolarAxes,
    circle: tuple[str, ...],
    profile: ValueProfile,
    look: tuple[str, str],
    shift: float,
    z: float,
    name: str,
) -> None:
    colour, marker = look
    angle = _angles(circle) + shift
    scores = [profile.scores.get(value) for value in circle]
    radius = np.array([np.nan if s is None else s.intensity for s in scores])
    # NaN breaks the line: what nothing speaks of is not crossed.
    axes.plot(
        np.append(angle, angle[0] + 2 * np.pi),
        np.append(radius, radius[0]),
        color=colour,
        linewidth=1.4,
        alpha=0.75,
        label="_line",
        zorder=3,
    )
    for at, score in zip(angle, scores, strict=True):
        if score is not None and score.status == "ok":
            axes.plot([at, at], _bar(score, z), color=colour, linewidth=2.4, alpha=0.45, zorder=4)
    single = np.array([s is not None and s.status == "single" for s in scores])
    for hollow, rows in ((False, ~single), (True, single)):
        axes.plot(
            angle[rows],
            radius[rows],
            color=colour,
            marker=marker,
            markersize=6.5,
            markerfacecolor="white" if hollow else colour,
            linestyle="none",
            label=f"_{name}, single" if hollow else f"{name} ({profile.n_texts} texts)",
            zorder=6 if hollow else 5,
        )


def _bar(score: ValueScore, z: float) -> list[float]:
    ends = (score.intensity - z * score.stderr, score.intensity + z * score.stderr)
    return [float(np.clip(end, -END, END)) for end in ends]


def _silent(circle: tuple[str, ...], profile: ValueProfile) -> set[str]:
    return {v for v in circle if v not in profile.scores or v in profile.silent}


def _angles(circle: tuple[str, ...]) -> np.ndarray:
    return np.arange(len(circle)) * 2 * np.pi / len(circle)


def _style(axes: PolarAxes, circle: tuple[str, ...], silent: list[set[str]]) -> None:
    nobody = set.intersection(*silent)
    axes.set_rlim(-END, END)
    axes.set_rorigin(HOLE)
    axes.set_rgrids(
        [-10, -5, 0, 5, 10], ["−10", "−5", "0", "+5", "+10"], angle=15, fontsize=8.5, color=FAINT
    )
    names = [get_value(v).name + ("\n(silent)" if v in nobody else "") for v in circle]
    axes.set_xticks(_angles(circle), names, fontsize=10.5, color=INK)
    axes.tick_params(axis="x", pad=9)
    for value, label, angle in zip(circle, axes.get_xticklabels(), _angles(circle), strict=True):
        # Written outwards from the edge, so that no name lies over the circle.
        side = np.sin(angle)
        label.set_horizontalalignment(
            "center" if abs(side) < 0.1 else ("left" if side > 0 else "right")
        )
        if value in nobody:
            label.set(color=FAINT, style="italic")
    axes.grid(color="#DADADA", linewidth=0.7)
    axes.spines[["polar", "inner"]].set_color("#BBBBBB")
    ring = np.linspace(0, 2 * np.pi, 361)
    axes.plot(ring, np.zeros_like(ring), color=FAINT, linewidth=1.5, label="_zero", zorder=2)
