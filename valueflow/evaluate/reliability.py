"""How far a judge can be trusted with a value, on graded texts that it was not calibrated on."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from valueflow.errors import InvalidInput
from valueflow.evaluate import _held_out
from valueflow.evaluate._held_out import HeldOut
from valueflow.evaluate._text_figures import TextFigures, text_figures
from valueflow.evaluate._window_checks import OrderChecks, order_checks, window_agreement
from valueflow.evaluate.agreement import GAP
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.figures import NOTHING, Figure, share_interval
from valueflow.evaluate.panel import Panel, panel_from_vidb
from valueflow.evaluate.rankings import RankedTexts
from valueflow.evaluate.rating import RatingComparison, compare_rating
from valueflow.judges.base import Judge, Rater
from valueflow.vidb.schema import ANSWERING

if TYPE_CHECKING:
    from valueflow.vidb import Vidb

Progress = Callable[[int, int], None]


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


def measure_reliability(
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
        texts = text_figures(evaluator, runs[0], runs[1], seed)
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


def _swap(
    second: Judge, evaluator: AnchorEvaluator, graded: Panel, first: HeldOut, seed: int
) -> Swap:
    """The same windows for the second judge, anchors and orders alike."""
    other = evaluator.uncalibrated(second, evaluator.panel, seed=evaluator.seed)
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
