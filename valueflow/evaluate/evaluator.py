"""The anchor evaluator: a text is ranked among graded anchors, and the ranks give its intensity.

After VALUEFLOW (arXiv 2602.03160): K - 1 bucketed anchors and the text make a window, M windows
make an estimate. Mode "paper" is their estimator; the default first learns how sharply the judge
sees this value, so that intensities are unbiased and errors honest.
"""

import hashlib
import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput, NoSignal, NotFitted
from valueflow.evaluate.panel import Panel, Sampling, panel_from_vidb
from valueflow.evaluate.scale import IntensityScale
from valueflow.judges.base import Judge, Unranked
from valueflow.ranking.anchored import SCALE_RANGE, AnchoredFit, fit_one, fit_sharpness
from valueflow.theories import get_value
from valueflow.typing import Item, Ranking
from valueflow.vidb.schema import ANSWERING

if TYPE_CHECKING:
    from valueflow.vidb import Vidb

Status = Literal["ok", "above_scale", "below_scale", "above_panel", "below_panel", "unranked"]

SIGNAL_Z = 4.0
"""Standard errors by which sharpness must exceed 0: one random judge in 30,000 does."""

SHARPEST = 5.0
"""Logits per intensity point that stand for a judge that never errs: its own are infinite."""


@dataclass(frozen=True)
class Intensity:
    """A measured intensity.

    Attributes:
        estimate: on the database's scale, -10 to 10 where status is "ok"; beyond it, not clipped,
            where "above_scale" / "below_scale"; else NaN (mode "paper" puts a text outside the
            panel just beyond the anchors it met).
        stderr: of the estimate, from the comparisons made (judge noise and the draw of anchors);
            what the judge misreads in this very text is not in it (see `IntensityScale`).
        status: "above_scale" / "below_scale": the estimate lies past +10 / -10, where no text of
            the database is, so read it as "at least" that (means over texts use it as it is, or
            noise would pull them inwards); "above_panel" / "below_panel": it won / lost every
            comparison; "unranked": the judge ordered none of its windows.
        bound: 95% lower limit where above the panel, upper limit where below; else NaN, as it
            always is in mode "paper".
        n_rankings: windows that were ordered.
        panel: hash of the anchors it was measured with; estimates on other panels are comparable
            only as far as the database's scale is.
    """

    estimate: float
    stderr: float
    status: Status
    bound: float
    n_rankings: int
    panel: str

    @property
    def or_bound(self) -> float:
        """The estimate, or the bound where there is none: what means over texts are made of."""
        return self.bound if math.isnan(self.estimate) else self.estimate


