"""The measured points of a dose curve: checked, resampled, and the range where they are of use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from valueflow.errors import InvalidInput

Numbers = float | int | Sequence | np.ndarray
"""What numpy can make an array of numbers of; numpy's own ArrayLike is no type for a checker."""

FEWEST_COEFFICIENTS = 4
FEWEST_PROMPTS = 2


@dataclass(frozen=True)
class Points:
    """What a sweep measured, in an order that depends on nothing but the data.

    Attributes:
        coefficients: ascending, shape (coefficients,).
        intensities: shape (coefficients, prompts), NaN where missing.
        damage: nats per token above unsteered, same shape, NaN where missing; None if unmeasured.
    """

    coefficients: Float[np.ndarray, " coefficients"]
    intensities: Float[np.ndarray, "coefficients prompts"]
    damage: Float[np.ndarray, "coefficients prompts"] | None

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which coefficients have any intensity."""
        return np.asarray(~np.isnan(self.intensities).all(axis=1))

    @property
    def complete(self) -> Float[np.ndarray, "measured answered"]:
        """The intensities without the coefficients and prompts that have none."""
        rows = self.intensities[self.measured]
        return np.ascontiguousarray(rows[:, ~np.isnan(rows).all(axis=0)])

    def as_lists(self) -> dict[str, list | None]:
        """The fields by name as JSON types, null for NaN."""

        def rows(matrix: NDArray[np.float64]) -> list[list[float | None]]:
            return [[None if np.isnan(x) else x for x in row] for row in matrix.tolist()]

        return {
            "coefficients": self.coefficients.tolist(),
            "intensities": rows(self.intensities),
            "damage": None if self.damage is None else rows(self.damage),
        }


def validated(coefficients: Numbers, intensities: Numbers, damage: Numbers | None) -> Points:
    """Check a sweep and put it in order: coefficients ascending, prompts sorted by their numbers.

    Args:
        coefficients: four or more distinct, finite ones with intensities, none or some of them
            negative, 0 not outside them.
        intensities: shape (coefficients, prompts), two or more prompts with intensities.
        damage: same shape, or None.

    Raises:
        InvalidInput: an argument is not so.
    """
    c = _numbers("coefficients", coefficients)
    if c.ndim != 1 or not np.isfinite(c).all():
        raise InvalidInput(f"coefficients: expected a finite vector, got shape {c.shape}: {c}")
    y = _matrix("intensities", intensities, len(c))
    d = None if damage is None else _matrix("damage", damage, len(c))
    if d is not None and d.shape != y.shape:
        raise InvalidInput(f"damage: expected shape {y.shape} like intensities, got {d.shape}")
    if d is not None and np.isnan(d).all():
        raise InvalidInput("damage: all is NaN; pass damage=None where none was measured")
    ascending = np.argsort(c)
    c, y = c[ascending], y[ascending]
    d = None if d is None else d[ascending]
    # Resampling draws prompts by index: an order of their own makes it blind to the caller's.
    prompts = np.lexsort(y if d is None else np.vstack([d, y]))
    points = Points(c, y[:, prompts], None if d is None else d[:, prompts])
    _check_measured(points)
    return points


def _numbers(name: str, data: Numbers) -> NDArray[np.float64]:
    try:
        return np.array(data, dtype=float, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: expected an array of numbers, got {error}") from error


def _matrix(name: str, data: Numbers, rows: int) -> NDArray[np.float64]:
    matrix = _numbers(name, data)
    if matrix.ndim != 2 or len(matrix) != rows:
        raise InvalidInput(
            f"{name}: expected shape (coefficients, prompts) with {rows} coefficients, "
            f"got {matrix.shape}"
        )
    if np.isinf(matrix).any():
        raise InvalidInput(f"{name}: infinite values; a measurement that failed is NaN")
    return matrix


def _check_measured(points: Points) -> None:
    c = points.coefficients[points.measured]
    if len(c) < FEWEST_COEFFICIENTS:
        raise InvalidInput(
            f"expected {FEWEST_COEFFICIENTS} or more coefficients with intensities, got {len(c)}"
        )
    # Steeper than any curve: two coefficients this close are one, written twice.
    every = points.coefficients
    twice = every[1:][np.diff(every) <= 1e-9 * np.ptp(every)]
    if len(twice):
        raise InvalidInput(
            f"coefficient {twice[0]:g} occurs twice; join its measurements as prompts of one row"
        )
    if not c[0] <= 0 <= c[-1]:
        raise InvalidInput(
            f"expected coefficients on both sides of 0 or including it, got {c[0]:g} to {c[-1]:g}"
        )
    prompts = points.complete.shape[1]
    if prompts < FEWEST_PROMPTS:
        raise InvalidInput(
            f"expected {FEWEST_PROMPTS} or more prompts with intensities, got {prompts}: "
            "prompts are what the bootstrap draws"
        )


def resampled_means(
    intensities: Float[np.ndarray, "coefficients prompts"], n_bootstrap: int, seed: int
) -> tuple[
    Float[np.ndarray, "replicates coefficients"], Float[np.ndarray, "replicates coefficients"]
]:
    """Means of each coefficient over resampled prompts, and the number of prompts behind each.

    A prompt is drawn with all its coefficients. A resample that misses a coefficient altogether
    takes its plain mean, with count 1.
    """
    measured = ~np.isnan(intensities)
    n_prompts = intensities.shape[1]
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_bootstrap)
    draws = draws.astype(float)
    counts = draws @ measured.T.astype(float)
    means = draws @ np.where(measured, intensities, 0.0).T / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nanmean(intensities, axis=1)), np.maximum(counts, 1)


def expanded_tail(level: float, n_prompts: int) -> float:
    """Share of replicates to leave out on either side of an interval of coverage `level`.

    Plain percentiles, (1 - level) / 2, are too narrow for few prompts, as if the variance were
    known and divided by n instead of n - 1; the expanded percentiles mend both (Hesterberg, The
    American Statistician 69, 2015). Simulated at level 0.95, the interval of a curve covers the
    truth in 91% of sweeps of 8 prompts, 93% at 16, 95% at 40.
    """
    quantile = stdtrit(n_prompts - 1, (1 - level) / 2)
    return float(ndtr(quantile * np.sqrt(n_prompts / (n_prompts - 1))))


def safe_range(points: Points, damage_limit: float) -> tuple[float, float]:
    """Ends of the widest interval around 0, within the measured coefficients, of bearable damage.

    Mean damage is interpolated linearly; it is 0 at coefficient 0 where not measured there, and
    unbearable beyond the outermost coefficients at which it is known.

    Raises:
        InvalidInput: measured damage at coefficient 0 is above the limit.
    """
    c = points.coefficients[points.measured]
    if points.damage is None:
        return float(c[0]), float(c[-1])
    known = ~np.isnan(points.damage).all(axis=1)
    x, d = points.coefficients[known], np.nanmean(points.damage[known], axis=1)
    if 0 not in x:
        at = np.searchsorted(x, 0.0)
        x, d = np.insert(x, at, 0.0), np.insert(d, at, 0.0)
    zero = int(np.searchsorted(x, 0.0))
    if d[zero] > damage_limit:
        raise InvalidInput(
            f"damage at coefficient 0 is {d[zero]:.3g}, above the limit of {damage_limit:g}: "
            "expected damage relative to the unsteered text"
        )
    lower = 0.0 - _first_crossing(-x[zero::-1], d[zero::-1], damage_limit)
    upper = _first_crossing(x[zero:], d[zero:], damage_limit)
    return max(lower, float(c[0])), min(upper, float(c[-1]))


def _first_crossing(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    above = np.flatnonzero(y > limit)
    if not len(above):
        return float(x[-1])
    j = above[0]
    share = (limit - y[j - 1]) / (y[j] - y[j - 1])
    return float(x[j - 1] + share * (x[j] - x[j - 1]))


def adjoining(coefficients: Float[np.ndarray, " n"], ends: tuple[float, float]) -> slice:
    """The coefficients in a range, and the next one where an end lies between two of them."""
    first = int(np.searchsorted(coefficients, ends[0], side="right")) - 1
    return slice(first, int(np.searchsorted(coefficients, ends[1], side="left")) + 1)


def rises(
    coefficients: Float[np.ndarray, " n"], means: Float[np.ndarray, " n"], counts: NDArray[np.int_]
) -> bool:
    """Whether the least-squares line through the means rises or is level."""
    centred = coefficients - np.average(coefficients, weights=counts)
    return bool((counts * centred) @ means >= 0)
