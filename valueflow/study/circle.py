"""Whether the basic values of a space lie in the circle that their theory says."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.theories import get_theory, get_value, steered_values

FEWEST_ON_CIRCLE = 4
DECIMALS = 6
"""Of cosines: what agrees so far is a tie, so that turning the space does not order it."""


@dataclass(frozen=True)
class CircularOrder:
    """How far a space keeps the circle of the basic values; made by `circular_order`.

    Attributes:
        statistic: Spearman correlation, -1 to 1; NaN if all angles are equal.
        p: share of rearrangements at least as circular, above 0, at most 1.
        n: values on the circle that had a vector.
    """

    statistic: float
    p: float
    n: int


def circular_order(
    vectors: Mapping[str, Float[np.ndarray, " width"]], *, n_permutations: int = 9999, seed: int
) -> CircularOrder:
    """Whether values near each other on the circle of `svt` have a small angle in the space.

    The statistic is the Spearman correlation (mid-ranks for ties), over all pairs of values on
    the circle, of the steps between them the shorter way round (1 to 6) and the angle between
    their vectors. It is 1 for evenly spaced vectors in order; 1 also for any space whose angles
    only grow with the steps, so a circle is not proven round. The theory gives each of the twelve
    steered values one place of its own, also those with two parents (hedonism, face, humility);
    missing ones leave a gap. Other theories have no circle: their vectors do not count.

    The p-value is of a one-sided permutation test: vectors are dealt anew to the places, and
    p = (1 + deals with at least this statistic) / (1 + deals). Turning or mirroring the circle
    changes nothing, so few values cannot have a small p: four that are evenly
    spaced have 1/3 at best.

    Args:
        vectors: by value id, of one width; their lengths do not count.
        n_permutations: deals, 1 or more.
        seed: of the deals.

    Raises:
        InvalidInput: fewer than 4 values on the circle, no permutations, what
            `unit_vectors` refuses.
        UnknownName: a value that no theory has.
    """
    from scipy.stats import rankdata  # half a second to import

    ids, rows = unit_vectors(vectors)
    theory = get_theory("svt")
    on = [i for i, value in enumerate(ids) if value in (theory.circle or ())]
    if len(on) < FEWEST_ON_CIRCLE or n_permutations < 1:
        raise InvalidInput(
            f"expected vectors of {FEWEST_ON_CIRCLE} or more values of svt and 1 or more "
            f"permutations, got {len(on)} and {n_permutations}"
        )
    first, second = np.triu_indices(len(on), k=1)
    steps = np.array([[theory.circle_distance(ids[a], ids[b]) for b in on] for a in on])
    near = np.round((rows[on] @ rows[on].T)[first, second], DECIMALS)
    angles = _standard(rankdata(-near))
    places = np.zeros((len(on), len(on)))
    places[first, second] = _standard(rankdata(steps[first, second]))
    places += places.T
    if not angles.any():
        return CircularOrder(float("nan"), 1.0, len(on))
    rng = np.random.default_rng(seed)
    deals = rng.permuted(np.tile(np.arange(len(on)), (n_permutations, 1)), axis=1)
    statistic = float(places[first, second] @ angles)
    dealt = places[deals[:, first], deals[:, second]] @ angles
    # Deals that only turn the circle must count, whatever the order of their sums.
    as_good = int(np.count_nonzero(dealt >= statistic - 1e-9))
    return CircularOrder(statistic, (1 + as_good) / (1 + n_permutations), len(on))


def unit_vectors(
    vectors: Mapping[str, Float[np.ndarray, " width"]],
) -> tuple[list[str], Float[np.ndarray, "values width"]]:
    """Ids in the order of `steered_values`, and their vectors at unit length.

    Raises:
        InvalidInput: fewer than two values, a value that is not steered or not named by its id, a
            vector that is zero, not finite, not one-dimensional or of another width.
        UnknownName: a value that no theory has.
    """
    known = [value.id for value in steered_values()]
    for name in vectors:
        if name not in known:
            value = get_value(name)
            raise InvalidInput(f"expected ids of steered values, got {name!r} (it is {value.id})")
    ids = [value for value in known if value in vectors]
    if len(ids) < 2:
        raise InvalidInput(f"expected vectors of two or more values, got {len(ids)}")
    rows = [np.asarray(vectors[value], dtype=np.float64) for value in ids]
    for value, row in zip(ids, rows, strict=True):
        length = np.linalg.norm(row)
        if row.shape != rows[0].shape or row.ndim != 1:
            raise InvalidInput(
                f"expected vectors of one width, got shape {rows[0].shape} of {ids[0]} "
                f"and {row.shape} of {value}"
            )
        if not (np.isfinite(length) and length > 0):
            raise InvalidInput(f"the vector of {value} is zero or not finite; leave it out")
    stacked = np.stack(rows)
    return ids, stacked / np.linalg.norm(stacked, axis=1, keepdims=True)


def _standard(ranks: np.ndarray) -> np.ndarray:
    """Less their mean and at unit length, so that products are correlations; zeros if all tie."""
    centred = ranks - ranks.mean()
    return centred / (np.linalg.norm(centred) or 1.0)
