"""Where a dose curve stops rising: the turning points of an inverted U, told apart from noise."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from valueflow.dose.families import isotonic


def turning_points(
    coefficients: Float[np.ndarray, " n"],
    means: Float[np.ndarray, " n"],
    counts: NDArray[np.int_],
    replicates: Float[np.ndarray, "replicates n"],
    level: float,
) -> tuple[float | None, float | None]:
    """Where a rising curve turns back: on the way down from 0, and on the way up; None if nowhere.

    Args:
        coefficients: ascending.
        means: of the intensities at each, expected to rise.
        counts: number of prompts at each; a coefficient with one prompt says nothing here.
        replicates: bootstrap replicates of `means`.
        level: probability that a flat curve is found to turn on neither side.
    """
    known = counts >= 2

    def turn(side: NDArray[np.int_], sign: float) -> float | None:
        found = turning_index(
            sign * means[side],
            counts[side],
            sign * replicates[:, side],
            1 - (1 - level) / 2,
        )
        return None if found is None else float(coefficients[side[found]])

    downwards = np.flatnonzero(known & (coefficients <= 0))[::-1]
    return turn(downwards, -1.0), turn(np.flatnonzero(known & (coefficients >= 0)), 1.0)


def turning_index(
    y: Float[np.ndarray, " points"],
    counts: NDArray[np.int_],
    replicates: Float[np.ndarray, "replicates points"],
    level: float,
) -> int | None:
    """Index of the peak of a curve that rises and then falls; None where it only rises.

    The peak is that of the least-squares unimodal fit. It counts where the drop from there to some
    later point, in bootstrap standard errors, exceeds the `level` quantile of the largest drop
    between any two points that noise alone makes of a flat curve: the peak was picked because it
    is high and the later point because it is low, so a pair's own error would not do.

    Args:
        y: means, in the order in which they are expected to rise.
        counts: number of prompts behind each, two or more.
        replicates: bootstrap replicates of `y`.
        level: probability that a flat curve is left alone.

    Notes:
        The quantile is that of known errors; it is moved to Student's t, since errors estimated
        from 16 prompts would let a flat curve turn four times too often. Among equal peaks the
        first counts.
    """
    if len(y) < 2 or np.ptp(y) == 0:
        return None
    earlier, later = np.triu_indices(len(y), 1)
    deviation = replicates - y
    noise = deviation[:, earlier] - deviation[:, later]
    error = np.maximum(noise.std(axis=0), 1e-9 * np.ptp(y))  # rounding is no noise
    critical = np.quantile((noise / error).max(axis=1), level)
    freedom = np.minimum(counts[earlier], counts[later]) - 1
    critical = -stdtrit(freedom, ndtr(-critical)) * np.sqrt((freedom + 1) / freedom)
    beyond = (y[earlier] - y[later]) / error > critical
    if not beyond.any():
        return None
    peak = _unimodal_peak(y[:, None], counts[:, None].astype(float))
    return peak if beyond[earlier == peak].any() else None


def _unimodal_peak(y: NDArray[np.float64], weights: NDArray[np.float64]) -> int:
    fits = [isotonic(y, weights)]
    for split in range(1, len(y)):
        rise = isotonic(y[:split], weights[:split])
        fall = isotonic(y[split:][::-1], weights[split:][::-1])[::-1]
        fits.append(np.concatenate([rise, fall]))
    losses = [(weights * (fit - y) ** 2).sum() for fit in fits]
    return int(fits[int(np.argmin(losses))].argmax())
