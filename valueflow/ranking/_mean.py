"""Where an item stands, as a mean instead of a maximum: nearly unbiased, and never infinite."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float, Int
from scipy.special import exp1, log_expit, logsumexp

REACH = 20.0
"""Logits beyond the outermost anchors that still count: exp(-20) of the mass lies further out."""

_COARSE, _FINE = 81, 121
"""Points of the grid that finds where the mass is, and of the one that sums it up."""


@dataclass(frozen=True)
class MeanPosition:
    """Mean, spread and equal-tailed interval of the position, in logits."""

    mean: float
    sd: float
    low: float
    high: float


def mean_position(
    offsets: Float[np.ndarray, "windows stages"],
    places: Int[np.ndarray, " windows"],
    *,
    confidence: float,
) -> MeanPosition:
    """The mean of the position under a prior as dense as the information the windows give there.

    That prior takes the first-order bias out of the mean (Hartigan 1965), as Firth's penalty does
    for the maximum, and has one more merit: between the far anchors of a sharp judge the likelihood
    is flat, where a maximum is anywhere and a mean is in the middle.

    Args:
        offsets: log weight of the anchors still there at each stage; +inf past the last anchor.
        places: anchors that were ranked before the item.
        confidence: of the interval.

    Notes:
        The order of the anchors among themselves does not depend on the item, so the information
        is the expected one given that order. It counts that a stage is reached only if the item
        was not chosen before; the observed information would bias the position upwards, as a
        ranking is read from its top.
    """
    finite = offsets[np.isfinite(offsets)]
    low, high = float(finite.min()) - REACH, float(finite.max()) + REACH
    coarse = np.linspace(low, high, _COARSE)
    density = _log_density(coarse, offsets, places)
    near = np.flatnonzero(density > density.max() - REACH)
    low = float(coarse[max(near[0] - 1, 0)])
    high = float(coarse[min(near[-1] + 1, _COARSE - 1)])
    grid = np.linspace(low, high, _FINE)
    density = _log_density(grid, offsets, places)
    weight = np.exp(density - logsumexp(density))
    mean = float(weight @ grid)
    sd = math.sqrt(float(weight @ (grid - mean) ** 2))
    # Half of each point's mass lies below the point.
    below = np.cumsum(weight) - weight / 2
    tail = (1 - confidence) / 2
    ends = np.interp([tail, 1 - tail], below, grid)
    return MeanPosition(mean, sd, float(ends[0]), float(ends[1]))


def outside_shift(offsets: Float[np.ndarray, " tosses"], end: float) -> float:
    """What to add to the mean of an item that won every toss, to set averages over items right.

    Near the end of the anchors the losses of an item that is t logits above their summed weight are
    a Poisson number of mean exp(-t). The mean position after n of them is -digamma(n + 1), whose
    expectation falls short of t by E1(exp(-t)). Only items without a loss can make up for it, and
    they are exp(-exp(-t)) of all; this shift does so for items at `end`, the last position of
    interest. Where nearly all win everything (exp(-t) under 0.3) no shift would do for those
    further in as well, so it stops there.
    """
    # A pair only with return_sign, which its types do not tell apart.
    summed = cast(np.float64, logsumexp(offsets))
    losses = math.exp(np.clip(summed - end, math.log(0.3), math.log(50.0)))
    return float(exp1(losses)) * math.exp(losses)


def _log_density(
    grid: Float[np.ndarray, " points"],
    offsets: Float[np.ndarray, "windows stages"],
    places: Int[np.ndarray, " windows"],
) -> Float[np.ndarray, " points"]:
    """Log-likelihood plus log expected information, up to a constant."""
    ahead = grid - offsets[..., None]
    won, passed = log_expit(ahead), log_expit(-ahead)
    reached = np.cumsum(passed, axis=1) - passed
    information = logsumexp(reached + won + passed, axis=(0, 1))
    stage = np.arange(offsets.shape[1])
    lost = (stage < places[:, None])[..., None]
    chosen = ((stage == places[:, None]) & np.isfinite(offsets))[..., None]
    likelihood = np.where(lost, passed, 0.0).sum((0, 1)) + np.where(chosen, won, 0.0).sum((0, 1))
    return likelihood + information
