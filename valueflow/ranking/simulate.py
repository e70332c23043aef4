"""Rankings drawn from a Plackett-Luce model whose truth is known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from valueflow.typing import Ranking


def simulate_rankings(
    theta: Sequence[float] | NDArray[np.float64],
    windows: Sequence[Sequence[int]],
    *,
    rng: np.random.Generator,
) -> list[Ranking]:
    """One Plackett-Luce ranking of each window of item indices, best first.

    The order of theta + standard Gumbel noise is a Plackett-Luce draw (Yellott 1977).
    """
    values = np.asarray(theta, dtype=np.float64)
    rankings = []
    for window in windows:
        noisy = values[list(window)] + rng.gumbel(size=len(window))
        rankings.append(tuple(int(window[i]) for i in np.argsort(-noisy)))
    return rankings
