"""The sums behind `valueflow.hives.evaluation`: pairs, resamples, figures, intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from valueflow.errors import InvalidInput
from valueflow.hives import metrics

_Z = 1.96


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        estimate: NaN where there is nothing to measure.
        low: of the 95% interval; NaN where resamples could not tell.
        high: likewise.
        n: how many pairs, texts or values it is of, as the function that made it says.
    """

    estimate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class ByValue:
    """A figure per value, and their mean, in which each value counts the same.

    Attributes:
        mean: over `values`.
        values: by id; those with nothing to measure are absent.
    """

    mean: Figure
    values: Mapping[str, Figure]


def check_resamples(n_resamples: int) -> None:
    if n_resamples < metrics.FEWEST_RESAMPLES:
        raise InvalidInput(
            f"expected {metrics.FEWEST_RESAMPLES} or more resamples, got {n_resamples}"
        )


def pair_sums(
    intensities: Float[np.ndarray, " texts"],
    scores: Float[np.ndarray, " texts"],
    groups: Sequence[object],
    gap: float | int,
) -> tuple[Float[np.ndarray, "groups groups"], Float[np.ndarray, "groups groups"]]:
    """Pairs that scores order right, and all that count, by the groups of higher and lower text."""
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    member = np.eye(len(names))[place]
    far = (intensities[:, None] - intensities[None, :] > gap).astype(float)
    credit = (np.sign(scores[:, None] - scores[None, :]) + 1) / 2
    return member.T @ (far * credit) @ member, member.T @ far @ member


def resample_counts(n: int, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each group is in a resample; the first row is the sample itself."""
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) if n else np.ones((0, 0))
    return np.vstack([np.ones((1, n)), drawn])


def totals(
    pairs: Float[np.ndarray, "groups groups"], counts: Float[np.ndarray, "resamples groups"]
) -> Float[np.ndarray, " resamples"]:
    """A group drawn twice is paired with others twice, but its copies are not with each other."""
    copies = (counts**2 - counts) @ np.diag(pairs)
    return ((counts @ pairs) * counts).sum(axis=1) - copies


def shares(
    right: Float[np.ndarray, " resamples"], pairs: Float[np.ndarray, " resamples"]
) -> tuple[Float[np.ndarray, " resamples"], int]:
    with np.errstate(invalid="ignore"):
        return right / pairs, int(pairs[0])


def auc(
    size: Float[np.ndarray, "resamples n"], touched: Bool[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    from scipy.stats import rankdata

    yes = touched.sum(axis=1)
    above = (rankdata(size, axis=1) * touched).sum(axis=1) - yes * (yes + 1) / 2
    with np.errstate(invalid="ignore"):
        return above / (yes * (touched.shape[1] - yes))


def spearman(
    x: Float[np.ndarray, "resamples n"], y: Float[np.ndarray, "resamples n"]
) -> Float[np.ndarray, " resamples"]:
    from scipy.stats import rankdata

    x, y = (rankdata(z, axis=1) - (z.shape[1] + 1) / 2 for z in (x, y))
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))


def by_value(
    found: Mapping[str, tuple[np.ndarray, int]], *, n: int | None = None, lowest: float = 0.0
) -> ByValue:
    """First entries are the estimates, the others their resamples."""
    known = {value: rows for value, rows in found.items() if np.isfinite(rows[0][0])}
    values = {value: figure(rows, count, lowest) for value, (rows, count) in known.items()}
    total = sum(count for _, count in known.values()) if n is None else n
    if not known:
        return ByValue(Figure(math.nan, math.nan, math.nan, total), {})
    # A resample that lacks a value's pairs is the mean of the others.
    mean = np.ma.masked_invalid([rows for rows, _ in known.values()]).mean(axis=0)
    return ByValue(figure(mean.filled(math.nan), total, lowest), values)


def figure(rows: np.ndarray, n: int, lowest: float = 0.0) -> Figure:
    """The first entry is the estimate, the others its resamples."""
    estimate, resamples = float(rows[0]), rows[1:][np.isfinite(rows[1:])]
    # Where most resamples lack what is measured, no interval rather than a wrong one.
    if 2 * len(resamples) < len(rows):
        return Figure(estimate, math.nan, math.nan, n)
    reach = _Z * float(resamples.std(ddof=1))
    return Figure(estimate, max(lowest, estimate - reach), min(1.0, estimate + reach), n)


def proportion(hits: int, n: int) -> Figure:
    from scipy.stats import binomtest

    ends = binomtest(hits, n).proportion_ci(method="wilson")
    return Figure(hits / n, float(ends.low), float(ends.high), n)
