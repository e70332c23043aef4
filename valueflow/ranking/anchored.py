"""Where one item stands among anchors whose utilities are known.

With the anchors fixed, each stage of a ranking that the item was present in is a coin toss: it was
chosen with probability sigmoid(theta - a), where exp(a) is the summed weight of the anchors still
there. The likelihood is that of a one-parameter logistic regression with offsets.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar
from scipy.special import expit, log_expit

from valueflow.errors import InvalidInput
from valueflow.ranking._mean import MeanPosition, mean_position, outside_shift
from valueflow.typing import Ranking, Rankings

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
            NaN otherwise, and in mode "paper".
        n_rankings: rankings that held the item.
        central: what means over items are made of: the estimate; in mode "mean", where the item is
            outside the panel, the mean position all the same (NaN in mode "ml").
        low: lower end of the two-sided interval, mode "mean" only; minus infinity where "below".
        high: upper end; infinity where "above".
    """

    estimate: float
    stderr: float
    status: AnchoredStatus
    bound: float
    n_rankings: int
    central: float = math.nan
    low: float = math.nan
    high: float = math.nan


def fit_one(
    rankings: Rankings,
    utilities: Sequence[float] | NDArray[np.float64],
    *,
    item: int,
    mode: Literal["ml", "mean", "paper"] = "ml",
    confidence: float = 0.95,
    ends: tuple[float, float] | None = None,
) -> AnchoredFit:
    """Position of `item`, given the utilities of all others.

    Args:
        rankings: indices into `utilities`, best first; those without `item` are ignored.
        utilities: one per index, in logits; the entry of `item` is not read.
        item: the index whose position is wanted.
        mode: "ml" is maximum likelihood. "mean" has less bias and intervals that cover (see
            `valueflow.ranking._mean`). "paper" is the estimator of VALUEFLOW (arXiv 2602.03160):
            utilities are intensities clamped to [-10, 10], ridge 1e-3, root on [-20, 20], then an
            item that beat (lost to) every anchor is put just above (below) the anchors it met,
            otherwise inside their span, and never outside [-10, 10].
        confidence: of the one-sided bound that stands in for a missing maximum, and of the
            two-sided interval, in (0, 1).
        ends: mode "mean": the positions between which means over items shall be unbiased; they
            decide `central` of an item outside the panel (None: the mean position as it is).

    Raises:
        InvalidInput: names the ranking that holds an item twice, or an anchor without a finite
            utility; a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise InvalidInput(f"confidence must be above 0 and below 1, got {confidence}")
    values = np.array(utilities, dtype=np.float64)
    if mode == "paper":
        np.clip(values, *SCALE_RANGE, out=values, where=np.isfinite(values))
    stages, places, met = _stages(rankings, values, item)
    tossed = np.isfinite(stages) & (np.arange(stages.shape[1]) <= places[:, None])
    offsets, won = stages[tossed], (np.arange(stages.shape[1]) == places[:, None])[tossed]
    n_rankings = int(sum(item in r for r in rankings))
    if len(offsets) == 0:
        return AnchoredFit(math.nan, math.nan, "unranked", math.nan, n_rankings)
    if mode == "paper":
        return _fit_paper(offsets, won, values[met], n_rankings)
    inside = mean_position(stages, places, confidence=confidence) if mode == "mean" else None
    if won.all() or not won.any():
        return _outside(offsets, bool(won.all()), inside, confidence, ends, n_rankings)
    if inside is not None:
        return AnchoredFit(
            inside.mean,
            inside.sd,
            "ok",
            math.nan,
            n_rankings,
            central=inside.mean,
            low=inside.low,
            high=inside.high,
        )
    estimate = _position(offsets, won)
    return AnchoredFit(
        estimate, _stderr(offsets, estimate), "ok", math.nan, n_rankings, central=estimate
    )


def fit_sharpness(
    rankings: Rankings, intensities: Sequence[float] | NDArray[np.float64]
) -> tuple[float, float]:
    """The judge's sharpness: beta in utility = beta * intensity, and its standard error.

    Maximum likelihood over rankings of items of known intensity. A judge that orders at random has
    beta 0; one that never errs has none, and the result is then infinite with a NaN error (minus
    infinity for one that always orders backwards).

    Raises:
        InvalidInput: an item of unknown intensity, or no ranking of different intensities.
    """
    x = np.asarray(intensities, dtype=np.float64)
    known = [x[_known(row, ranking, x)] for row, ranking in enumerate(rankings)]
    left = [items[stage:] for items in known for stage in range(len(items) - 1)]
    left = [items for items in left if np.ptp(items) > 0]
    if not left:
        raise InvalidInput("sharpness needs rankings of items of different intensities, got none")
    if all(items[0] == items.max() for items in left):
        return math.inf, math.nan
    if all(items[0] == items.min() for items in left):
        return -math.inf, math.nan
    stages = np.full((len(left), max(map(len, left))), np.nan)
    for stage, items in zip(stages, left, strict=True):
        stage[: len(items)] = items
    high = 1.0
    while _moments(stages, high)[0] > 0 and high < 1e6:
        high *= 2.0
    low = -1.0
    while _moments(stages, low)[0] < 0 and low > -1e6:
        low *= 2.0
    beta = _root(lambda b: _moments(stages, b)[0], low, high)
    return beta, _moments(stages, beta)[1] ** -0.5


def _moments(stages: NDArray[np.float64], beta: float) -> tuple[float, float]:
    """Slope of the log-likelihood of beta and minus its curvature.

    `stages` holds the intensities left at each stage, the one chosen first, padded with NaN.
    """
    p = np.exp(beta * stages - np.nanmax(beta * stages, axis=1, keepdims=True))
    p /= np.nansum(p, axis=1, keepdims=True)
    away = stages - np.nansum(p * stages, axis=1, keepdims=True)
    return float(away[:, 0].sum()), float(np.nansum(p * away**2))


def _stages(
    rankings: Rankings, values: NDArray[np.float64], item: int
) -> tuple[NDArray[np.float64], NDArray[np.intp], list[int]]:
    """Per ranking the log weight of the others at each stage, the item's place; who it met.

    Rows are filled up with +inf. The item is there up to the stage that is its place.
    """
    rows: list[NDArray[np.float64]] = []
    places: list[int] = []
    met: list[int] = []
    for row, ranking in enumerate(rankings):
        if item not in ranking:
            continue
        others = _known(row, ranking, values, item=item)
        if others:
            met.extend(others)
            rows.append(np.logaddexp.accumulate(values[others][::-1])[::-1])
            places.append(ranking.index(item))
    stages = np.full((len(rows), max(map(len, rows), default=0)), np.inf)
    for stage, row in zip(stages, rows, strict=True):
        stage[: len(row)] = row
    return stages, np.array(places, dtype=np.intp), met


def _known(
    row: int, ranking: Ranking, values: NDArray[np.float64], *, item: int | None = None
) -> list[int]:
    """The items of a ranking but `item`; all are distinct and have a finite value."""
    if len(set(ranking)) != len(ranking):
        raise InvalidInput(f"ranking {row}: expected distinct items, got {ranking}")
    others = [i for i in ranking if i != item]
    for i in others:
        if not (0 <= i < len(values) and math.isfinite(values[i])):
            raise InvalidInput(
                f"ranking {row}: expected a finite utility or intensity of item {i}, got none; "
                "leave the ranking out"
            )
    return others


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(root_scalar(function, bracket=(low, high), method="brentq", xtol=1e-10).root)


def _position(offsets: NDArray[np.float64], won: NDArray[np.bool_], ridge: float = 0.0) -> float:
    """Where tosses won pull up as much as those lost (and the prior) pull down."""
    # sigmoid(-x) keeps the digits that 1 - sigmoid(x) loses among far anchors.
    beaten, unbeaten = offsets[won], offsets[~won]
    return _root(
        lambda t: float(expit(beaten - t).sum() - expit(t - unbeaten).sum() - ridge * t),
        float(offsets.min()) - 40.0,
        float(offsets.max()) + 40.0,
    )


def _stderr(offsets: NDArray[np.float64], estimate: float) -> float:
    information = expit(estimate - offsets) * expit(offsets - estimate)
    return float(information.sum() ** -0.5)


def _all_won_bound(offsets: NDArray[np.float64], confidence: float) -> float:
    """Position at which winning every toss has probability 1 - confidence."""
    target = math.log1p(-confidence)
    low, high = float(offsets.min()) - 60.0, float(offsets.max()) + 60.0
    return _root(lambda theta: float(log_expit(theta - offsets).sum()) - target, low, high)


def _outside(
    offsets: NDArray[np.float64],
    above: bool,
    inside: MeanPosition | None,
    confidence: float,
    ends: tuple[float, float] | None,
    n_rankings: int,
) -> AnchoredFit:
    """Of an item that won or lost every comparison; an end of its interval is open."""
    sign = 1.0 if above else -1.0
    bound = sign * _all_won_bound(sign * offsets, confidence)
    status: AnchoredStatus = "above_panel" if above else "below_panel"
    if inside is None:
        return AnchoredFit(math.nan, math.nan, status, bound, n_rankings)
    end = sign * _all_won_bound(sign * offsets, (1 + confidence) / 2)
    central = inside.mean
    if ends is not None:
        central += sign * outside_shift(sign * offsets, sign * ends[1 if above else 0])
    return AnchoredFit(
        math.nan,
        math.nan,
        status,
        bound,
        n_rankings,
        central=central,
        low=end if above else -math.inf,
        high=math.inf if above else end,
    )


def _fit_paper(
    offsets: NDArray[np.float64], won: NDArray[np.bool_], met: NDArray[np.float64], n_rankings: int
) -> AnchoredFit:
    position = float(np.clip(_position(offsets, won, PAPER_RIDGE), *PAPER_RANGE))
    stderr = _stderr(offsets, position)
    lowest, highest = float(met.min()), float(met.max())
    if won.all():
        guard = float(min(np.nextafter(highest, np.inf), SCALE_RANGE[1]))
        return AnchoredFit(guard, stderr, "above_panel", math.nan, n_rankings, central=guard)
    if not won.any():
        guard = float(max(np.nextafter(lowest, -np.inf), SCALE_RANGE[0]))
        return AnchoredFit(guard, stderr, "below_panel", math.nan, n_rankings, central=guard)
    inside = np.clip(position, np.nextafter(lowest, np.inf), np.nextafter(highest, -np.inf))
    # Anchors that are all alike have no inside; what is left must still be on the scale.
    inside = float(np.clip(inside, *SCALE_RANGE))
    return AnchoredFit(inside, stderr, "ok", math.nan, n_rankings, central=inside)
