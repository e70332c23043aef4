"""Standard errors of many items that met often, bracketed without a dense matrix.

Scaled to a unit diagonal, the information is 1 - W, and W is small where every item met many
others. Each diagonal entry of its inverse is an integral of 1 / (1 - x) over the spectrum of W as
that item weighs it, of which the first two moments are sums over a row: Gauss-Radau quadrature with
a node at either end of the spectrum gives bounds (Golub and Meurant 2010, chapters 6 and 7). The
few largest eigenvalues, which would make them wide, are integrated exactly.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import (
    ArpackNoConvergence,
    LinearOperator,
    aslinearoperator,
    cg,
    eigsh,
)

TOLERANCE = 2e-3
"""Widest bracket that counts, as the largest relative error its middle can have."""

EXACT = 3
"""Eigenvalues that are integrated exactly."""

LARGEST = 0.9
"""Eigenvalue above which 1 / (1 - x) would magnify what Lanczos leaves undecided."""

MARGIN = 1.03
"""Lanczos finds the ends of the spectrum from inside, to 1 %."""


def bracketed_errors(information: sparse.csr_array, ridge: float) -> NDArray[np.float64] | None:
    """Standard errors of mean-zero positions, None where bounds `TOLERANCE` wide cannot be had.

    Deterministic; takes the memory of a few copies of the sparse information.
    """
    diagonal = information.diagonal()
    n = len(diagonal)
    # For mean-zero positions a ridge acts as n comparisons, ridge / n each, with every other item.
    shared = ridge / n
    degree = diagonal + ridge - shared
    scale, null = 1.0 / np.sqrt(degree), np.sqrt(degree / degree.sum())
    scaling = sparse.diags_array(scale)
    met = (scaling @ (sparse.diags_array(degree - ridge) - information) @ scaling).tocsr()
    walk = aslinearoperator(met) + aslinearoperator(
        np.stack([shared * scale, -null], axis=1)
    ) @ aslinearoperator(np.stack([scale, null]))
    squares = met.power(2).sum(axis=1) + shared * scale * (
        2 * (met @ scale) + shared * scale * (scale @ scale)
    )
    ends = _spectrum(walk, n)
    if ends is None:
        return None
    low, top, vectors = ends
    inverse = _radau(low, top, vectors**2, null**2, squares)
    # From the gauge in which `null` is orthogonal to positions to the one with mean zero.
    centred = scale - null * (null @ scale)
    solved, _ = cg(aslinearoperator(sparse.eye_array(n)) - walk, centred, rtol=1e-8)
    shift = scale * (solved - null * (null @ solved))
    variance = inverse * scale**2 - 2 * shift / n + shift.sum() / n**2
    below, above = np.sqrt(np.maximum(variance, 0.0))
    if not ((above - below) <= TOLERANCE * (above + below)).all():
        return None
    return np.sqrt(variance.mean(axis=0))


def _spectrum(walk: LinearOperator, n: int) -> tuple[float, NDArray, NDArray] | None:
    """Lowest eigenvalue, the highest ones in descending order, vectors of all but the last."""
    start = np.cos(np.arange(n) ** 2.0)  # irregular, and the same each time
    lanczos = partial(eigsh, tol=1e-2, v0=start, maxiter=30)  # pyright: ignore[reportArgumentType]
    try:
        low = lanczos(walk, 1, which="SA")[0]
        top, vectors = lanczos(walk, EXACT + 1, which="LA")
    except ArpackNoConvergence:
        return None
    order = np.argsort(-top)
    top, vectors = top[order], vectors[:, order[:-1]]
    if top[0] > LARGEST or not low[0] < 0 < top[-1]:
        return None
    return float(low[0]), top, vectors


def _radau(
    low: float, top: NDArray, weights: NDArray, null: NDArray, squares: NDArray
) -> NDArray[np.float64]:
    """Lower and upper bound of each diagonal entry of the inverse, shape (2, items)."""
    exact = top[:-1]
    mass = np.maximum(1.0 - null - weights.sum(axis=1), 1e-12)
    mean = (-null - weights @ exact) / mass
    ends = np.array([[low], [top[-1]]]) * MARGIN
    mean = np.clip(mean, *(0.999 * ends))
    spread = np.maximum((squares - null - weights @ exact**2) / mass - mean**2, 0.0)
    other = mean + spread / (mean - ends)
    share = (mean - other) / (ends - other)
    rest = mass * (share / (1 - ends) + (1 - share) / (1 - other))
    return weights @ (1 / (1 - exact)) + rest
