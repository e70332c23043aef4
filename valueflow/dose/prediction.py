"""What a calibration promises of texts not yet written: the mean intensity of a new set of prompts.

The interval of the curve says where the mean over all prompts lies. A new set has a mean of its
own, and an evaluator with another seed has a scale of its own; both belong in what is promised.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from valueflow.dose.curve import DoseCurve
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator


@dataclass(frozen=True)
class ScaleNoise:
    """How far a scale learned anew, on the same graded texts, may differ.

    Attributes:
        middle: intensity at which the two scales agree best.
        at_middle: standard deviation of their difference there, intensity points.
        per_point: the same, per intensity point away from there; the two are independent.
    """

    middle: float
    at_middle: float
    per_point: float

    def stderr(self, intensity: float) -> float:
        """Standard deviation of the difference at an intensity."""
        return float(np.hypot(self.at_middle, self.per_point * (intensity - self.middle)))

    def to_dict(self) -> dict[str, float]:
        """As plain JSON."""
        return asdict(self)


NO_NOISE = ScaleNoise(0.0, 0.0, 0.0)


def scale_noise(evaluator: AnchorEvaluator) -> ScaleNoise:
    """That of a fitted evaluator; none in mode "paper", which learns no scale."""
    if evaluator.mode == "paper":
        return NO_NOISE
    evaluator.check_fitted()
    scale = evaluator.scale_
    ends = np.array([-10.0, 0.0, 10.0])
    low, zero, high = np.square(scale.redraw_stderr(ends)).tolist()
    # A parabola in the intensity: three points tell it.
    curvature = (low + high - 2 * zero) / 200
    if curvature <= 0:
        return ScaleNoise(0.0, zero**0.5, 0.0)
    middle = (low - high) / (40 * curvature)
    least = max(zero - curvature * middle**2, 0.0)
    return ScaleNoise(middle, least**0.5, curvature**0.5)


def prediction_interval(
    curve: DoseCurve, coefficient: float, n_prompts: int, *, noise: ScaleNoise = NO_NOISE
) -> tuple[float, float]:
    """Interval, at the curve's level, for the mean intensity of n new prompts at a coefficient.

    Half widths of three independent errors add in squares: of the curve (bootstrap over the
    calibration prompts), of the draw of new prompts (their standard deviation, interpolated between
    the coefficients measured; t quantiles), and of a scale learned anew.

    Args:
        curve: fitted.
        coefficient: where the new texts are generated.
        n_prompts: how many new prompts, 1 or more, from where the calibration prompts came from.
        noise: of the scale.

    Returns:
        Lower and upper end; NaN outside the usable range, or where no coefficient has two prompts.

    Raises:
        NotFitted: the curve is not fitted.
        InvalidInput: no prompts.
    """
    if n_prompts < 1:
        raise InvalidInput(f"expected one or more new prompts, got {n_prompts}")
    centre = float(curve.predict(coefficient))
    low, high = (float(end) for end in curve.interval(coefficient))
    tail = (1 - curve.level) / 2
    prompts = abs(stdtrit(_freedom(curve), tail)) * _sd(curve, coefficient) / n_prompts**0.5
    scale = abs(ndtri(tail)) * noise.stderr(centre)
    below = float(np.sqrt((centre - low) ** 2 + prompts**2 + scale**2))
    above = float(np.sqrt((high - centre) ** 2 + prompts**2 + scale**2))
    return centre - below, centre + above


def noise_of(measured: dict[str, Any]) -> ScaleNoise:
    """The scale's noise that a card keeps; none if it keeps none."""
    kept = measured.get("scale_noise")
    return NO_NOISE if kept is None else ScaleNoise(**kept)


def _freedom(curve: DoseCurve) -> float:
    return float(max(np.max(curve.counts_) - 1, 1))


def _sd(curve: DoseCurve, coefficient: float) -> float:
    """Spread over prompts there: variances are interpolated linearly."""
    known = np.isfinite(curve.sds_)
    if not known.any():
        return float("nan")
    variances = np.square(curve.sds_[known])
    return float(np.sqrt(np.interp(coefficient, curve.coefficients_[known], variances)))
