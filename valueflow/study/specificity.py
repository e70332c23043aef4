"""Whether a vector moves its own value: the effect of every vector on every value.

Numbers alone: how the texts were made and scored is `valueflow.study.effects`' business. An effect
is the intensity of a value in the texts steered one way minus that in the texts steered the other
way, prompt by prompt, so that prompts drop out of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import stdtrit

from valueflow.errors import InvalidInput
from valueflow.theories import get_theory, get_value

FEWEST_PAIRS = 3
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class EffectMatrix:
    """Effects of vectors on values over the same prompts.

    Attributes:
        vectors: ids of the values that the vectors are for, one per row.
        values: ids of the values measured, one per column.
        by_prompt: intensity points (or multiples of a column's spread, if `standardised`), shape
            (vectors, values, prompts); NaN where a text was not ranked.
        standardised: whether columns were divided by their spread.
    """

    vectors: tuple[str, ...]
    values: tuple[str, ...]
    by_prompt: Float[np.ndarray, "vectors values prompts"]
    standardised: bool = False

    def __post_init__(self) -> None:
        shape = (len(self.vectors), len(self.values))
        if self.by_prompt.shape[:2] != shape or len(set(self.values)) != len(self.values):
            raise InvalidInput(
                f"expected effects of shape {(*shape, 'prompts')} on distinct values, got "
                f"{self.by_prompt.shape}"
            )

    @property
    def means(self) -> Float[np.ndarray, "vectors values"]:
        """Mean effect over the prompts; NaN where no prompt was measured."""
        return _mean(self.by_prompt)

    @property
    def half_widths(self) -> Float[np.ndarray, "vectors values"]:
        """Half of the 95% t interval of each mean over prompts; NaN below two prompts."""
        return _half_width(self.by_prompt)

    def own(self, row: int) -> int:
        """The column of the vector's own value.

        Raises:
            InvalidInput: it was not measured.
        """
        if self.vectors[row] not in self.values:
            raise InvalidInput(f"{self.vectors[row]} is not among the values measured")
        return self.values.index(self.vectors[row])

    def only(self, values: Sequence[str]) -> "EffectMatrix":
        """Rows and columns of those values, in their order; rows that do not exist are left out.

        Raises:
            InvalidInput: a value was not measured.
        """
        missing = [value for value in values if value not in self.values]
        if missing:
            raise InvalidInput(f"{missing[0]} was not measured; measured: {', '.join(self.values)}")
        kept = [value for value in values if value in self.vectors]
        rows = [self.vectors.index(value) for value in kept]
        columns = [self.values.index(value) for value in values]
        part = self.by_prompt[np.ix_(rows, columns)]
        return replace(self, vectors=tuple(kept), values=tuple(values), by_prompt=part)


@dataclass(frozen=True)
class OwnEffect:
    """How a vector's effect on its own value stands among its effects on all.

    Attributes:
        value: what the vector is for.
        effect: on it.
        other: the other value with the largest effect, in the same direction as steering up.
        margin: own effect minus that one.
        ci: 95% t interval of the margin over prompts, pairs of texts taken together. The other
            value was picked for being largest in these very texts, so the margin is, if anything,
            too small.
        largest: whether the own effect is the largest of its row.
    """

    value: str
    effect: float
    other: str
    margin: float
    ci: tuple[float, float]
    largest: bool


@dataclass(frozen=True)
class CircleAgreement:
    """Whether effects on other values follow the circle of the basic values.

    Attributes:
        correlation: Pearson, of the effects on other values and the cosine of the angle between
            the two values on the circle, each row's mean effect on others taken out; NaN if
            effects do not vary.
        p: share of deals of the values to the places of the circle that agree as well; one-sided.
        opposed: vectors whose opposite value (half the circle away) moves the other way than their
            own.
        with_opposite: vectors whose opposite was measured.
        n: values on the circle.
    """

    correlation: float
    p: float
    opposed: tuple[str, ...]
    with_opposite: tuple[str, ...]
    n: int


def effects(
    upper: Float[np.ndarray, "vectors values prompts"],
    lower: Float[np.ndarray, "vectors values prompts"],
    vectors: Sequence[str],
    values: Sequence[str],
) -> EffectMatrix:
    """Intensities at the upper coefficient minus those at the lower one, prompt by prompt."""
    return EffectMatrix(tuple(vectors), tuple(values), upper - lower)


def column_spread(placebos: EffectMatrix) -> Float[np.ndarray, " values"]:
    """How far vectors of no meaning move each value: root mean square of their effects.

    The sampling variance of each mean over prompts is taken off first, as the noise of measuring is
    no effect; a column moved by noise alone gets the size of that noise instead.

    Raises:
        InvalidInput: fewer than two placebos.
    """
    if len(placebos.vectors) < 2:
        raise InvalidInput(
            f"a spread needs two or more placebo vectors, got {len(placebos.vectors)}; eight are "
            "enough to rely on"
        )
    square = (placebos.means**2).mean(axis=0)
    noise = _variance_of_mean(placebos.by_prompt).mean(axis=0)
    return np.sqrt(np.maximum(square - noise, noise))


def standardised(matrix: EffectMatrix, spread: Float[np.ndarray, " values"]) -> EffectMatrix:
    """Columns in multiples of their spread, so that values which move easily do not dominate.

    Raises:
        InvalidInput: standardised already, or a spread that is not positive.
    """
    if matrix.standardised:
        raise InvalidInput("these effects are standardised already")
    if spread.shape != (len(matrix.values),) or not (spread > 0).all():
        raise InvalidInput(f"expected a positive spread per value, got {spread}")
    return replace(matrix, by_prompt=matrix.by_prompt / spread[:, None], standardised=True)


def own_effects(matrix: EffectMatrix) -> list[OwnEffect]:
    """Per vector its own effect and the largest other one; both as steering up moves them.

    A row with an effect that was not measured has no largest: NaN never wins.

    Raises:
        InvalidInput: a vector whose own value, or no other, was measured.
    """
    if len(matrix.values) < 2:
        raise InvalidInput("specificity needs effects on two or more values")
    found = []
    for row, (value, means) in enumerate(zip(matrix.vectors, matrix.means, strict=True)):
        own = matrix.own(row)
        others = np.where(np.arange(len(means)) == own, -np.inf, np.nan_to_num(means, nan=-np.inf))
        other = int(others.argmax())
        difference = matrix.by_prompt[row, own] - matrix.by_prompt[row, other]
        margin, half = float(_mean(difference)), float(_half_width(difference))
        largest = bool(means[own] > others[other])
        ci = (margin - half, margin + half)
        found.append(OwnEffect(value, float(means[own]), matrix.values[other], margin, ci, largest))
    return found


def circle_agreement(
    matrix: EffectMatrix, *, n_permutations: int = 9999, seed: int
) -> CircleAgreement:
    """How far a square matrix of the basic values agrees with their circle.

    A row's mean effect on others (a vector that moves all values alike: warmth) is taken out, so
    the correlation is of what differs between values. Own effects are left out: they agree anyway.
    The test deals values to places, rows and columns together.

    Args:
        matrix: values off the circle are left out.
        n_permutations: deals, 1 or more.
        seed: of the deals.

    Raises:
        InvalidInput: fewer than four values on the circle have both a vector and a column; no
            permutations.
    """
    circle = get_theory("svt").circle or ()
    on = [v for v in circle if v in matrix.vectors and v in matrix.values]
    if len(on) < FEWEST_PAIRS + 1 or n_permutations < 1:
        raise InvalidInput(
            f"expected four or more values of svt and 1 or more permutations, got {len(on)} and "
            f"{n_permutations}"
        )
    means = matrix.only(on).means
    places = np.array([circle.index(value) for value in on])
    cosines = np.cos(2 * np.pi * (places[:, None] - places) / len(circle))
    table = _without_row_means(means)
    rng = np.random.default_rng(seed)
    deals = rng.permuted(np.tile(np.arange(len(on)), (n_permutations, 1)), axis=1)
    statistic = float(_correlations(table, cosines[None])[0])
    dealt = _correlations(table, cosines[deals[:, :, None], deals[:, None, :]])
    # Deals that only turn the circle must count, whatever the order of their sums.
    p = (1 + int((dealt >= statistic - 1e-9).sum())) / (1 + n_permutations)
    if np.isnan(statistic):
        p = 1.0
    opposed, known = _opposed(means, on, circle)
    return CircleAgreement(statistic, p, opposed, known, len(on))


def _opposed(
    means: NDArray[np.float64], on: Sequence[str], circle: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Vectors whose opposite value moves the other way, and those whose opposite is there."""
    opposed, known = [], []
    for row, value in enumerate(on):
        across = circle[(circle.index(value) + len(circle) // 2) % len(circle)]
        if across in on:
            known.append(value)
            if means[row, row] * means[row, on.index(across)] < 0:
                opposed.append(value)
    return tuple(opposed), tuple(known)


def siblings_of(value: str, among: Sequence[str]) -> list[str]:
    """The steered siblings of a value that are among some."""
    theory = get_theory(get_value(value).theory)
    return [other for other in theory.siblings(value) if other in among]


def by_value(matrix: EffectMatrix) -> dict[str, dict[str, float | None]]:
    """Mean effects as plain JSON: vector -> value -> effect, None where not measured."""
    return {
        vector: {
            value: None if np.isnan(x) else float(x)
            for value, x in zip(matrix.values, row, strict=True)
        }
        for vector, row in zip(matrix.vectors, matrix.means, strict=True)
    }


def specificity_summary(matrix: EffectMatrix, *, seed: int) -> Mapping[str, object]:
    """What a report says of a matrix: own effects, how many are largest, and the circle if any."""
    own = own_effects(matrix)
    summary: dict[str, object] = {
        "standardised": matrix.standardised,
        "largest": sum(row.largest for row in own),
        "vectors": len(own),
        "own": [row.__dict__ for row in own],
        "effects": by_value(matrix),
        "half_widths": np.where(
            np.isfinite(matrix.half_widths), matrix.half_widths, np.nan
        ).tolist(),
    }
    circle = get_theory("svt").circle or ()
    if sum(v in matrix.vectors and v in matrix.values for v in circle) > FEWEST_PAIRS:
        summary["circle"] = circle_agreement(matrix, seed=seed).__dict__
    return summary


def _without_row_means(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Effects on others less their row's mean; NaN on the diagonal."""
    table = np.where(np.eye(len(means), dtype=bool), np.nan, means)
    return table - np.nanmean(table, axis=1, keepdims=True)


def _correlations(table: NDArray[np.float64], cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation of a table's known cells with each of several tables of cosines."""
    used = np.isfinite(table)
    x, y = table[used], cosines[:, used]
    x, y = x - x.mean(), y - y.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(x) * np.linalg.norm(y, axis=1)
    return np.where(scale > 0, y @ x / np.where(scale > 0, scale, 1.0), np.nan)


def _mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.isfinite(table).sum(axis=-1)
    return np.where(counts > 0, np.nansum(table, axis=-1) / np.maximum(counts, 1), np.nan)


def _variance_of_mean(table: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.isfinite(table).sum(axis=-1)
    squares = np.nansum((table - _mean(table)[..., None]) ** 2, axis=-1)
    variance = squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1)
    return np.where(counts > 1, variance, np.nan)


def _half_width(table: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.isfinite(table).sum(axis=-1)
    quantile = stdtrit(np.maximum(counts - 1, 1), (1 + LEVEL) / 2)
    return np.asarray(quantile * np.sqrt(_variance_of_mean(table)))
