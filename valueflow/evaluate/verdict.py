"""What a reliability report says in words: is this judge fit for this value?"""

import math
from typing import Literal

from valueflow.evaluate._text_figures import TextFigures
from valueflow.evaluate._window_checks import OrderChecks
from valueflow.evaluate.reliability import Reliability

Verdict = Literal["fit", "weak", "not fit"]

CHANCE = 0.55
"""Share of pairs in the right order that a judge must surely exceed; 0.5 is chance itself."""

GOOD_AGREEMENT = 0.85
"""Share of pairs in the right order from which single texts can be told apart."""

FAIR_AGREEMENT = 0.7
"""Below it only means over many texts say anything."""

MANY_FLIPS = 0.1
MANY_UNRANKED = 0.05
STEADY = 0.9
"""Correlation of two measurements of the same texts."""

MUCH_BIAS = 0.02
"""Places per place, or share of pairs: too small to matter below."""


def concerns(found: Reliability) -> list[str]:
    """Sentences on what is wrong, worst first; empty for a judge that is fit."""
    told = []
    if found.problem is not None:
        told.append(f"no scale: {found.problem}")
    right = found.windows_right
    if not right.low > CHANCE:
        told.append(f"it orders anchors hardly better than chance: {right:.2f} of pairs right")
    if found.unranked.value > MANY_UNRANKED:
        reasons = ", ".join(f"{reason} ({n})" for reason, n in list(found.reasons.items())[:3])
        told.append(f"it left {found.unranked.value:.0%} of windows unordered: {reasons}")
    if found.texts is not None:
        told += _of_texts(found.texts)
    return told + _of_order(found.order)


def verdict(found: Reliability) -> Verdict:
    """One word: do not measure with it, use means over many texts only, or no concern is known."""
    if found.problem is not None or not found.windows_right.low > CHANCE or found.texts is None:
        return "not fit"
    if not found.texts.agreement.value >= FAIR_AGREEMENT:
        return "not fit"
    return "weak" if concerns(found) else "fit"


def _of_texts(texts: TextFigures) -> list[str]:
    told = []
    if not texts.agreement.value >= GOOD_AGREEMENT:
        use = "means over many texts" if texts.agreement.value >= FAIR_AGREEMENT else "nothing"
        told.append(f"{texts.agreement:.2f} of pairs in the right order: good for {use}")
    if texts.error.value >= texts.neutral_error:
        told.append(
            f"single texts are off by {texts.error:.1f} points; to call every text neutral "
            f"would be off by {texts.neutral_error:.1f}"
        )
    if texts.sign_flips.value > MANY_FLIPS:
        told.append(f"{texts.sign_flips:.0%} of clear texts measure on the other side")
    if not texts.retest.value >= STEADY:
        told.append(f"two measurements of the same texts correlate {texts.retest:.2f} only")
    if texts.calibration.covered_95.high < 0.95:
        told.append(f"95% intervals hold {texts.calibration.covered_95:.0%} of the grades")
    return told


def _of_order(order: OrderChecks) -> list[str]:
    told = []
    slope = order.position_slope
    if not math.isnan(slope.value) and (slope.low > MUCH_BIAS or slope.high < -MUCH_BIAS):
        where = "lower" if slope.value > 0 else "higher"
        told.append(f"texts shown later are ranked {where}: {slope:+.2f} places per place")
    excess = order.context_excess
    if not math.isnan(excess.value) and excess.low > MUCH_BIAS:
        told.append(f"the company of two texts turns their order round: {excess:+.0%} of pairs")
    return told
