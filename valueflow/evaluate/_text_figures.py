"""What graded texts tell of a judge: agreement, errors, and whether the error bars hold."""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.evaluate import _held_out
from valueflow.evaluate._held_out import HeldOut
from valueflow.evaluate.agreement import GAP
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.figures import Figure, resampled
from valueflow.evaluate.intensity import Z95


@dataclass(frozen=True)
class Calibration:
    """Whether the error bars hold what they say, against grades that have errors themselves.

    The grades' own standard errors are added to the bars, since the truth is not known.

    Attributes:
        covered_68: share of texts within one standard error of the grade, misreading counted.
        covered_95: share whose 95% interval (`Intensity.low` to `high`) reaches the grade. Texts
            outside the panel count with their half-open interval.
        bare_68: as covered_68 with `Intensity.stderr` alone, no misreading.
        bare_95: within 1.96 of those.
        misreading: standard deviation of what is left of the errors when those of rankings, scale
            and grades are taken out: what the judge misreads in a text.
        learned: what calibration took it for, on other texts (`Intensity.misreading`).
    """

    covered_68: Figure
    covered_95: Figure
    bare_68: Figure
    bare_95: Figure
    misreading: Figure
    learned: float


@dataclass(frozen=True)
class TextFigures:
    """Graded texts, measured among anchors of other ladders.

    Attributes:
        sharpness: logits per intensity point.
        agreement: share of pairs of texts, more than 3 points apart by grade, in the right order.
        error: mean absolute difference from the grade, in intensity points.
        neutral_error: the error of calling every text neutral, to compare with.
        shift: mean difference from the grade.
        sign_flips: share of texts graded beyond 2 on one side that measure on the other.
        retest: correlation with a second measurement among other anchors, in other orders.
        retest_sd: standard deviation of one of the two, in intensity points.
        calibration: of the error bars.
        outside: share of texts that won or lost every comparison.
        seconds: the judge took per text; a judge that remembers texts has read these as anchors
            before, and takes less than for new ones.
    """

    sharpness: float
    agreement: Figure
    error: Figure
    neutral_error: float
    shift: Figure
    sign_flips: Figure
    retest: Figure
    retest_sd: Figure
    calibration: Calibration
    outside: Figure
    seconds: float


def text_figures(
    evaluator: AnchorEvaluator, first: HeldOut, again: HeldOut, seed: int
) -> TextFigures:
    grades, groups = first.panel.intensities, first.panel.groups or ()
    measured = first.measured
    retest, retest_sd = _held_out.repeats(measured, again.measured, groups, seed=seed)
    outside = np.array([float(s.status.endswith("panel")) for s in first.scores])
    return TextFigures(
        sharpness=evaluator.sharpness_,
        agreement=_held_out.pair_share(grades, measured, groups, gap=GAP, seed=seed),
        error=_held_out.mean_of(np.abs(measured - grades), groups, seed=seed),
        neutral_error=float(np.abs(grades).mean()),
        shift=_held_out.mean_of(measured - grades, groups, seed=seed),
        sign_flips=_held_out.sign_flips(grades, measured, groups, seed=seed),
        retest=retest,
        retest_sd=retest_sd,
        calibration=_calibration(first, seed),
        outside=_held_out.mean_of(outside, groups, seed=seed),
        seconds=first.seconds / max(len(first.scores), 1),
    )


def _calibration(found: HeldOut, seed: int) -> Calibration:
    grades, groups = found.panel.intensities, found.panel.groups or ()
    blur = np.array(found.panel.stderrs or [0.0] * len(grades))
    error = found.measured - grades
    bare = np.hypot([s.stderr for s in found.scores], blur)
    learned = next((s.misreading for s in found.scores if math.isfinite(s.misreading)), math.nan)
    full = np.hypot(bare, learned)

    def within(half: Float[np.ndarray, " texts"]) -> Figure:
        hits = np.where(np.isfinite(half), (np.abs(error) < half).astype(float), np.nan)
        return _held_out.mean_of(hits, groups, seed=seed)

    return Calibration(
        covered_68=within(full),
        covered_95=_held_out.mean_of(_reached(found, blur), groups, seed=seed),
        bare_68=within(bare),
        bare_95=within(Z95 * bare),
        misreading=_misreading(error, bare, groups, seed),
        learned=float(learned),
    )


def _reached(found: HeldOut, blur: Float[np.ndarray, " texts"]) -> Float[np.ndarray, " texts"]:
    """Whether each interval, wider by the grade's own error, holds the grade; NaN if unranked."""
    hits = np.full(len(blur), np.nan)
    for i, (score, grade) in enumerate(zip(found.scores, found.panel.intensities, strict=True)):
        if math.isnan(score.central):
            continue
        below = math.hypot(score.central - score.low, Z95 * blur[i])
        above = math.hypot(score.high - score.central, Z95 * blur[i])
        hits[i] = float(score.central - below <= grade <= score.central + above)
    return hits


def _misreading(
    error: Float[np.ndarray, " texts"],
    bare: Float[np.ndarray, " texts"],
    groups: Collection[str],
    seed: int,
) -> Figure:
    def statistic(e: Float[np.ndarray, " n"], s: Float[np.ndarray, " n"]) -> float:
        known = np.isfinite(e) & np.isfinite(s)
        if not known.any():
            return math.nan
        return math.sqrt(max(float((e[known] ** 2 - s[known] ** 2).mean()), 0.0))

    return resampled(statistic, error, bare, groups=list(groups), seed=seed)
