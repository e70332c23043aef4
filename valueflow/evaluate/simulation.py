"""How right the evaluator is where the truth is known: judges of planted sharpness and misreading.

The whole of it is run as a user would: a panel, graded texts for `fit`, texts to score. Texts are
numbers, and the judge is Plackett-Luce around what it reads in each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import beta as beta_distribution

from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.intensity import Intensity
from valueflow.evaluate.panel import Panel, Sampling
from valueflow.judges.scripted import ScriptedJudge
from valueflow.typing import Item

VALUE = "svt/power"
"""Any; the simulated judges do not read it."""


@dataclass(frozen=True)
class Recovery:
    """How texts of one true intensity, or of several, were measured.

    Attributes:
        truth: the true intensity; NaN where several are taken together.
        n: texts.
        bias: mean of `Intensity.central` minus truth, all texts counting.
        bias_stderr: of it.
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
        evaluator = _planted(float(sharpness), n_anchors, float(reach), rng)
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
        _recovery(float(t), _take(found, m), _take(paper, m), all_known[m])
        for t, m in zip(truths, masks, strict=True)
    ]
    return [*results, _recovery(math.nan, found, paper, all_known)]


def share_interval(count: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share, `count` of `n` (Clopper-Pearson); NaN for none of none."""
    if n == 0:
        return math.nan, math.nan
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta_distribution.ppf(tail, count, n - count + 1))
    high = 1.0 if count == n else float(beta_distribution.ppf(1 - tail, count + 1, n - count))
    return low, high


def _planted(
    sharpness: float, n_anchors: int, reach: float, rng: np.random.Generator
) -> AnchorEvaluator:
    anchors = np.linspace(-reach, reach, n_anchors)
    items = tuple(Item(f"anchor {i} @{x!r}") for i, x in enumerate(anchors.tolist()))
    panel = Panel(VALUE, items, anchors)
    judge = ScriptedJudge(_meaning, sharpness=sharpness, seed=int(rng.integers(2**31)))
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
) -> Recovery:
    error = np.array([s.central for s in found]) - known
    inside = [s.low <= x <= s.high for s, x in zip(found, known, strict=True)]
    low, high = share_interval(sum(inside), len(inside))
    paper_error = np.array([s.estimate for s in paper]) - known
    paper_stderr = np.array([s.stderr for s in paper])
    spread = float(error.std(ddof=1))
    return Recovery(
        truth=truth,
        n=len(known),
        bias=float(error.mean()),
        bias_stderr=spread / math.sqrt(len(known)),
        spread=spread,
        covered=float(np.mean(inside)),
        covered_low=low,
        covered_high=high,
        outside=float(np.mean([s.status.endswith("panel") for s in found])),
        paper_bias=float(paper_error.mean()),
        paper_covered=float((np.abs(paper_error) < 1.96 * paper_stderr).mean()),
    )
