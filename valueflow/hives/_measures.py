"""The sums behind `valueflow.hives.metrics`: measures under weights of texts or of pairs."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from valueflow.errors import InvalidInput
from valueflow.hives.space import LabelledSpace, level_members
from valueflow.theories.levels import levels_of

N_BINS = 5
_CHUNK = 4096
_DECIMALS = 12
"""Cosines closer than this are equal: rounding must neither make nor break a tie."""


class Pairs(NamedTuple):
    """Two texts of one theory and different ladders, and how alike they are and should be."""

    i: Int[np.ndarray, " pairs"]
    j: Int[np.ndarray, " pairs"]
    cosine: Float[np.ndarray, " pairs"]
    shared: Int[np.ndarray, " pairs"]
    same: Bool[np.ndarray, " pairs"]
    cosine_group: Int[np.ndarray, " pairs"]
    target_group: Int[np.ndarray, " pairs"]

    @property
    def target(self) -> Float[np.ndarray, " pairs"]:
        """Shared levels, plus 0.5 for the same direction."""
        return self.shared + 0.5 * self.same


class Draws(NamedTuple):
    """Queries and a text from each bin, nearest bin first; -1 and NaN where a query has no bin."""

    query: Int[np.ndarray, " draws"]
    drawn: Int[np.ndarray, "draws bins"]
    cosine: Float[np.ndarray, "draws bins"]


def ranking_draws(space: LabelledSpace, n_draws: int, rng: np.random.Generator) -> Draws:
    """`n_draws` for each text that has two bins or more."""
    if n_draws < 1:
        raise InvalidInput(f"expected one draw per query or more, got n_draws={n_draws}")
    shared = space.shared
    # Among other values: level 2 or deeper, level 1, none; own value is split by direction below.
    bin_of = np.select([shared >= 2, shared == 1, shared == 0], [2, 3, 4], default=-1)
    np.fill_diagonal(bin_of, 0)
    drawn = np.full((len(space), n_draws, N_BINS), -1)
    for q in range(len(space)):
        kind = bin_of[space.codes[q], space.codes]
        kind[(kind == 0) & (space.directions != space.directions[q])] = 1
        kind[space.ladder_codes == space.ladder_codes[q]] = -1
        for b in range(N_BINS):
            rows = np.flatnonzero(kind == b)
            if len(rows):
                drawn[q, :, b] = rows[rng.integers(len(rows), size=n_draws)]
    cosine = np.full(drawn.shape, np.nan)
    for q in range(len(space)):
        cosine[q] = (space.embeddings[drawn[q]] @ space.embeddings[q]).round(_DECIMALS)
    cosine[drawn < 0] = np.nan
    query = np.repeat(np.arange(len(space)), n_draws)
    flat, cosine = drawn.reshape(-1, N_BINS), cosine.reshape(-1, N_BINS)
    kept = (flat >= 0).sum(axis=1) > 1
    return Draws(query[kept], flat[kept], cosine[kept])


def ranking(draws: Draws, weights: np.ndarray) -> dict[str, float]:
    """Shares of pairs and of draws in order, under weights of texts whose mean is 1.

    A draw's weight is linear in those of its texts: their product would multiply the noise of
    having drawn few of the many possible draws.
    """
    near, far = np.triu_indices(N_BINS, k=1)
    gap = draws.cosine[:, near] - draws.cosine[:, far]
    known = np.isfinite(gap)
    right = np.where(known, (gap > 0) + 0.5 * (gap == 0), 0.0)
    more = np.where(draws.drawn >= 0, weights[draws.drawn] - 1, 0.0)
    own = weights[draws.query]
    of_pairs = known * (own[:, None] + more[:, near] + more[:, far]) / known.sum(axis=1)[:, None]
    of_draws = own + more.sum(axis=1)
    n_bins = (draws.drawn >= 0).sum(axis=1)
    chance = 1 / np.array([math.factorial(n) for n in range(N_BINS + 1)])[n_bins]
    strict = np.all((gap > 0) | ~known, axis=1)
    return {
        "pairs": _mean(right, of_pairs),
        "strict": _mean(strict, of_draws),
        "strict_chance": _mean(chance, of_draws),
    }


def _mean(x: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float((weights * x).sum() / total) if total else math.nan


def knn_terms(space: LabelledSpace, k: int) -> dict[str, np.ndarray]:
    """Per query whether the vote is right, at each level; NaN where it has no such level."""
    if k < 1:
        raise InvalidInput(f"expected one neighbour or more, got k={k}")
    near, votes = _neighbours(space, k)
    terms = {}
    for level in range(1, max(len(levels_of(name)) for name in space.names) + 1):
        labels = level_members(space.names, level)[space.codes]
        terms[f"level_{level}"] = _vote(labels, near, votes)
    terms["direction"] = _vote(space.directions[:, None] == (-1, 1), near, votes)
    return terms


def _neighbours(space: LabelledSpace, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest texts of other ladders, nearest first, and their votes (0 where there is none).

    Votes are a little over 1, by powers of two: no tie is left, and no majority overturned.
    """
    k = min(k, len(space))
    near = np.empty((len(space), k), dtype=int)
    votes = np.empty((len(space), k))
    for start in range(0, len(space), 256):
        rows = slice(start, start + 256)
        cosine = (space.embeddings[rows] @ space.embeddings.T).round(_DECIMALS)
        cosine[space.ladder_codes[rows, None] == space.ladder_codes] = -np.inf
        near[rows] = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        known = np.isfinite(np.take_along_axis(cosine, near[rows], axis=1))
        votes[rows] = known * (1 + 0.5 ** np.arange(1, k + 1))
    return near, votes


