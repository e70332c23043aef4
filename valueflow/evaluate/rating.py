"""The experiment of VALUEFLOW (arXiv 2602.03160): does a judge do better by ranking or rating?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.evaluate import _held_out
from valueflow.evaluate._held_out import HeldOut
from valueflow.evaluate.agreement import GAP
from valueflow.evaluate.figures import Figure, resampled
from valueflow.judges.base import Rater, Unranked
from valueflow.theories import get_value
from valueflow.typing import Item

SCALE = 10.0


@dataclass(frozen=True)
class MethodFigures:
    """One way to get numbers from a judge, twice over the same graded texts.

    Attributes:
        agreement: share of pairs of texts, more than 3 points apart by grade, in the right order.
        sign_flips: share of texts graded beyond 2 on one side that get the other sign.
        retest: correlation of the two times.
        retest_sd: standard deviation of one of them about their mean, in points.
        noise: `retest_sd` over the standard deviation of all texts' numbers, so that a method that
            says nearly the same of every text gains nothing by it.
        unmeasured: texts without a number the first time.
    """

    agreement: Figure
    sign_flips: Figure
    retest: Figure
    retest_sd: Figure
    noise: Figure
    unmeasured: int


@dataclass(frozen=True)
class RatingComparison:
    """The same texts ranked among anchors and rated from -10 to 10, by one judge.

    Attributes:
        ranking: the evaluator's intensities, twice with other anchors and orders.
        rating: the judge's own numbers as they are, twice, the texts in other orders.
        reasons: why texts were not rated, and how many times.
    """

    ranking: MethodFigures
    rating: MethodFigures
    reasons: dict[str, int]


def compare_rating(judge: Rater, first: HeldOut, again: HeldOut, *, seed: int) -> RatingComparison:
    """Have the judge rate the texts twice and set that beside two rankings.

    Raises:
        InvalidInput: a rating outside -10 to 10, or not one per text.
    """
    rng = np.random.default_rng(seed)
    reasons: Counter[str] = Counter()
    rated = [_rated(judge, first.panel.value, first.panel.items, reasons, rng) for _ in range(2)]
    return RatingComparison(
        ranking=_figures(first, first.measured, again.measured, seed),
        rating=_figures(first, rated[0], rated[1], seed),
        reasons=dict(reasons.most_common()),
    )


def _rated(
    judge: Rater,
    value: str,
    items: Sequence[Item],
    reasons: Counter[str],
    rng: np.random.Generator,
) -> Float[np.ndarray, " texts"]:
    """Ratings of the texts, asked in a random order; NaN where there is none."""
    order = rng.permutation(len(items))
    found = judge.rate(get_value(value), [items[i] for i in order])
    if len(found) != len(items):
        raise InvalidInput(f"expected a rating for each of {len(items)} texts, got {len(found)}")
    ratings = np.full(len(items), np.nan)
    for place, rating in zip(order, found, strict=True):
        if isinstance(rating, Unranked):
            reasons[rating.reason] += 1
        elif not -SCALE <= rating <= SCALE:
            raise InvalidInput(f"expected a rating from -10 to 10, or Unranked; got {rating}")
        else:
            ratings[place] = float(rating)
    return ratings


def _figures(
    texts: HeldOut,
    first: Float[np.ndarray, " texts"],
    again: Float[np.ndarray, " texts"],
    seed: int,
) -> MethodFigures:
    grades, groups = texts.panel.intensities, texts.panel.groups or ()
    retest, retest_sd = _held_out.repeats(first, again, groups, seed=seed)
    return MethodFigures(
        agreement=_held_out.pair_share(grades, first, groups, gap=GAP, seed=seed),
        sign_flips=_held_out.sign_flips(grades, first, groups, seed=seed),
        retest=retest,
        retest_sd=retest_sd,
        noise=resampled(_noise, first, again, groups=list(groups), seed=seed),
        unmeasured=int(np.isnan(first).sum()),
    )


def _noise(first: Float[np.ndarray, " texts"], again: Float[np.ndarray, " texts"]) -> float:
    both = np.isfinite(first) & np.isfinite(again)
    if both.sum() < 3:
        return float("nan")
    spread = np.concatenate([first[both], again[both]]).std(ddof=1)
    noise = np.sqrt(((first[both] - again[both]) ** 2).mean() / 2)
    return float(noise / spread) if spread else float("nan")
