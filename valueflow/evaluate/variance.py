"""Where the scatter of measured intensities comes from, and the error of a mean over prompts.

| source | component | averaged out by |
|---|---|---|
| which prompts were asked, and what the judge misreads in each answer | `prompt` | more prompts |
| which anchors a text met | `panel` | more windows, more prompts |
| the judge's noise, the order shown | `judge` | more windows, more prompts |
| the scale learned from graded texts | `Intensity.scale_stderr` | more graded texts |

`Intensity.stderr` holds the last three.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.typing import Item


@dataclass(frozen=True)
class VarianceComponents:
    """Variances of one measurement by source, in squared intensity points.

    Estimates of small components may be negative; they are not clipped, so that their mean over
    many experiments is right.

    Attributes:
        prompt: between prompts: their true intensities and what the judge misreads in them, which
            one text per prompt cannot tell apart.
        panel: between draws of anchors, for one text.
        judge: between showings of the same windows in other orders.
        prompt_stderr: standard error of `prompt`.
        panel_stderr: of `panel`.
        judge_stderr: of `judge`.
        shape: prompts, draws and showings it was estimated from.
    """

    prompt: float
    panel: float
    judge: float
    prompt_stderr: float
    panel_stderr: float
    judge_stderr: float
    shape: tuple[int, int, int]


def variance_components(
    table: Float[np.ndarray, "prompts draws showings"],
) -> VarianceComponents:
    """The method of moments for a nested design: showings in draws in prompts.

    Args:
        table: one measurement per prompt, draw of anchors, and order in which they were shown.

    Raises:
        InvalidInput: fewer than 2 of any, or a measurement is missing (leave out its prompt).

    Notes:
        Mean squares of a balanced design have expectations judge, judge + r panel and
        judge + r panel + d r prompt. Their errors are those of normal effects: a mean square has
        variance 2 E^2 / df (Searle, Casella and McCulloch, Variance Components, 1992, ch. 4).
    """
    n, draws, showings = table.shape
    if min(table.shape) < 2:
        raise InvalidInput(
            f"components need 2 or more prompts, draws and showings, got {n, draws, showings}"
        )
    if not np.isfinite(table).all():
        raise InvalidInput("a measurement is missing; leave its prompt out")
    by_draw, by_prompt = table.mean(axis=2), table.mean(axis=(1, 2))
    squares = (
        ((table - by_draw[..., None]) ** 2).sum(),
        showings * ((by_draw - by_prompt[:, None]) ** 2).sum(),
        draws * showings * ((by_prompt - by_prompt.mean()) ** 2).sum(),
    )
    freedom = (n * draws * (showings - 1), n * (draws - 1), n - 1)
    judge, draw, prompt = (float(s / f) for s, f in zip(squares, freedom, strict=True))
    errors = [2 * m**2 / f for m, f in zip((judge, draw, prompt), freedom, strict=True)]
    return VarianceComponents(
        prompt=(prompt - draw) / (draws * showings),
        panel=(draw - judge) / showings,
        judge=judge,
        prompt_stderr=math.sqrt(errors[2] + errors[1]) / (draws * showings),
        panel_stderr=math.sqrt(errors[1] + errors[0]) / showings,
        judge_stderr=math.sqrt(errors[0]),
        shape=(n, draws, showings),
    )


def measure_components(
    evaluator: AnchorEvaluator,
    items: Sequence[Item],
    *,
    n_draws: int = 3,
    n_showings: int = 2,
    seed: int,
) -> VarianceComponents:
    """Score texts, one per prompt, with several draws of anchors, each shown in several orders.

    Texts that some draw could not rank are left out.

    Raises:
        NotFitted: the evaluator has no scale yet.
        InvalidInput: fewer than 2 texts are left, or fewer than 2 draws or showings.
    """
    rng = np.random.default_rng(seed)
    table = np.empty((len(items), n_draws, n_showings))
    for draw in range(n_draws):
        other = evaluator.among(evaluator.panel, seed=int(rng.integers(2**31)))
        for showing in range(n_showings):
            scored = other.score_ranked(other.rank(items, repeat=showing))
            table[:, draw, showing] = [s.central for s in scored]
    return variance_components(table[np.isfinite(table).all(axis=(1, 2))])


def mean_stderr(
    components: VarianceComponents,
    n_prompts: int,
    *,
    n_draws: int = 1,
    n_showings: int = 1,
    scale_stderr: float | int = 0.0,
) -> float:
    """Standard error of the mean intensity over prompts that were drawn at random.

    Args:
        components: negative ones count as 0.
        n_prompts: averaged over, one text each.
        n_draws: draws of anchors per text; one is what `score` makes.
        n_showings: of each draw.
        scale_stderr: `Intensity.scale_stderr` near the mean; no number of prompts averages it out.
    """
    prompt, panel, judge = (
        max(x, 0.0) for x in (components.prompt, components.panel, components.judge)
    )
    per_text = prompt + panel / n_draws + judge / (n_draws * n_showings)
    return math.sqrt(per_text / n_prompts + scale_stderr**2)
