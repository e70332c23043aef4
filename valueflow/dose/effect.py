"""What steering achieves within the damage that is borne, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from valueflow.dose.arms import Arm, row_means
from valueflow.dose.damage import is_degenerate
from valueflow.dose.points import Points, safe_range

DEGENERATE_LIMIT = 0.25
"""Rise in the share of looping or empty texts; a loop is likely text and no damage by nats."""


@dataclass(frozen=True)
class Limits:
    """What bounds a dose.

    Attributes:
        damage: mean nats per token above unsteered.
        degenerate: rise in the share of looping or empty texts.
    """

    damage: float
    degenerate: float = DEGENERATE_LIMIT


@dataclass(frozen=True)
class Effect:
    """What a vector does over the largest symmetric range of coefficients within the limits.

    Attributes:
        coefficient: the end of that range: the means at -coefficient and +coefficient, interpolated
            linearly, both respect the limits. 0 where nothing was ranked.
        change: mean intensity at +coefficient minus at -coefficient, interpolated linearly; NaN
            where nothing was ranked.
        bounded: whether a limit bounds the range; else the outermost coefficient measured does, and
            larger ones might achieve more.
    """

    coefficient: float
    change: float
    bounded: bool


def effect_within(arm: Arm, limits: Limits) -> Effect:
    """The effect of an arm that was measured at coefficient 0 and on both sides of it."""
    broken = np.array([[is_degenerate(text) for text in row] for row in arm.texts])
    return _effect(np.array(arm.coefficients), arm.intensities, arm.damage, broken, limits)


def resampled_changes(
    arms: Sequence[Arm], limits: Limits, *, n_bootstrap: int, seed: int
) -> Float[np.ndarray, "replicates arms"]:
    """The change of every arm, measured on the same prompts, in replicates that redraw the prompts.

    All arms of a replicate have the same draw of prompts, so that differences between arms are free
    of what prompts do to all of them. The limits are applied anew in each, NaN as in `Effect`.
    """
    n_prompts = arms[0].intensities.shape[1]
    draws = np.random.default_rng(seed).integers(n_prompts, size=(n_bootstrap, n_prompts))
    changes = np.empty((n_bootstrap, len(arms)))
    for column, arm in enumerate(arms):
        c = np.array(arm.coefficients)
        broken = np.array([[is_degenerate(text) for text in row] for row in arm.texts])
        for row, own in enumerate(draws):
            intensities, damage = arm.intensities[:, own], arm.damage[:, own]
            changes[row, column] = _effect(c, intensities, damage, broken[:, own], limits).change
    return changes


def _effect(
    coefficients: Float[np.ndarray, " n"],
    intensities: Float[np.ndarray, "n prompts"],
    damage: Float[np.ndarray, "n prompts"],
    broken: Bool[np.ndarray, "n prompts"],
    limits: Limits,
) -> Effect:
    means = row_means(intensities)
    ranked = np.isfinite(means)
    # A range of one side alone has no change; the interpolation needs both.
    if not (ranked[coefficients < 0].any() and ranked[coefficients > 0].any()):
        return Effect(0.0, float("nan"), bounded=False)
    share = broken.mean(axis=1)
    rise = share - share[coefficients == 0].mean()
    load = np.fmax(row_means(damage) / limits.damage, rise / limits.degenerate)
    load[coefficients == 0] = 0.0
    points = Points(coefficients, means[:, None], load[:, None])
    lower, upper = safe_range(points, 1.0)
    end = min(-lower, upper)
    down, up = np.interp([-end, end], coefficients[ranked], means[ranked])
    outermost = min(-coefficients[ranked].min(), coefficients[ranked].max())
    return Effect(float(end), float(up - down), bounded=bool(end < outermost))
