"""How well the geometry of an embedding space follows the theories' trees.

The paper's three measures (ranking accuracy, similarity correlation, orthogonality), accuracy of
nearest neighbours and mean distances. All are of the cosine, so rotations do not matter, and none
compares texts of one ladder, which share their topic whatever they value. Trees say nothing of
how values of two theories are related: only texts of one theory are compared, but for
`knn_accuracy`. Where a measure has nothing to go by it is NaN, and absent from `report`.

Every measure is a mean under weights of texts or of pairs; `report` puts the counts of a
bootstrap over ladders in their place.
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives import _measures
from valueflow.hives.space import LabelledSpace

MAX_PAIRS = 200_000
FEWEST_RESAMPLES = 20
RANGES = {"spearman": (-1.0, 1.0), "pearson": (-1.0, 1.0), "distance": (0.0, 2.0)}
"""Of the measures whose names begin so; those of all others are (0, 1)."""


def ranking_accuracy(
    space: LabelledSpace, *, n_draws: int = 5, rng: np.random.Generator
) -> dict[str, float]:
    """Whether texts of values farther off in the tree are farther off in the space.

    Per query text and draw, one text from each bin, nearest to farthest: same value and direction;
    same value, other direction; other value under the same level-2 node; under the same level-1
    node only; under another level-1 node. In the last three any direction. Bins without texts for
    a query are left out (the flat `mft` and `duty` have three, the 7 groups of `right` four), and
    queries that have fewer than two bins.

    Returns:
        "pairs": share of the pairs of drawn texts whose nearer bin has the larger cosine, ties
        counting half; chance is 0.5. "strict": share of draws in the right order throughout, ties
        counting as wrong. "strict_chance": what "strict" would be by chance, 1 / bins! on average.
    """
    return _measures.ranking(_measures.ranking_draws(space, n_draws, rng), np.ones(len(space)))


def similarity_correlation(
    space: LabelledSpace, *, max_pairs: int = MAX_PAIRS, rng: np.random.Generator
) -> dict[str, float]:
    """Correlation of cosine with shared levels, plus 0.5 where the direction is the same.

    Over all pairs of texts of one theory and different ladders, or `max_pairs` drawn ones if there
    are more.

    Returns:
        "spearman" (mid-ranks for ties) and "pearson".
    """
    pairs = _measures.text_pairs(space, max_pairs, rng)
    return _measures.correlations(pairs, np.ones(len(pairs.i)))


def level_distances(
    space: LabelledSpace, *, max_pairs: int = MAX_PAIRS, rng: np.random.Generator
) -> dict[str, float]:
    """Mean cosine distance (0 to 2) by number of shared levels and by direction.

    Returns:
        "shared_2_same": pairs that share two levels and the direction; "shared_2_other": two
        levels but not the direction; and so on, for what occurs in the pairs of
        `similarity_correlation`.
    """
    pairs = _measures.text_pairs(space, max_pairs, rng)
    return _measures.distances(pairs, np.ones(len(pairs.i)))


def value_vectors(space: LabelledSpace) -> dict[str, Float[np.ndarray, " width"]]:
    """Per value the mean supporting minus the mean opposing embedding, at unit length.

    Values with texts of one direction alone, or whose two means coincide, are left out.
    """
    return _measures.vectors(space, np.ones(len(space)))


def orthogonality(space: LabelledSpace) -> float:
    """1 - mean |cosine| between the value vectors of a theory, over its pairs of values; 0 to 1.

    The paper reports orthogonality without a formula; this one is 1 where all value vectors are at
    right angles and 0 where all lie on one line. Opposites on the circle (at -1 in an ideal space)
    count as not orthogonal. In a space of several theories all pairs of one theory count the same.
    Noise in the means makes vectors look more orthogonal: compare encoders on the same texts.
    NaN with fewer than two vectors.
    """
    return _measures.mean_orthogonality(space, np.ones(len(space)))


def knn_accuracy(space: LabelledSpace, *, k: int = 10) -> dict[str, float]:
    """How often a text's nearest neighbours tell its value's node at each level, and its direction.

    The `k` nearest texts of other ladders vote, each for all its nodes at the level; equal numbers
    of votes go to the side of the nearest. A vote that two nodes win together, as both are above
    the same neighbours, is right if either is the text's.

    Returns:
        "level_1", "level_2", ... (over texts whose value reaches down to the level), "direction".
    """
    one = np.ones((1, len(space)))
    return {n: float(_weighted(x, one)[0]) for n, x in _measures.knn_terms(space, k).items()}


def report(
    space: LabelledSpace,
    *,
    n_draws: int = 5,
    k: int = 10,
    max_pairs: int = MAX_PAIRS,
    n_bootstrap: int = 200,
    level: float = 0.95,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Every measure with its interval, per theory and overall; plain JSON.

    Ladders are resampled within each value. An interval is the estimate plus and minus a normal
    quantile times the standard deviation of the resamples, cut to the measure's range. All
    texts of a pair or draw are resampled; but the neighbours of `knn_accuracy` stay as they are,
    so that its intervals are a little narrow. Overall is the mean over the theories that
    have the measure, each counting the same.

    Returns:
        "theories": {theory: {measure: {"estimate", "stderr", "low", "high"}}}, "overall": the
        same for all, and the sizes. Measures: "ranking_pairs", "ranking_strict",
        "ranking_strict_chance", "spearman", "pearson", "orthogonality",
        "distance_shared_0_same" ..., "knn_level_1" ..., "knn_direction". An interval that too few
        resamples could tell is None.

    Raises:
        InvalidInput: fewer than 20 resamples, or a level outside (0, 1).
    """
    if n_bootstrap < FEWEST_RESAMPLES or not 0 < level < 1:
        raise InvalidInput(
            f"expected {FEWEST_RESAMPLES} or more resamples and a level between 0 and 1, "
            f"got {n_bootstrap} and {level}"
        )
    found = {}
    for theory in space.theories:
        own = space.of(theory)
        weights = np.vstack([np.ones(len(own)), _resamples(own, n_bootstrap, rng)])
        draws = _measures.ranking_draws(own, n_draws, rng)
        pairs = _measures.text_pairs(own, max_pairs, rng)
        found[theory] = {
            **_row_by_row(own, draws, pairs, weights),
            **_knn_means(_measures.knn_terms(own, k), weights),
        }
    names = dict.fromkeys(name for rows in found.values() for name in rows)
    overall = {n: np.mean([r[n] for r in found.values() if n in r], axis=0) for n in names}
    return {
        "theories": {theory: _summaries(rows, level) for theory, rows in found.items()},
        "overall": _summaries(overall, level),
        "n_texts": len(space),
        "n_ladders": len(set(space.ladders)),
        "n_bootstrap": n_bootstrap,
        "level": level,
    }


