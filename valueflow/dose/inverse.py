"""From a wanted intensity to the coefficient that gives it, or to the nearest there is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_HALVINGS = 42


@dataclass(frozen=True)
class Dose:
    """The coefficient that gives an intensity.

    Attributes:
        target: the intensity asked for.
        coefficient: where the curve attains it; the smallest in size, where it does on a plateau.
        interval: the coefficients at which the confidence interval of the curve holds the target.
            An end at an end of the usable range may lie beyond it.
    """

    target: float
    coefficient: float
    interval: tuple[float, float]
    status: Literal["ok"] = "ok"


@dataclass(frozen=True)
class Unreachable:
    """An intensity that no coefficient in the usable range gives.

    Attributes:
        target: the intensity asked for.
        lowest: least intensity of the curve in the usable range.
        highest: greatest intensity of the curve in the usable range.
        nearest: whichever of the two is nearer to the target.
        coefficient: the coefficient, smallest in size, that gives `nearest`.
    """

    target: float
    lowest: float
    highest: float
    nearest: float
    coefficient: float
    status: Literal["unreachable"] = "unreachable"


def invert(
    target: float,
    usable_range: tuple[float, float],
    predict: Callable[[float], Any],
    interval: Callable[[float], tuple[Any, Any]],
    *,
    increasing: bool,
) -> Dose | Unreachable:
    """Invert a monotone curve and its pointwise confidence interval.

    Args:
        target: a finite intensity.
        usable_range: least and greatest coefficient, between which the curve is defined.
        predict: coefficient -> intensity, monotone, plateaus allowed.
        interval: coefficient -> (lower, upper) intensity, both monotone like `predict`.
        increasing: whether `predict` rises.

    Notes:
        By bisection, to 1e-12 of the range. The ends at which a target leaves the percentiles of
        monotone replicates are the percentiles of the replicates' own inverses.
    """
    sign = 1 if increasing else -1
    lowest, highest = sorted(float(predict(end)) for end in usable_range)
    nearest = min(max(target, lowest), highest)
    goal = sign * nearest
    first = _first(lambda c: sign * predict(c) >= goal, *usable_range)
    last = _first(lambda c: sign * predict(c) > goal, *usable_range)
    coefficient = min(max(0.0, first), last)
    if nearest != target:
        return Unreachable(target, lowest, highest, nearest, coefficient)
    from_ = _first(lambda c: max(sign * end for end in interval(c)) >= goal, *usable_range)
    to = _first(lambda c: min(sign * end for end in interval(c)) > goal, *usable_range)
    return Dose(target, coefficient, (from_, to))


def _first(holds: Callable[[float], bool], lower: float, upper: float) -> float:
    """Where a condition begins to hold; `upper` if it never does."""
    if holds(lower):
        return lower
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if holds(middle) else (middle, upper)
    return upper
