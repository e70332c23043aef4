"""Numbers with their 95% intervals and what they were counted on."""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, stdtrit

DRAWS = 1000


@dataclass(frozen=True)
class Figure:
    """A number with its 95% interval; NaN where nothing could be measured.

    Attributes:
        value: the number.
        low: lower end of the interval.
        high: upper end.
        n: texts, pairs or windows it was counted on.
    """

    value: float
    low: float
    high: float
    n: int

    def __format__(self, form: str) -> str:
        """`f"{figure:.2f}"` is "0.81 (0.77 to 0.85)"; "-" where there is none."""
        if math.isnan(self.value):
            return "-"
        form = form or ".2f"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


NOTHING = Figure(math.nan, math.nan, math.nan, 0)


def share_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, `count` of `n` (Clopper-Pearson); NaN for none of none."""
    if n == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, tail))
    high = 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - tail))
    return low, high


def share(hits: Sequence[bool]) -> Figure:
    """A share of independent yes and no, with its exact interval."""
    if not hits:
        return NOTHING
    return Figure(sum(hits) / len(hits), *share_interval(int(sum(hits)), len(hits)), len(hits))


def mean(numbers: Sequence[float]) -> Figure:
    """A mean of independent numbers with Student's interval; NaNs are left out."""
    known = np.array([x for x in numbers if math.isfinite(x)], dtype=np.float64)
    if len(known) < 2:
        return NOTHING
    half = float(stdtrit(len(known) - 1, 0.975) * known.std(ddof=1))
    half /= math.sqrt(len(known))
    centre = float(known.mean())
    return Figure(centre, centre - half, centre + half, len(known))


def resampled(
    statistic: Callable[..., float],
    *columns: Float[np.ndarray, " texts"],
    groups: Sequence[Hashable],
    n: int | None = None,
    seed: int,
) -> Figure:
    """A statistic of columns with its percentile interval, whole groups drawn again.

    Texts of one ladder share a scenario and are not independent; ladders are.

    Args:
        statistic: of the columns; may be NaN, which a draw then does not count.
        columns: one number per text.
        groups: the group of each text.
        n: what the statistic counts, if not texts.
        seed: of the draws.
    """
    if not groups:
        return NOTHING
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    rows = [np.array(own) for own in members.values()]
    value = statistic(*columns)
    rng = np.random.default_rng(seed)
    drawn = []
    for picked in rng.integers(len(rows), size=(DRAWS, len(rows))):
        index = np.concatenate([rows[i] for i in picked])
        drawn.append(statistic(*(column[index] for column in columns)))
    known = [x for x in drawn if math.isfinite(x)]
    if not known or not math.isfinite(value):
        return Figure(float(value), math.nan, math.nan, len(groups) if n is None else n)
    low, high = np.percentile(known, [2.5, 97.5])
    return Figure(float(value), float(low), float(high), len(groups) if n is None else n)