def _resamples(
    space: LabelledSpace, n: int, rng: np.random.Generator
) -> Float[np.ndarray, "resamples texts"]:
    """How often each text is drawn, ladders being drawn within their value."""
    counts = np.empty((n, len(space)))
    for code in range(len(space.names)):
        rows = np.flatnonzero(space.codes == code)
        ladders, place = np.unique(space.ladder_codes[rows], return_inverse=True)
        even = np.full(len(ladders), 1 / len(ladders))
        counts[:, rows] = rng.multinomial(len(ladders), even, size=n)[:, place]
    return counts


def _knn_means(terms: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    found = {f"knn_{name}": _weighted(x, weights) for name, x in terms.items()}
    return {name: rows for name, rows in found.items() if np.isfinite(rows[0])}


def _weighted(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of what is known of `x` under each row of weights; NaN where nothing is."""
    known = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return weights[:, known] @ x[known] / weights[:, known].sum(axis=1)


def _row_by_row(
    space: LabelledSpace, draws: _measures.Draws, pairs: _measures.Pairs, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """The measures of draws, pairs and value vectors under each row of weights of texts."""
    rows = []
    for row in weights:
        of_pairs = row[pairs.i] * row[pairs.j]
        order = _measures.ranking(draws, row)
        apart = _measures.distances(pairs, of_pairs)
        rows.append(
            {
                **{f"ranking_{name}": share for name, share in order.items()},
                **_measures.correlations(pairs, of_pairs),
                "orthogonality": _measures.mean_orthogonality(space, row),
                **{f"distance_{name}": mean for name, mean in apart.items()},
            }
        )
    known = [name for name, estimate in rows[0].items() if np.isfinite(estimate)]
    return {name: np.array([row[name] for row in rows]) for name in known}


def _summaries(found: Mapping[str, np.ndarray], level: float) -> dict[str, dict[str, float]]:
    """First entries are the estimates, the others their resamples."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    summaries = {}
    for name, rows in found.items():
        estimate, resamples = float(rows[0]), rows[1:][np.isfinite(rows[1:])]
        # Too few where most resamples lack what is measured: no interval rather than a wrong one.
        enough = len(resamples) >= max(2, len(rows) // 2)
        low, high = RANGES.get(name.partition("_")[0], (0.0, 1.0))
        stderr = float(resamples.std(ddof=1)) if enough else None
        summaries[name] = {
            "estimate": estimate,
            "stderr": stderr,
            "low": None if stderr is None else max(low, estimate - z * stderr),
            "high": None if stderr is None else min(high, estimate + z * stderr),
        }
    return summaries
