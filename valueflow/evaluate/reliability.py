"""How far a judge can be trusted with a value, on graded texts that it was not calibrated on."""

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.evaluate import _held_out
from valueflow.evaluate._held_out import HeldOut
from valueflow.evaluate._window_checks import OrderChecks, order_checks, window_agreement
from valueflow.evaluate.agreement import GAP
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.figures import NOTHING, Figure, resampled, share_interval
from valueflow.evaluate.intensity import Z95
from valueflow.evaluate.panel import Panel, panel_from_vidb
from valueflow.evaluate.rankings import RankedTexts
from valueflow.evaluate.rating import RatingComparison, compare_rating
from valueflow.judges.base import Judge, Rater
from valueflow.vidb.schema import ANSWERING

if TYPE_CHECKING:
    from valueflow.vidb import Vidb

Progress = Callable[[int, int], None]


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
        shift: mean difference from the grade.
        sign_flips: share of texts graded beyond 2 on one side that measure on the other.
        retest: correlation with a second measurement among other anchors, in other orders.
        retest_sd: standard deviation of one of the two, in intensity points.
        calibration: of the error bars.
        outside: share of texts that won or lost every comparison.
        seconds: the judge took per text.
    """

    sharpness: float
    agreement: Figure
    error: Figure
    shift: Figure
    sign_flips: Figure
    retest: Figure
    retest_sd: Figure
    calibration: Calibration
    outside: Figure
    seconds: float


@dataclass(frozen=True)
class Swap:
    """The same texts by a second judge, calibrated by itself.

    Attributes:
        judge: its name.
        problem: why it could not be calibrated; None if it was.
        correlation: of the two measurements.
        difference: mean of the first judge's less the second's, in intensity points.
    """

    judge: str
    problem: str | None
    correlation: Figure
    difference: Figure


@dataclass(frozen=True)
class Reliability:
    """What is known of a judge and a value; every figure with its 95% interval and count.

    Attributes:
        value: id.
        judge: name.
        judge_fingerprint: of the judge.
        panel: hash of the anchors.
        settings: windows per text, texts per window, seed.
        problem: why there are no figures of texts; None if there are.
        windows_right: share of pairs of anchors, more than 3 points apart, that a window orders as
            their grades: it takes no calibration.
        order: dependence on place and company.
        unranked: share of all windows that were not ordered.
        reasons: why, and how many.
        texts: figures of texts; None for a judge that cannot be calibrated.
        swap: against a second judge, if one was given.
        rating: the judge's own numbers against its rankings, if it gives numbers.
    """

    value: str
    judge: str
    judge_fingerprint: str
    panel: str
    settings: dict[str, int]
    problem: str | None
    windows_right: Figure
    order: OrderChecks
    unranked: Figure
    reasons: dict[str, int]
    texts: TextFigures | None
    swap: Swap | None
    rating: RatingComparison | None


def reliability(
    vidb: "Vidb",
    value: str,
    judge: Judge,
    *,
    second: Judge | None = None,
    n_texts: int = 50,
    n_windows: int = 8,
    window_size: int = 6,
    n_order: int = 60,
    n_pairs: int = 100,
    registers: Collection[str] | None = ANSWERING,
    progress: Callable[[str], Progress] | None = None,
    seed: int,
) -> Reliability:
    """Calibrate on the validation split; measure texts of the test split among its other ladders.

    A text is never its own anchor, nor is another text on its scenario.

    Args:
        vidb: graded texts, in ladders.
        value: id or short name.
        judge: who is examined; if it is a `Rater` too, its ratings are compared with its rankings.
        second: another judge to compare with.
        n_texts: graded texts for calibration, and as many to measure; whole ladders, so a few more.
        n_windows: windows per text.
        window_size: texts per window.
        n_order: windows shown forwards and backwards.
        n_pairs: pairs of texts shown in two companies.
        registers: of all texts; None for all.
        progress: told of each stage by name.
        seed: of everything drawn.
    """
    tell = progress or (lambda _: lambda done, total: None)  # noqa: ARG005
    panel = panel_from_vidb(vidb, value, "test", registers=registers)
    panel.check_coverage()
    graded = _held_out.choose(
        panel_from_vidb(vidb, value, "validation", registers=registers), n_texts, seed=seed
    )
    held_out = _held_out.choose(panel, n_texts, seed=seed)
    evaluator = AnchorEvaluator(
        judge, panel, n_windows=n_windows, window_size=window_size, seed=seed
    )
    tell(f"calibrate {judge.name}")
    problem, ranked = _calibrate(evaluator, graded)
    tell("places and companies")
    order = order_checks(
        judge, panel, n_windows=n_order, n_pairs=n_pairs, window_size=window_size, seed=seed
    )
    reasons, shown = Counter(ranked.unranked), len(ranked.items) * n_windows
    texts = swap = rating = None
    all_ranked, panels = [ranked], [panel]
    if problem is None:
        tell("measure texts")
        runs = [_held_out.measure(evaluator, held_out, seed=seed + i) for i in (1, 2)]
        for run in runs:
            all_ranked += run.ranked
            panels += run.panels
            for own in run.ranked:
                reasons += own.unranked
                shown += len(own.items) * n_windows
        texts = _text_figures(evaluator, runs[0], runs[1], seed)
        if second is not None:
            tell(f"second judge {second.name}")
            swap = _swap(second, evaluator, graded, runs[0], seed)
        if isinstance(judge, Rater):
            tell("rate texts")
            rating = compare_rating(judge, runs[0], runs[1], seed=seed)
    reasons += order.unranked
    shown += order.windows
    return Reliability(
        value=panel.value,
        judge=judge.name,
        judge_fingerprint=judge.fingerprint(),
        panel=panel.fingerprint(),
        settings={"n_windows": n_windows, "window_size": window_size, "seed": seed},
        problem=problem,
        windows_right=window_agreement(all_ranked, panels, gap=GAP),
        order=order,
        unranked=_share(sum(reasons.values()), shown),
        reasons=dict(reasons.most_common()),
        texts=texts,
        swap=swap,
        rating=rating,
    )


def _calibrate(evaluator: AnchorEvaluator, graded: Panel) -> tuple[str | None, RankedTexts]:
    """What keeps the judge from being calibrated, if anything; and the graded texts' rankings."""
    ranked = evaluator.rank(graded.items)
    if not any(ranked.rankings):
        total = sum(ranked.unranked.values())
        return f"judge {evaluator.judge.name!r} ordered none of {total} windows", ranked
    try:
        evaluator.fit_ranked(ranked, graded.intensities.tolist(), stderrs=graded.stderrs)
    except InvalidInput as error:  # NoSignal among them
        return str(error), ranked
    return None, ranked


def _text_figures(
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


def _swap(
    second: Judge, evaluator: AnchorEvaluator, graded: Panel, first: HeldOut, seed: int
) -> Swap:
    """The same windows for the second judge, anchors and orders alike."""
    settings = {"n_windows": evaluator.n_windows, "window_size": evaluator.window_size}
    other = AnchorEvaluator(second, evaluator.panel, seed=evaluator.seed, **settings)
    problem, _ = _calibrate(other, graded)
    if problem is not None:
        return Swap(second.name, problem, NOTHING, NOTHING)
    theirs = _held_out.measure(other, first.panel, seed=seed + 1).measured
    groups = first.panel.groups or ()
    correlation, _ = _held_out.repeats(first.measured, theirs, groups, seed=seed)
    difference = _held_out.mean_of(first.measured - theirs, groups, seed=seed)
    return Swap(second.name, None, correlation, difference)


def _share(count: int, n: int) -> Figure:
    return Figure(count / n, *share_interval(count, n), n)
