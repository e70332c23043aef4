"""The anchor evaluator: a text is ranked among graded anchors, and the ranks give its intensity.

After VALUEFLOW (arXiv 2602.03160): K - 1 bucketed anchors and the text make a window, M windows
make an estimate. Mode "paper" is their estimator; the default first learns how sharply the judge
sees this value, so that intensities are unbiased and errors honest.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput, NoSignal, NotFitted
from valueflow.evaluate.intensity import Intensity, calibrated_intensity, paper_intensity
from valueflow.evaluate.panel import Panel, Sampling
from valueflow.evaluate.rankings import (
    RankedTexts,
    SavedRankings,
    Shown,
    anchors_hash,
    item_hash,
)
from valueflow.evaluate.scale import IntensityScale
from valueflow.judges.base import Judge, Unranked
from valueflow.ranking.anchored import SCALE_RANGE, AnchoredFit, fit_one, fit_sharpness
from valueflow.theories import get_value
from valueflow.typing import Item, Ranking

Mode = Literal["calibrated", "paper"]

SETTINGS = ("n_windows", "window_size", "sampling", "mode", "seed")

SIGNAL_Z = 4.0
"""Standard errors by which sharpness must exceed 0: one random judge in 30,000 does."""

SHARPEST = 5.0
"""Logits per intensity point that stand for a judge that never errs: its own are infinite."""


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
        graded_: the rankings both were learned from.
    """

    def __init__(
        self,
        judge: Judge,
        panel: Panel,
        *,
        n_windows: int = 8,
        window_size: int = 6,
        sampling: Sampling = "bucket",
        mode: Mode = "calibrated",
        seed: int,
    ) -> None:
        self.judge = judge
        self.panel = panel
        self.n_windows = n_windows
        self.window_size = window_size
        self.sampling: Sampling = sampling
        self.mode: Mode = mode
        self.seed = seed

    def rank(self, items: Sequence[Item], *, repeat: int = 0) -> RankedTexts:
        """Have the judge order each text's windows; scoring them is another step.

        Args:
            items: the texts.
            repeat: other numbers show the same windows in other orders.

        Raises:
            InvalidInput: the judge gave what is neither an order of a window nor `Unranked`.
        """
        shown = self._shown(len(items), repeat)
        own = len(self.panel)
        windows = [
            tuple(items[n // self.n_windows] if i == own else self.panel.items[i] for i in window)
            for n, window in enumerate(shown)
        ]
        verdicts = self.judge.rank(get_value(self.panel.value), windows)
        for window, verdict in zip(shown, verdicts, strict=True):
            if not isinstance(verdict, Unranked) and sorted(verdict) != list(range(len(window))):
                raise InvalidInput(
                    f"judge {self.judge.name!r} gave {verdict} for a window of {len(window)} "
                    "texts; expected a permutation of their positions, or Unranked"
                )
        told = [Shown(window, verdict) for window, verdict in zip(shown, verdicts, strict=True)]
        return RankedTexts(
            panel=anchors_hash(self.panel),
            judge=self.judge.name,
            judge_fingerprint=self.judge.fingerprint(),
            items=tuple(map(item_hash, items)),
            windows=tuple(
                tuple(told[n : n + self.n_windows]) for n in range(0, len(told), self.n_windows)
            ),
        )

    def fit(
        self,
        items: Sequence[Item],
        intensities: Sequence[float],
        *,
        stderrs: Sequence[float] | None = None,
    ) -> "AnchorEvaluator":
        """Learn sharpness and scale from graded texts that are not in the panel.

        Args:
            items: the graded texts.
            intensities: their grades.
            stderrs: errors of the grades, so that they are not taken for the judge's misreading.

        Raises:
            InvalidInput: a text of the panel among them (whatever its context), too few, or not as
                many intensities.
            NoSignal: the judge does not order texts by this value.
        """
        if len(items) != len(intensities):
            raise InvalidInput(f"{len(items)} graded texts but {len(intensities)} intensities")
        if {item.text for item in items} & {item.text for item in self.panel.items}:
            raise InvalidInput("texts of the panel cannot calibrate it; use another split")
        return self.fit_ranked(self.rank(items), intensities, stderrs=stderrs)

    def fit_ranked(
        self,
        ranked: RankedTexts,
        intensities: Sequence[float],
        *,
        stderrs: Sequence[float] | None = None,
    ) -> "AnchorEvaluator":
        """`fit` from the graded texts' rankings.

        Raises:
            InvalidInput: not as many intensities as texts, or too few.
            StaleArtifact: they were ranked among other anchors.
            NoSignal: the judge does not order texts by this value.
        """
        ranked.check_panel(self.panel)
        if len(ranked.items) != len(intensities):
            raise InvalidInput(f"{len(ranked.items)} ranked texts, {len(intensities)} intensities")
        known = np.asarray(intensities, dtype=np.float64)
        sharpness = self._learn_sharpness(ranked.rankings, known)
        fits = self._positions(ranked.rankings, sharpness=sharpness)
        scale = IntensityScale().fit(
            np.array([f.central for f in fits]) / sharpness,
            known,
            position_stderrs=np.array([f.stderr for f in fits]) / sharpness,
            grade_stderrs=None if stderrs is None else np.asarray(stderrs, dtype=np.float64),
        )
        self.sharpness_, self.scale_, self.graded_ = sharpness, scale, ranked
        return self

    def score(self, items: Sequence[Item]) -> list[Intensity]:
        """The intensity of each text; none is ever clipped or guessed.

        Raises:
            NotFitted: `fit` has not run (mode "calibrated").
        """
        self.check_fitted()
        return self.score_ranked(self.rank(items))

    def score_ranked(self, ranked: RankedTexts) -> list[Intensity]:
        """`score` from the texts' rankings: the same numbers, without the judge.

        Raises:
            NotFitted: as `score`.
            StaleArtifact: they were ranked among other anchors.
        """
        self.check_fitted()
        ranked.check_panel(self.panel)
        panel = self.panel.fingerprint()
        if self.mode == "paper":
            fits = self._positions(ranked.rankings, sharpness=1.0)
            return [paper_intensity(f, panel) for f in fits]
        beta, scale = self.sharpness_, self.scale_
        fits = self._positions(ranked.rankings, sharpness=beta, scale=scale)
        return [calibrated_intensity(f, beta, scale, panel) for f in fits]

    def saved(self, scored: RankedTexts) -> SavedRankings:
        """These rankings with all else that scoring them again takes."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        graded = getattr(self, "graded_", None) if self.mode == "calibrated" else None
        return SavedRankings(self.panel.value, settings, graded, scored)

    def uncalibrated(self, judge: Judge, panel: Panel, *, seed: int) -> "AnchorEvaluator":
        """A new evaluator with these settings, not fitted yet."""
        return AnchorEvaluator(
            judge,
            panel,
            n_windows=self.n_windows,
            window_size=self.window_size,
            sampling=self.sampling,
            mode=self.mode,
            seed=seed,
        )

    def among(self, panel: Panel, *, seed: int) -> "AnchorEvaluator":
        """This evaluator, scale included, with some of its anchors only, or other seeds.

        Raises NotFitted as `score`.
        """
        self.check_fitted()
        other = self.uncalibrated(self.judge, panel, seed=seed)
        if self.mode == "calibrated":
            other.sharpness_, other.scale_ = self.sharpness_, self.scale_
        return other

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
            "settings": [getattr(self, name) for name in SETTINGS],
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

    def _positions(
        self,
        rankings: list[list[Ranking]],
        *,
        sharpness: float,
        scale: IntensityScale | None = None,
    ) -> list[AnchoredFit]:
        """Each text's position in logits among anchors whose utility is sharpness * intensity."""
        mode = "paper" if self.mode == "paper" else "mean"
        utilities = np.append(sharpness * self.panel.intensities, math.nan)
        low, high = (x if scale is None else scale.position(x) for x in SCALE_RANGE)
        ends = (sharpness * low, sharpness * high)
        own = len(self.panel)
        return [fit_one(r, utilities, item=own, mode=mode, ends=ends) for r in rankings]

    def _shown(self, n_texts: int, repeat: int) -> list[tuple[int, ...]]:
        """The windows of all texts, as indices into the panel with len(panel) for the text."""
        rng = np.random.default_rng(self.seed)
        shown: list[tuple[int, ...]] = []
        for _ in range(n_texts):
            draws = self.panel.draw(
                self.n_windows, self.window_size - 1, sampling=self.sampling, rng=rng
            )
            shown += [
                tuple(int(i) for i in rng.permutation(np.append(d, len(self.panel)))) for d in draws
            ]
        if repeat:
            again = np.random.default_rng([self.seed, repeat])
            shown = [tuple(int(i) for i in again.permutation(window)) for window in shown]
        return shown
