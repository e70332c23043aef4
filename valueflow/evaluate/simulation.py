"""How right the evaluator is where the truth is known: judges of planted sharpness and misreading.

The whole of it is run as a user would: a panel, graded texts for `fit`, texts to score. Texts are
numbers, and the judge is Plackett-Luce around what it reads in each.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.figures import share_interval
from valueflow.evaluate.intensity import Intensity
from valueflow.evaluate.panel import Panel, Sampling
from valueflow.judges.scripted import ScriptedJudge
from valueflow.typing import Item, Window

VALUE = "svt/power"
"""Any; the simulated judges do not read it."""


class ContextJudge(ScriptedJudge):
    """Reads the number at the end of a text, and lets the others of the window change it.

    Args:
        sharpness: see `ScriptedJudge`.
        context: what a point of the others' mean adds to a text (or takes from it, for every other
            text: where it moved all alike, no order would change).
        seed: of the noise.
    """

    name = "context"

    def __init__(self, *, sharpness: float | None, context: float, seed: int) -> None:
        super().__init__(_meaning, sharpness=sharpness, seed=seed)
        self.context = context

    def fingerprint(self) -> str:
        """Of the judge without context, and the context."""
        return f"{super().fingerprint()}-{self.context}"

    def _read(self, window: Window) -> list[float]:
        own = super()._read(window)
        if not self.context:
            return own
        signs = (1 - 2 * (zlib.crc32(item.text.encode()) % 2) for item in window)
        others = ((sum(own) - x) / (len(own) - 1) for x in own)
        return [
            x + self.context * sign * other
            for x, sign, other in zip(own, signs, others, strict=True)
        ]


@dataclass(frozen=True)
class Recovery:
    """How texts of one true intensity, or of several, were measured.

    Attributes:
        truth: the true intensity; NaN where several are taken together.
        n: texts.
        bias: mean of `Intensity.central` minus truth, all texts counting.
        bias_stderr: of it, from the scatter between calibrations: their texts share a scale.
        spread: standard deviation of the same difference.
        covered: share whose 95% interval holds the truth. A text outside the panel counts with its
            half-open interval (`Intensity.low` to infinity, or from minus infinity to `high`).
        covered_low: lower end of the exact 95% interval of that share (Clopper-Pearson).
        covered_high: its upper end.
        outside: share that won or lost every comparison.
        paper_bias: mean of mode "paper" minus truth, on the very same rankings.
        paper_covered: share within 1.96 of its standard errors.
    """

    truth: float
    n: int
    bias: float
    bias_stderr: float
    spread: float
    covered: float
    covered_low: float
    covered_high: float
    outside: float
    paper_bias: float
    paper_covered: float


def simulate_recovery(
    sharpness: float | int,
    truths: Sequence[float],
    *,
    n_calibrations: int,
    n_texts: int,
    n_anchors: int = 100,
    n_graded: int = 100,
    misreading: float | int = 0.0,
    context: float | int = 0.0,
    reach: float | int = 10.0,
    n_windows: int = 8,
    window_size: int = 6,
    sampling: Sampling = "bucket",
    seed: int,
) -> list[Recovery]:
    """Calibrate and score again and again; one result per truth, and one for all together.

    Args:
        sharpness: logits per intensity unit.
        truths: true intensities of the scored texts.
        n_calibrations: evaluators fitted, each on graded texts, panel and judge noise of its own.
        n_texts: texts per truth and evaluator.
        n_anchors: in the panel, spread evenly from -reach to reach.
        n_graded: texts that `fit` learns from, drawn uniformly from the same range.
        misreading: standard deviation of what the judge misreads in a text, every time alike;
            anchors are read rightly.
        context: what the judge adds to its reading of a text, per point of the mean of the
            others' readings: for one text it is plus that much, for the next minus. It breaks the
            independence of irrelevant alternatives.
        reach: of panel and graded texts.
        n_windows: as `AnchorEvaluator`.
        window_size: as `AnchorEvaluator`.
        sampling: as `AnchorEvaluator`.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    known = np.repeat(np.asarray(truths, dtype=np.float64), n_texts)
    found, paper = [], []
    for _ in range(n_calibrations):
        evaluator = _planted(float(sharpness), n_anchors, float(reach), float(context), rng)
        evaluator.n_windows, evaluator.window_size = n_windows, window_size
        evaluator.sampling = sampling
        graded = rng.uniform(-reach, reach, n_graded)
        evaluator.fit(_read_as(graded, float(misreading), rng), graded.tolist())
        # Else the scored texts would meet the anchors that the graded ones met.
        evaluator.seed = int(rng.integers(2**31))
        ranked = evaluator.rank(_read_as(known, float(misreading), rng))
        found += evaluator.score_ranked(ranked)
        evaluator.mode = "paper"
        paper += evaluator.score_ranked(ranked)
    all_known = np.tile(known, n_calibrations)
    masks = [all_known == truth for truth in truths]
    results = [
        _recovery(float(t), _take(found, m), _take(paper, m), all_known[m], n_calibrations)
        for t, m in zip(truths, masks, strict=True)
    ]
    return [*results, _recovery(math.nan, found, paper, all_known, n_calibrations)]


def _planted(
    sharpness: float, n_anchors: int, reach: float, context: float, rng: np.random.Generator
) -> AnchorEvaluator:
    anchors = np.linspace(-reach, reach, n_anchors)
    items = tuple(Item(f"anchor {i} @{x!r}") for i, x in enumerate(anchors.tolist()))
    panel = Panel(VALUE, items, anchors)
    judge = ContextJudge(sharpness=sharpness, context=context, seed=int(rng.integers(2**31)))
    return AnchorEvaluator(judge, panel, seed=int(rng.integers(2**31)))


def _read_as(
    known: Float[np.ndarray, " texts"], misreading: float, rng: np.random.Generator
) -> list[Item]:
    """Texts of these intensities that the judge reads as others."""
    read = known + misreading * rng.standard_normal(len(known))
    return [Item(f"text {i} @{x!r}") for i, x in enumerate(read.tolist())]


def _meaning(item: Item) -> float:
    return float(item.text.rpartition("@")[2])


def _take(scores: list[Intensity], mask: np.ndarray) -> list[Intensity]:
    return [scores[i] for i in np.flatnonzero(mask)]


def _recovery(
    truth: float,
    found: list[Intensity],
    paper: list[Intensity],
    known: Float[np.ndarray, " texts"],
    n_calibrations: int,
) -> Recovery:
    error = np.array([s.central for s in found]) - known
    inside = [s.low <= x <= s.high for s, x in zip(found, known, strict=True)]
    low, high = share_interval(int(sum(inside)), len(inside))
    paper_error = np.array([s.estimate for s in paper]) - known
    paper_stderr = np.array([s.stderr for s in paper])
    biases = error.reshape(n_calibrations, -1).mean(axis=1)
    between = float(biases.std(ddof=1)) if n_calibrations > 1 else math.nan
    return Recovery(
        truth=truth,
        n=len(known),
        bias=float(error.mean()),
        bias_stderr=between / math.sqrt(n_calibrations),
        spread=float(error.std(ddof=1)),
        covered=float(np.mean(inside)),
        covered_low=low,
        covered_high=high,
        outside=float(np.mean([s.status.endswith("panel") for s in found])),
        paper_bias=float(paper_error.mean()),
        paper_covered=float((np.abs(paper_error) < 1.96 * paper_stderr).mean()),
    )
