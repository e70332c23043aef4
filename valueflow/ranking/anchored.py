"""Where one item stands among anchors whose utilities are known.

With the anchors fixed, each stage of a ranking that the item was present in is a coin toss: it was
chosen with probability sigmoid(theta - a), where exp(a) is the summed weight of the anchors still
there. The likelihood is that of a one-parameter logistic regression with offsets.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, logsumexp

from valueflow.errors import InvalidInput
from valueflow.typing import Rankings

AnchoredStatus = Literal["ok", "above_panel", "below_panel", "unranked"]

PAPER_RIDGE = 1e-3
PAPER_RANGE = (-20.0, 20.0)
SCALE_RANGE = (-10.0, 10.0)


@dataclass(frozen=True)
class AnchoredFit:
    """Position of one item among fixed anchors, in the anchors' unit.

    Attributes:
        estimate: NaN unless status is "ok" (mode "paper" always has one, guard values included).
        stderr: from the Fisher information at the estimate; NaN where there is none.
        status: "ok"; "above_panel" / "below_panel": the item won / lost every comparison, so the
            likelihood has no maximum; "unranked": it is in no ranking.
        bound: for "above_panel" the position below which so many wins in a row would have had a
            probability under 1 - confidence (a lower limit; for "below_panel" an upper limit).
            NaN otherwise.
        n_rankings: rankings that held the item.
    """

    estimate: float
    stderr: float
    status: AnchoredStatus
    bound: float
    n_rankings: int


def fit_one(
    rankings: Rankings,
    utilities: Sequence[float] | NDArray[np.float64],
    *,
    item: int,
    mode: Literal["ml", "paper"] = "ml",
    confidence: float = 0.95,
) -> AnchoredFit:
    """Position of `item`, given the utilities of all others.

    Args:
        rankings: indices into `utilities`, best first; those without `item` are ignored.
        utilities: one per index, in logits; the entry of `item` is not read.
        item: the index whose position is wanted.
        mode: "ml" is maximum likelihood. "paper" is the estimator of VALUEFLOW (arXiv 2602.03160):
            utilities are intensities clamped to [-10, 10], ridge 1e-3, root on [-20, 20], then an
            item that beat (lost to) every anchor is put just above (below) the anchors it met,
            otherwise inside their span.
        confidence: of the one-sided bound that stands in for a missing maximum.

    Raises:
        InvalidInput: an anchor that was ranked has no finite utility.
    """
    values = np.array(utilities, dtype=np.float64)
    if mode == "paper":
        values = np.clip(values, *SCALE_RANGE)
    offsets, won, met = _coin_tosses(rankings, values, item)
    n_rankings = int(sum(item in r for r in rankings))
    if len(offsets) == 0:
        return AnchoredFit(math.nan, math.nan, "unranked", math.nan, n_rankings)
    if mode == "paper":
        return _fit_paper(offsets, won, values[met], n_rankings)
    wins = int(won.sum())
    if wins == len(offsets):
        bound = _all_won_bound(offsets, confidence)
        return AnchoredFit(math.nan, math.nan, "above_panel", bound, n_rankings)
    if wins == 0:
        bound = -_all_won_bound(-offsets, confidence)
        return AnchoredFit(math.nan, math.nan, "below_panel", bound, n_rankings)
    estimate = _root(offsets, wins)
    return AnchoredFit(estimate, _stderr(offsets, estimate), "ok", math.nan, n_rankings)


def fit_sharpness(rankings: Rankings, intensities: Sequence[float]) -> tuple[float, float]:
    """The judge's sharpness: beta in utility = beta * intensity, and its standard error.

    Maximum likelihood over rankings of items of known intensity. A judge that orders at random has
    beta 0; one that never errs has none, and the result is then infinite with a NaN error.

    Raises:
        InvalidInput: no rankings, or an item of unknown intensity.
    """
    x = np.asarray(intensities, dtype=np.float64)
    if not rankings or not all(np.isfinite(x[list(r)]).all() for r in rankings):
        raise InvalidInput("sharpness needs rankings of items whose intensities are all finite")
    left = [x[list(r[stage:])] for r in rankings for stage in range(len(r) - 1)]
    if all(items[0] >= items.max() for items in left):
        return math.inf, math.nan

    def moments(beta: float) -> tuple[float, float]:
        score = information = 0.0
        for items in left:
            p = np.exp(beta * items - logsumexp(beta * items))
            mean = p @ items
            score += items[0] - mean
            information += p @ (items - mean) ** 2
        return score, information

    limit = 1.0
    while moments(limit)[0] > 0 and limit < 1e6:
        limit *= 2.0
    low = -1.0
    while moments(low)[0] < 0 and low > -1e6:
        low *= 2.0
    beta = float(brentq(lambda b: moments(b)[0], low, limit, xtol=1e-10))
    return beta, moments(beta)[1] ** -0.5


def _coin_tosses(
    rankings: Rankings, values: NDArray[np.float64], item: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[int]]:
    """Per stage the item was there: log weight of the others, whether it was chosen; who it met."""
    offsets: list[float] = []
    won: list[bool] = []
    met: list[int] = []
    for ranking in rankings:
        if item not in ranking:
            continue
        others = [i for i in ranking if i != item]
        if not np.isfinite(values[others]).all():
            raise InvalidInput(f"every anchor needs a finite utility, got {values[others]}")
        met.extend(others)
        place = ranking.index(item)
        for stage in range(min(place, len(ranking) - 2) + 1):
            # Anchors chosen before this stage are gone; the item itself is still there.
            offsets.append(float(logsumexp(values[others[stage:]])))
            won.append(stage == place)
    return np.array(offsets), np.array(won, dtype=bool), met


def _root(offsets: NDArray[np.float64], wins: float, ridge: float = 0.0) -> float:
    low, high = offsets.min() - 40.0, offsets.max() + 40.0
    return float(
        brentq(lambda t: wins - expit(t - offsets).sum() - ridge * t, low, high, xtol=1e-10)
    )


def _stderr(offsets: NDArray[np.float64], estimate: float) -> float:
    p = expit(estimate - offsets)
    return float((p * (1 - p)).sum() ** -0.5)


def _all_won_bound(offsets: NDArray[np.float64], confidence: float) -> float:
    """theta at which winning every toss has probability 1 - confidence."""
    target = math.log(1 - confidence)
    low, high = offsets.min() - 60.0, offsets.max() + 60.0
    return float(brentq(lambda t: log_expit(t - offsets).sum() - target, low, high, xtol=1e-10))


def _fit_paper(
    offsets: NDArray[np.float64], won: NDArray[np.bool_], met: NDArray[np.float64], n_rankings: int
) -> AnchoredFit:
    position = float(np.clip(_root(offsets, won.sum(), PAPER_RIDGE), *PAPER_RANGE))
    stderr = _stderr(offsets, position)
    lowest, highest = float(met.min()), float(met.max())
    if won.all():
        guard = min(np.nextafter(highest, np.inf), SCALE_RANGE[1])
        return AnchoredFit(float(guard), stderr, "above_panel", math.nan, n_rankings)
    if not won.any():
        guard = max(np.nextafter(lowest, -np.inf), SCALE_RANGE[0])
        return AnchoredFit(float(guard), stderr, "below_panel", math.nan, n_rankings)
    inside = float(np.clip(position, np.nextafter(lowest, np.inf), np.nextafter(highest, -np.inf)))
    return AnchoredFit(inside, stderr, "ok", math.nan, n_rankings)
