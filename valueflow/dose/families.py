"""Families of dose curves: curves that may only rise, fitted to mean intensities.

Every fit here takes the points as columns, `y` and `weights` of shape (points, curves), and returns
one callable for all columns: coefficients (k,) -> intensities (k, curves). So the estimate and its
bootstrap replicates go through the same code, at once. A falling curve is fitted as minus a rising
one by the caller.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.optimize import least_squares
from scipy.special import expit

from valueflow.errors import InvalidInput

Curves = Callable[[NDArray[np.float64]], NDArray[np.float64]]

LOGISTIC_POINTS = 4
"""Fewest points for the four parameters of the logistic."""

# Lower asymptote, height, steepness, midpoint; in units of the observed range of both axes. Wide
# enough for half a sigmoid and for a straight line, narrow enough that neither runs to infinity.
_BOUNDS = np.array([[-5.0, 0.0, 0.1, -1.0], [2.0, 10.0, 60.0, 2.0]])
_STEPS = 40
_STARTS = ([0.0, 1.0, 4.0, 0.3], [0.0, 1.0, 4.0, 0.7], [0.0, 1.0, 15.0, 0.5], [-1.5, 4.0, 1.0, 0.5])


def isotonic(
    y: Float[np.ndarray, "points curves"], weights: Float[np.ndarray, "points curves"]
) -> Float[np.ndarray, "points curves"]:
    """Weighted least-squares nondecreasing fit of each column.

    Args:
        y: values, in the order of their coefficients.
        weights: positive weights.

    Notes:
        The max-min formula, max over starts of min over ends of the block mean (Barlow et al.,
        Statistical Inference under Order Restrictions, 1972): points**2 * curves numbers in
        memory, no loop. Members of a pooled block get the very same number.
    """
    n = len(y)
    zero = np.zeros((1, y.shape[1]))
    total = np.concatenate([zero, np.cumsum(weights, axis=0)])
    weighted = np.concatenate([zero, np.cumsum(y * weights, axis=0)])
    block = np.full((n, n, y.shape[1]), -np.inf)  # [start, end] of each block, both included
    start, end = np.triu_indices(n)
    block[start, end] = (weighted[end + 1] - weighted[start]) / (total[end + 1] - total[start])
    lowest = np.minimum.accumulate(block[:, ::-1], axis=1)[:, ::-1]
    return lowest.max(axis=0)


def fit_pchip(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, "points curves"],
    weights: Float[np.ndarray, "points curves"],
) -> Curves:
    """Monotone cubic interpolation (PCHIP) of the isotonic means.

    Args:
        x: coefficients, strictly increasing; a single one gives a constant.
        y: means at these coefficients.
        weights: positive, e.g. the number of texts behind each mean.

    Notes:
        Exactly flat over a pooled block, rising elsewhere, never beyond its points' values (Fritsch
        & Carlson, SIAM J. Numer. Anal. 17, 1980).
    """
    knots = isotonic(y, weights)
    if len(x) == 1:
        x, knots = np.array([x[0], x[0] + 1.0]), np.repeat(knots, 2, axis=0)
    return PchipInterpolator(x, knots, axis=0)


def fit_logistic(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, "points curves"],
    weights: Float[np.ndarray, "points curves"],
) -> Curves:
    """Least-squares rising 4-parameter logistic of each column.

    `lower + height / (1 + exp(-steepness * (x - midpoint)))`, height >= 0, bounded relative to the
    observed range of x and of the first column. The first column is fitted from several starts, the
    others (its bootstrap replicates) from the first one's solution.

    Args:
        x: coefficients, strictly increasing, `LOGISTIC_POINTS` or more.
        y: means at these coefficients.
        weights: positive, e.g. the number of texts behind each mean.

    Raises:
        InvalidInput: fewer points.
    """
    if len(x) < LOGISTIC_POINTS:
        raise InvalidInput(
            f"the logistic needs {LOGISTIC_POINTS} coefficients in the usable range, got {len(x)}: "
            "measure smaller ones or use family='pchip'"
        )
    width, bottom, height = np.ptp(x), y[:, 0].min(), np.ptp(y[:, 0]) or 1.0
    u, v = (x - x[0]) / width, ((y - bottom) / height).T
    root = np.sqrt(weights / weights.mean(axis=0)).T

    repeat = [0] * len(_STARTS)
    roughly, loss = _descend(np.transpose(_STARTS), u, v[repeat], root[repeat])
    best = least_squares(
        lambda p: root[0] * (_logistic(p, u) - v[0]),
        roughly[:, loss.argmin()],
        # Scipy has no types, so that its default, a string, is taken for all that may be given.
        jac=cast(Any, lambda p: root[0][:, None] * _logistic_gradient(p, u)),
        bounds=_BOUNDS,
    ).x[:, None]
    others, _ = _descend(np.repeat(best, len(v) - 1, axis=1), u, v[1:], root[1:])
    lower, rise, steepness, midpoint = np.hstack([best, others])
    parameters = np.stack(
        [lower * height + bottom, rise * height, steepness / width, midpoint * width + x[0]]
    )
    return partial(_logistic_columns, parameters)


def _descend(
    p: NDArray[np.float64],
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    root: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least squares within the bounds for each row of `v`, from a column of `p`; and the losses.

    Levenberg-Marquardt on all rows at once, with parameters held while at a bound and pushed
    against it (Bertsekas, SIAM J. Control Optim. 20, 1982): one solver call per row would take
    many times as long.
    """
    low, high = _BOUNDS[:, :, None]
    damping = np.full(len(v), 1e-3)
    residual = lambda p: root * (_logistic(p[..., None], u) - v)
    loss = (residual(p) ** 2).sum(axis=1)
    for _ in range(_STEPS):
        gradient = root[..., None] * _logistic_gradient(p[..., None], u)
        slope = np.einsum("bni,bn->bi", gradient, residual(p))
        free = ~(((p <= low) & (slope.T > 0)) | ((p >= high) & (slope.T < 0))).T
        gradient = gradient * free[:, None, :]
        normal = np.einsum("bni,bnj->bij", gradient, gradient)
        diagonal = np.einsum("bii->bi", normal)  # a view: what is added lands in `normal`
        diagonal += damping[:, None] * diagonal + 1e-12 + ~free
        step = np.linalg.solve(normal, (slope * free)[..., None])[..., 0].T
        trial = np.clip(p - step, low, high)
        if np.abs(trial - p).max(initial=0.0) < 1e-7:
            break
        trial_loss = (residual(trial) ** 2).sum(axis=1)
        better = trial_loss < loss
        p, loss = np.where(better, trial, p), np.where(better, trial_loss, loss)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-9, 1e9)
    return p, loss


