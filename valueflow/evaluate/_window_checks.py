"""Does a judge's order depend on what it should not: the place of a text, or its company?"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.evaluate.figures import Figure, mean, resampled, share
from valueflow.evaluate.panel import Panel
from valueflow.evaluate.rankings import RankedTexts
from valueflow.judges.base import Judge, Unranked, Verdict
from valueflow.theories import get_value

NEAR = 4.0
"""Intensity points between two texts whose order may well depend on their company."""


@dataclass(frozen=True)
class OrderChecks:
    """What the same texts, shown otherwise, tell of a judge.

    Attributes:
        position_slope: places that a text moves in the order for one place that it is shown
            further down, from windows shown forwards and backwards: 0 is no bias, 1 a judge that
            repeats the order shown, -1 one that turns it round. n: windows.
        reshuffled: share of pairs of texts whose order turns round when the same window is shown
            in another order: noise and position bias.
        other_company: the same when, besides, all the others in the window are exchanged.
        context_excess: `other_company` less `reshuffled`: what the company does. Above 0, the
            independence of irrelevant alternatives that Plackett-Luce rests on does not hold.
        unranked: windows that were not ordered, by reason.
        windows: windows shown.
    """

    position_slope: Figure
    reshuffled: Figure
    other_company: Figure
    context_excess: Figure
    unranked: Counter[str]
    windows: int


def order_checks(
    judge: Judge, panel: Panel, *, n_windows: int, n_pairs: int, window_size: int, seed: int
) -> OrderChecks:
    """Show windows of the panel's texts forwards and backwards, and pairs in two companies.

    The companies of a pair are drawn from the lower and from the upper half of the panel. Their
    places in the second and third showing are the same, so place cannot tell those apart.
    """
    rng = np.random.default_rng(seed)
    forwards = [
        tuple(int(i) for i in rng.permutation(d))
        for d in panel.draw(n_windows, window_size, sampling="bucket", rng=rng)
    ]
    pairs = _near_pairs(panel, n_pairs, rng)
    triples = [_showings(panel, pair, window_size, rng) for pair in pairs]
    shown = [*forwards, *(w[::-1] for w in forwards), *itertools.chain(*triples)]
    texts = [tuple(panel.items[i] for i in window) for window in shown]
    verdicts = judge.rank(get_value(panel.value), texts)
    slopes = [
        _slope(first, second)
        for first, second in zip(verdicts[:n_windows], verdicts[n_windows:], strict=False)
        if not isinstance(first, Unranked) and not isinstance(second, Unranked)
    ]
    turned = _turned(pairs, shown[2 * n_windows :], verdicts[2 * n_windows :])
    return OrderChecks(
        position_slope=mean(slopes),
        reshuffled=share([a for a, _ in turned]),
        other_company=share([b for _, b in turned]),
        context_excess=mean([float(b) - float(a) for a, b in turned]),
        unranked=Counter(v.reason for v in verdicts if isinstance(v, Unranked)),
        windows=len(shown),
    )


def window_agreement(
    ranked: Sequence[RankedTexts], panels: Sequence[Panel], *, gap: float
) -> Figure:
    """Share of pairs of anchors, more than `gap` apart, that windows order as their grades.

    It needs no scale, so it can be had of judges that cannot be calibrated. Windows of one text are
    drawn again together.
    """
    right, pairs = [], []
    for texts, panel in zip(ranked, panels, strict=True):
        for rankings in texts.rankings:
            counts = np.zeros(2)
            for ranking in rankings:
                grades = panel.intensities[[i for i in ranking if i < len(panel)]]
                ahead = grades[:, None] - grades[None, :]
                upper = np.triu(np.ones_like(ahead, dtype=bool), 1)
                counts += [(ahead[upper] > gap).sum(), (np.abs(ahead[upper]) > gap).sum()]
            right.append(counts[0])
            pairs.append(counts[1])
    return resampled(
        _ratio,
        np.array(right, dtype=np.float64),
        np.array(pairs, dtype=np.float64),
        groups=range(len(pairs)),
        n=int(sum(pairs)),
        seed=0,
    )


def _ratio(right: Float[np.ndarray, " texts"], pairs: Float[np.ndarray, " texts"]) -> float:
    return float(right.sum() / pairs.sum()) if pairs.sum() else float("nan")


def _near_pairs(panel: Panel, n_pairs: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Pairs of anchors near one another, of different ladders where those are known."""
    grades = panel.intensities
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(panel)), 2)
        if abs(grades[a] - grades[b]) < NEAR
        and (panel.groups is None or panel.groups[a] != panel.groups[b])
    ]
    return [pairs[i] for i in rng.permutation(len(pairs))[:n_pairs]]


def _showings(
    panel: Panel, pair: tuple[int, int], size: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Three windows: a pair and low company; the same in another order; that with high company."""
    by_grade = [int(i) for i in np.argsort(panel.intensities) if i not in pair]
    half, n = len(by_grade) // 2, min(size - 2, len(by_grade) // 2)
    companies = [rng.choice(by_grade[:half], n, replace=False)]
    companies.append(rng.choice(by_grade[half:], n, replace=False))
    if rng.random() < 0.5:
        companies.reverse()
    first, other = ([*pair, *(int(i) for i in company)] for company in companies)
    orders = [rng.permutation(len(first)) for _ in range(2)]
    return [
        tuple(first[i] for i in orders[0]),
        tuple(first[i] for i in orders[1]),
        tuple(other[i] for i in orders[1]),
    ]


def _slope(forwards: Sequence[int], backwards: Sequence[int]) -> float:
    """Places moved in the order per place moved in the window."""
    size = len(forwards)
    # The text shown at p forwards is shown at size - 1 - p backwards.
    rank, rank_turned = np.argsort(forwards), np.argsort(backwards)[::-1]
    moved = size - 1 - 2 * np.arange(size)
    return float((rank_turned - rank) @ moved / (moved @ moved))


def _turned(
    pairs: Sequence[tuple[int, int]],
    shown: Sequence[tuple[int, ...]],
    verdicts: Sequence[Verdict],
) -> list[tuple[bool, bool]]:
    """Per pair whether its order turned in the second showing, and in the third."""
    turned = []
    for n, pair in enumerate(pairs):
        told = verdicts[3 * n : 3 * n + 3]
        own = [v for v in told if not isinstance(v, Unranked)]
        if len(own) < len(told):
            continue
        ahead = [
            v.index(w.index(pair[0])) < v.index(w.index(pair[1]))
            for v, w in zip(own, shown[3 * n : 3 * n + 3], strict=True)
        ]
        turned.append((ahead[1] != ahead[0], ahead[2] != ahead[0]))
    return turned
