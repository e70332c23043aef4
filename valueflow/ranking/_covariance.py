"""Standard errors from an information matrix that may be too large to invert carelessly."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import get_lapack_funcs

from valueflow.ranking._quadrature import bracketed_errors

LARGE = 4000
"""Items above which less than double precision will do, where that is known to suffice."""

SINGLE_CONDITION = 1e-4
"""Smallest reciprocal condition number (1-norm) at which single precision is trusted."""


def standard_errors(information: sparse.csr_array, ridge: float) -> NDArray[np.float64]:
    """Standard errors of mean-zero positions, from their sparse information without the ridge.

    Up to `LARGE` items exact to rounding: dense, in double precision. Above, the first of these
    that holds: the middle of bounds at most 0.2 % away (all items met many others; the memory of
    the sparse matrix), dense in single precision, good to 0.1 % (4 n^2 bytes), dense in double
    precision (8 n^2 bytes). inf where that cannot tell the matrix from a singular one.
    """
    if len(information.diagonal()) > LARGE:
        errors = bracketed_errors(information, ridge)
        if errors is not None:
            return errors
    return _dense_errors(information, ridge)


def _dense_errors(information: sparse.csr_array, ridge: float) -> NDArray[np.float64]:
    diagonal = information.diagonal() + ridge
    n = len(diagonal)
    # Shifting all positions changes no ranking: adding that null direction makes the matrix
    # invertible, taking it out again leaves the covariance of mean-zero positions. Any weight
    # would do; this one is in proportion to the rest.
    weight = float(diagonal.mean())
    scale = 1.0 / np.sqrt(diagonal + weight / n)
    inverse = None
    if n > LARGE:
        inverse = _inverse_diagonal(information, weight / n, scale.astype(np.float32))
    if inverse is None:
        inverse = _inverse_diagonal(information, weight / n, scale)
    if inverse is None:
        return np.full(n, np.inf)
    variance = inverse * scale**2 - 1.0 / (n * (ridge + weight))
    return np.sqrt(np.maximum(variance, 0.0))


def _inverse_diagonal(
    information: sparse.csr_array, shift: float, scale: NDArray
) -> NDArray[np.float64] | None:
    """Diagonal of the inverse of information + shift, scaled to a unit diagonal.

    Computed in the precision of `scale`; None where the matrix is too near a singular one for it.
    """
    matrix = _scaled(information, shift, scale)
    factorise, invert, condition = get_lapack_funcs(("potrf", "trtri", "pocon"), (matrix,))
    norm = max(float(np.abs(column).sum()) for column in matrix.T)
    matrix, failed = factorise(matrix, lower=1, clean=0, overwrite_a=1)
    if failed:
        return None
    if matrix.dtype == np.float32 and condition(matrix, norm, uplo="L")[0] < SINGLE_CONDITION:
        return None
    matrix, failed = invert(matrix, lower=1, overwrite_c=1)
    # With A = L L' the diagonal of A^-1 is the squared length of the columns of L^-1.
    columns = enumerate(matrix.T)
    return np.array([np.square(c[j:], dtype=np.float64).sum() for j, c in columns])


def _scaled(information: sparse.csr_array, shift: float, scale: NDArray) -> NDArray:
    """The dense matrix in column order, so that LAPACK works in place."""
    matrix = np.multiply.outer(scale, scale * scale.dtype.type(shift)).T
    entries = information.tocoo()
    row, column = entries.coords
    matrix[row, column] += (entries.data * scale[row] * scale[column]).astype(scale.dtype)
    np.fill_diagonal(matrix, 1.0)
    return matrix