def _logistic(p: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return p[0] + p[1] * expit(p[2] * (x - p[3]))


def _logistic_gradient(p: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    share = expit(p[2] * (x - p[3]))
    slope = p[1] * share * (1 - share)
    return np.stack([np.ones_like(share), share, slope * (x - p[3]), -slope * p[2]], axis=-1)


def _logistic_columns(
    parameters: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    return _logistic(parameters, x[:, None])


FAMILIES: dict[str, Callable[..., Curves]] = {"pchip": fit_pchip, "logistic": fit_logistic}


def cross_validated_errors(
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    weights: Float[np.ndarray, " points"],
) -> dict[str, float]:
    """Error of each family at left-out points, in units of y; empty below five points.

    Every interior point is predicted by the curve fitted without it; weighted root mean square.
    """
    if len(x) <= LOGISTIC_POINTS:
        return {}
    errors: dict[str, list[float]] = {name: [] for name in FAMILIES}
    for i in range(1, len(x) - 1):
        rest = np.arange(len(x)) != i
        for name, fit in FAMILIES.items():
            curve = fit(x[rest], y[rest, None], weights[rest, None])
            errors[name].append(curve(x[i : i + 1])[0, 0] - y[i])
    return {
        name: float(np.sqrt(np.average(np.square(e), weights=weights[1:-1])))
        for name, e in errors.items()
    }
