"""Graded texts measured as if they were new: among anchors of other scenarios only."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.evaluate.agreement import ordered_pairs
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.figures import Figure, resampled
from valueflow.evaluate.intensity import Intensity
from valueflow.evaluate.panel import Panel
from valueflow.evaluate.rankings import RankedTexts

CLEAR = 2.0
"""Intensity from which a text takes a side: the other sign is then an error."""


@dataclass(frozen=True)
class HeldOut:
    """Graded texts and how they were measured.

    Attributes:
        panel: the texts with their grades and ladders.
        scores: one per text.
        ranked: the rankings, a ladder each.
        panels: the anchors they were ranked among.
        seconds: that the judge took.
    """

    panel: Panel
    scores: list[Intensity]
    ranked: list[RankedTexts]
    panels: list[Panel]
    seconds: float

    @property
    def measured(self) -> Float[np.ndarray, " texts"]:
        """What means are made of; NaN where unranked."""
        return np.array([s.central for s in self.scores], dtype=np.float64)


def choose(panel: Panel, n_texts: int, *, seed: int) -> Panel:
    """Whole ladders of the panel, drawn until there are `n_texts` texts or more, or no ladder."""
    assert panel.groups is not None
    ladders = list(dict.fromkeys(panel.groups))
    taken: list[int] = []
    for place in np.random.default_rng(seed).permutation(len(ladders)):
        if len(taken) >= n_texts:
            break
        taken += [i for i, own in enumerate(panel.groups) if own == ladders[place]]
    return panel.take(sorted(taken))


def measure(evaluator: AnchorEvaluator, held_out: Panel, *, seed: int) -> HeldOut:
    """Score texts of the evaluator's panel, each ladder among the anchors of all others."""
    panel = evaluator.panel
    assert panel.groups is not None and held_out.groups is not None
    rng = np.random.default_rng(seed)
    scores: dict[int, Intensity] = {}
    ranked, panels, seconds = [], [], 0.0
    for ladder in dict.fromkeys(held_out.groups):
        own = [i for i, group in enumerate(held_out.groups) if group == ladder]
        others = panel.take([i for i, group in enumerate(panel.groups) if group != ladder])
        sub = evaluator.among(others, seed=int(rng.integers(2**31)))
        started = time.perf_counter()
        found = sub.rank([held_out.items[i] for i in own])
        seconds += time.perf_counter() - started
        scores.update(zip(own, sub.score_ranked(found), strict=True))
        ranked.append(found)
        panels.append(others)
    in_order = [scores[i] for i in range(len(held_out))]
    return HeldOut(held_out, in_order, ranked, panels, seconds)


def pair_share(
    grades: Float[np.ndarray, " texts"],
    measured: Float[np.ndarray, " texts"],
    groups: Sequence[str],
    *,
    gap: float,
    seed: int,
) -> Figure:
    """Share of pairs of texts ordered as their grades, ladders drawn again."""

    def statistic(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
        right, pairs = ordered_pairs(x, y, gap=gap)
        return right / pairs if pairs else float("nan")

    _, pairs = ordered_pairs(grades, measured, gap=gap)
    return resampled(statistic, grades, measured, groups=groups, n=pairs, seed=seed)


def sign_flips(
    grades: Float[np.ndarray, " texts"],
    measured: Float[np.ndarray, " texts"],
    groups: Sequence[str],
    *,
    seed: int,
) -> Figure:
    """Share of texts graded beyond `CLEAR` on one side that measure on the other."""
    clear = (np.abs(grades) > CLEAR) & np.isfinite(measured)
    flipped = np.where(clear, (np.sign(grades) != np.sign(measured)).astype(float), np.nan)
    return mean_of(flipped, groups, seed=seed)


def mean_of(numbers: Float[np.ndarray, " texts"], groups: Sequence[str], *, seed: int) -> Figure:
    """Mean of what is not NaN, ladders drawn again."""

    def statistic(x: Float[np.ndarray, " n"]) -> float:
        known = x[np.isfinite(x)]
        return float(known.mean()) if len(known) else float("nan")

    return resampled(
        statistic, numbers, groups=groups, n=int(np.isfinite(numbers).sum()), seed=seed
    )


def repeats(
    first: Float[np.ndarray, " texts"],
    second: Float[np.ndarray, " texts"],
    groups: Sequence[str],
    *,
    seed: int,
) -> tuple[Figure, Figure]:
    """Correlation of two measurements of the same texts, and the SD of one about their mean."""
    both = np.isfinite(first) & np.isfinite(second)
    kept = [group for group, known in zip(groups, both, strict=True) if known]

    def correlation(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
        if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
            return float("nan")
        return float(np.corrcoef(x, y)[0, 1])

    def spread(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> float:
        return float(np.sqrt(((x - y) ** 2).mean() / 2))

    return (
        resampled(correlation, first[both], second[both], groups=kept, seed=seed),
        resampled(spread, first[both], second[both], groups=kept, seed=seed),
    )
