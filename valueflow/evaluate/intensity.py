"""A measured intensity, and what its error bars hold."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from valueflow.evaluate.scale import IntensityScale
from valueflow.ranking.anchored import SCALE_RANGE, AnchoredFit

Status = Literal["ok", "above_scale", "below_scale", "above_panel", "below_panel", "unranked"]

Z95 = 1.959964
"""Standard errors on either side of a 95% interval."""


@dataclass(frozen=True)
class Intensity:
    """A measured intensity.

    Attributes:
        estimate: on the database's scale, -10 to 10 where status is "ok"; beyond it, not clipped,
            where "above_scale" / "below_scale"; else NaN (mode "paper" puts a text outside the
            panel just beyond the anchors it met).
        stderr: of the estimate, from judge noise, the draw of anchors and the scale's own error.
            Not in it: what the judge misreads in this very text (`misreading`), and, where a mean
            over prompts is wanted, the choice of prompts (`valueflow.evaluate.variance`).
        status: "above_scale" / "below_scale": the estimate lies past +10 / -10, where no text of
            the database is, so read it as "at least" that (means over texts use it as it is, or
            noise would pull them inwards); "above_panel" / "below_panel": it won / lost every
            comparison; "unranked": the judge ordered none of its windows.
        bound: one-sided 95% limit of the judge noise alone: lower where above the panel, upper
            where below; else NaN, as it always is in mode "paper".
        n_rankings: windows that were ordered.
        panel: hash of the anchors it was measured with; estimates on other panels are comparable
            only as far as the database's scale is.
        central: what means over texts are made of: the estimate; outside the panel, where there is
            none, the number that keeps such means unbiased up to the ends of the scale.
        low: lower end of the 95% interval of this text's intensity, from everything in `stderr`
            and `misreading`; minus infinity below the panel. NaN in mode "paper".
        high: upper end; infinity above the panel.
        scale_stderr: the part of `stderr` that all texts of an evaluator share: means over texts do
            not average it out. Mode "paper" learns no scale: 0.
        misreading: standard deviation of what the judge misreads in a text, whatever the number of
            windows, learned from the graded texts; NaN in mode "paper".
    """

    estimate: float
    stderr: float
    status: Status
    bound: float
    n_rankings: int
    panel: str
    central: float = math.nan
    low: float = math.nan
    high: float = math.nan
    scale_stderr: float = 0.0
    misreading: float = math.nan


def paper_intensity(fitted: AnchoredFit, panel: str) -> Intensity:
    """Mode "paper": positions are intensities."""
    return Intensity(
        fitted.estimate,
        fitted.stderr,
        fitted.status,
        fitted.bound,
        fitted.n_rankings,
        panel,
        central=fitted.central,
    )


def calibrated_intensity(
    fitted: AnchoredFit, sharpness: float, scale: IntensityScale, panel: str
) -> Intensity:
    """A position in logits as an intensity, with all that is known to blur it."""

    def to_intensity(position: float) -> float:
        return float(scale.transform(position / sharpness))

    central = to_intensity(fitted.central)
    status: Status = fitted.status
    if status == "ok" and abs(central) > SCALE_RANGE[1]:
        status = "above_scale" if central > 0 else "below_scale"
    scale_stderr = float(scale.stderr(central))
    blur = Z95 * math.hypot(scale_stderr, scale.misreading_sd_)
    return Intensity(
        estimate=to_intensity(fitted.estimate),
        stderr=math.hypot(fitted.stderr / (sharpness * scale.slope_), scale_stderr),
        status=status,
        bound=to_intensity(fitted.bound),
        n_rankings=fitted.n_rankings,
        panel=panel,
        central=central,
        low=_widened(central, fitted.low, blur, to_intensity),
        high=_widened(central, fitted.high, blur, to_intensity),
        scale_stderr=scale_stderr,
        misreading=scale.misreading_sd_,
    )


def _widened(
    central: float, end: float, blur: float, to_intensity: Callable[[float], float]
) -> float:
    """An end of an interval moved outwards: half widths of independent errors add in squares."""
    if not math.isfinite(end):
        return end
    half = to_intensity(end) - central
    return central + math.copysign(math.hypot(half, blur), half)