def _vote(labels: np.ndarray, near: np.ndarray, votes: np.ndarray) -> np.ndarray:
    tally = np.einsum("qk,qkn->qn", votes, labels[near].astype(float))
    won = (tally == tally.max(axis=1, keepdims=True)) & (tally > 0)
    right = (won & labels).any(axis=1).astype(float)
    right[~labels.any(axis=1) | ~votes.any(axis=1)] = np.nan
    return right


def text_pairs(space: LabelledSpace, max_pairs: int, rng: np.random.Generator) -> Pairs:
    """All pairs that may be compared, or those among `max_pairs` drawn ones."""
    n = len(space)
    few = n * (n - 1) // 2 <= max_pairs
    i, j = np.triu_indices(n, k=1) if few else rng.integers(n, size=(2, max_pairs))
    shared = space.shared[space.codes[i], space.codes[j]]
    keep = (shared >= 0) & (space.ladder_codes[i] != space.ladder_codes[j])
    i, j, shared = i[keep], j[keep], shared[keep]
    cosine = np.empty(len(i))
    for start in range(0, len(i), _CHUNK):
        part = slice(start, start + _CHUNK)
        left, right = space.embeddings[i[part]], space.embeddings[j[part]]
        cosine[part] = np.einsum("pw,pw->p", left, right)
    cosine = cosine.round(_DECIMALS)
    same = space.directions[i] == space.directions[j]
    groups = (np.unique(x, return_inverse=True)[1] for x in (cosine, shared + 0.5 * same))
    return Pairs(i, j, cosine, shared, same, *groups)


def correlations(pairs: Pairs, weights: np.ndarray) -> dict[str, float]:
    """Of cosine and target; ranks are mid-ranks of the weighted pairs."""
    ranks = [_mid_ranks(group, weights) for group in (pairs.cosine_group, pairs.target_group)]
    return {
        "spearman": _pearson(ranks[0], ranks[1], weights),
        "pearson": _pearson(pairs.cosine, pairs.target, weights),
    }


def _mid_ranks(group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mass = np.bincount(group, weights)
    return (np.cumsum(mass) - mass / 2)[group]


def _pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    kept = weights > 0
    if not kept.any() or np.ptp(x[kept]) == 0 or np.ptp(y[kept]) == 0:
        return math.nan
    x = x - np.average(x, weights=weights)
    y = y - np.average(y, weights=weights)
    return float(weights @ (x * y) / np.sqrt((weights @ x**2) * (weights @ y**2)))


def distances(pairs: Pairs, weights: np.ndarray) -> dict[str, float]:
    """Mean of 1 - cosine per number of shared levels and direction, for those that occur."""
    found = {}
    for shared in np.unique(pairs.shared):
        for same, word in ((True, "same"), (False, "other")):
            rows = (pairs.shared == shared) & (pairs.same == same)
            if rows.any():
                far = _mean(1 - pairs.cosine[rows], weights[rows])
                found[f"shared_{shared}_{word}"] = far
    return found


def vectors(space: LabelledSpace, weights: np.ndarray) -> dict[str, np.ndarray]:
    """See `metrics.value_vectors`."""
    found = {}
    for code, name in enumerate(space.names):
        means = []
        for direction in (1, -1):
            rows = (space.codes == code) & (space.directions == direction) & (weights > 0)
            if rows.any():
                means.append(weights[rows] @ space.embeddings[rows] / weights[rows].sum())
        length = np.linalg.norm(means[0] - means[1]) if len(means) == 2 else 0.0
        if length > 0:
            found[name] = (means[0] - means[1]) / length
    return found


def mean_orthogonality(space: LabelledSpace, weights: np.ndarray) -> float:
    """See `metrics.orthogonality`."""
    found = vectors(space, weights)
    if len(found) < 2:
        return math.nan
    rows = [space.names.index(name) for name in found]
    stacked = np.stack(list(found.values()))
    pairs = np.triu(space.shared[np.ix_(rows, rows)] >= 0, k=1)
    return float(1 - np.abs(stacked @ stacked.T)[pairs].mean()) if pairs.any() else math.nan