class AnchorEvaluator:
    """Scores texts for one value by ranking them among anchors.

    Args:
        judge: orders the windows.
        panel: anchors of the value.
        n_windows: windows per text (M).
        window_size: texts per window (K), the scored one included.
        sampling: how anchors are drawn, "bucket", "random" or "fixed" (see `Panel.draw`).
        mode: "calibrated" (learn the scale with `fit`) or "paper" (no fit needed).
        seed: of anchors drawn and orders shown. The i-th text of a call meets the same anchors in
            every call, so that differences between calls are not the anchors'.

    Attributes:
        sharpness_: logits per intensity unit with which the judge tells this value's texts apart.
        scale_: the fitted `IntensityScale`.
    """

    def __init__(
        self,
        judge: Judge,
        panel: Panel,
        *,
        n_windows: int = 8,
        window_size: int = 6,
        sampling: Sampling = "bucket",
        mode: Literal["calibrated", "paper"] = "calibrated",
        seed: int,
    ) -> None:
        self.judge = judge
        self.panel = panel
        self.n_windows = n_windows
        self.window_size = window_size
        self.sampling = sampling
        self.mode = mode
        self.seed = seed

    def fit(self, items: Sequence[Item], intensities: Sequence[float]) -> "AnchorEvaluator":
        """Learn sharpness and scale from graded texts that are not in the panel.

        Raises:
            InvalidInput: a text of the panel among them (whatever its context), too few, or not as
                many intensities.
            NoSignal: the judge does not order texts by this value.
        """
        if len(items) != len(intensities):
            raise InvalidInput(f"{len(items)} graded texts but {len(intensities)} intensities")
        if {item.text for item in items} & {item.text for item in self.panel.items}:
            raise InvalidInput("texts of the panel cannot calibrate it; use another split")
        known = np.asarray(intensities, dtype=np.float64)
        rankings = self._rankings(items)
        sharpness = self._learn_sharpness(rankings, known)
        fits = self._positions(rankings, sharpness=sharpness)
        positions = np.array([f.estimate if f.status == "ok" else f.bound for f in fits])
        scale = IntensityScale().fit(positions / sharpness, known)
        self.sharpness_, self.scale_ = sharpness, scale
        return self

    def score(self, items: Sequence[Item]) -> list[Intensity]:
        """The intensity of each text; none is ever clipped or guessed.

        Raises:
            NotFitted: `fit` has not run (mode "calibrated").
        """
        self.check_fitted()
        panel = self.panel.fingerprint()
        if self.mode == "paper":
            fits = self._positions(self._rankings(items), sharpness=1.0)
            return [_as_intensity(f, lambda x: x, 1.0, panel) for f in fits]
        beta, scale = self.sharpness_, self.scale_
        fits = self._positions(self._rankings(items), sharpness=beta)

        def to_intensity(theta: float) -> float:
            return float(scale.transform(theta / beta))

        return [_as_intensity(f, to_intensity, beta * scale.slope_, panel) for f in fits]

    def check_fitted(self) -> None:
        """Pass if `score` can run.

        Raises:
            NotFitted: mode "calibrated", and `fit` has not run.
        """
        if self.mode == "calibrated" and not hasattr(self, "scale_"):
            raise NotFitted("call fit with graded texts (for example VIDB's validation split)")

    def fingerprint(self) -> str:
        """Hash of judge, panel, settings and scale: what makes two scores comparable."""
        state = {
            "judge": self.judge.fingerprint(),
            "panel": self.panel.fingerprint(),
            "settings": [self.n_windows, self.window_size, self.sampling, self.mode, self.seed],
            "scale": [self.sharpness_, self.scale_.slope_, self.scale_.offset_]
            if hasattr(self, "scale_")
            else None,
        }
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:16]

    def _learn_sharpness(self, rankings: list[list[Ranking]], known: NDArray[np.float64]) -> float:
        own = len(self.panel)
        intensities = np.append(self.panel.intensities, known)
        renamed = [
            tuple(own + text if i == own else i for i in ranking)
            for text, ranked in enumerate(rankings)
            for ranking in ranked
        ]
        beta, stderr = fit_sharpness(renamed, intensities.tolist())
        if beta <= SIGNAL_Z * (0.0 if math.isnan(stderr) else stderr):
            raise NoSignal(
                f"judge {self.judge.name!r} does not order texts by {self.panel.value}: "
                f"sharpness {beta:.3f} +- {stderr:.3f}; use another judge"
            )
        return min(beta, SHARPEST)

    def _positions(self, rankings: list[list[Ranking]], *, sharpness: float) -> list[AnchoredFit]:
        """Each text's position in logits among anchors whose utility is sharpness * intensity."""
        mode = "paper" if self.mode == "paper" else "ml"
        utilities = np.append(sharpness * self.panel.intensities, math.nan)
        return [fit_one(own, utilities, item=len(self.panel), mode=mode) for own in rankings]

    def _rankings(self, items: Sequence[Item]) -> list[list[Ranking]]:
        """Per text its ordered windows, as indices into the panel with len(panel) for the text."""
        rng = np.random.default_rng(self.seed)
        own = len(self.panel)
        shown: list[tuple[int, ...]] = []
        for _ in items:
            draws = self.panel.draw(
                self.n_windows, self.window_size - 1, sampling=self.sampling, rng=rng
            )
            shown += [tuple(int(i) for i in rng.permutation(np.append(d, own))) for d in draws]
        windows = [
            tuple(items[n // self.n_windows] if i == own else self.panel.items[i] for i in window)
            for n, window in enumerate(shown)
        ]
        verdicts = self.judge.rank(get_value(self.panel.value), windows)
        rankings: list[list[Ranking]] = [[] for _ in items]
        for n, (window, verdict) in enumerate(zip(shown, verdicts, strict=True)):
            if isinstance(verdict, Unranked):
                continue
            if sorted(verdict) != list(range(len(window))):
                raise InvalidInput(
                    f"judge {self.judge.name!r} gave {verdict} for a window of {len(window)} "
                    "texts; expected a permutation of their positions, or Unranked"
                )
            rankings[n // self.n_windows].append(tuple(window[i] for i in verdict))
        return rankings


def vidb_evaluator(
    vidb: "Vidb",
    value: str,
    judge: Judge,
    *,
    mode: Literal["calibrated", "paper"] = "calibrated",
    n_windows: int = 8,
    registers: Collection[str] | None = ANSWERING,
    seed: int,
) -> AnchorEvaluator:
    """The evaluator of a value: anchors from VIDB's test split, scale from its validation split.

    Neither split teaches a vector or a judge. Only answers to questions are anchors, as answers
    are what is scored: judges are sharper among texts of one kind. Pass `registers=None` for a
    database that has no answers.
    """
    panel = panel_from_vidb(vidb, value, "test", registers=registers)
    panel.check_coverage()
    evaluator = AnchorEvaluator(judge, panel, n_windows=n_windows, mode=mode, seed=seed)
    if mode == "paper":
        return evaluator
    graded = panel_from_vidb(vidb, value, "validation", registers=registers)
    return evaluator.fit(graded.items, graded.intensities.tolist())


def _as_intensity(
    fitted: AnchoredFit, to_intensity: Callable[[float], float], unit: float, panel: str
) -> Intensity:
    estimate = to_intensity(fitted.estimate)
    status: Status = fitted.status
    if status == "ok" and abs(estimate) > SCALE_RANGE[1]:
        status = "above_scale" if estimate > 0 else "below_scale"
    return Intensity(
        estimate=estimate,
        stderr=fitted.stderr / unit,
        status=status,
        bound=to_intensity(fitted.bound),
        n_rankings=fitted.n_rankings,
        panel=panel,
    )
