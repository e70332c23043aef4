"""The dose curve: coefficient -> intensity of one value, its error bars, and its inverse.

One curve belongs to one (model, value, layers, positions, chat template). It does not know how its
points were made: it takes a matrix of measured intensities and says which coefficient gives a
wanted intensity, how surely, and where nothing it could say would be true.
"""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from valueflow.dose.families import FAMILIES, cross_validated_errors
from valueflow.dose.inverse import Dose, Unreachable, invert
from valueflow.dose.points import (
    Numbers,
    adjoining,
    expanded_tail,
    resampled_means,
    rises,
    safe_range,
    validated,
)
from valueflow.dose.turning import turning_points
from valueflow.errors import ArtifactError, InvalidInput, NotFitted
from valueflow.registry import unknown_name

__all__ = ["Dose", "DoseCurve", "Unreachable"]

Array = NDArray[np.float64]

SCHEMA = 1
_PARAMETERS = ("family", "damage_limit", "n_bootstrap", "level", "direction", "seed")
_DIRECTIONS = ("increasing", "decreasing", "auto")


class DoseCurve:
    """Monotone curve from coefficient to intensity with a bootstrap over prompts.

    Args:
        family: "pchip" (monotone cubic through the isotonic means), "logistic" (4 parameters), or
            "auto": whichever predicts left-out coefficients better; "pchip" below five points.
        damage_limit: mean damage up to which a coefficient is usable, nats per token.
        n_bootstrap: resamples of the prompts, 20 or more.
        level: coverage of all intervals.
        direction: "increasing" (more coefficient, more intensity), "decreasing", or "auto": the
            sign of the least-squares slope.
        seed: of the bootstrap, a non-negative int.

    Attributes:
        coefficients_: measured coefficients, ascending, shape (n,).
        means_: mean intensity at each, over the prompts measured there, shape (n,).
        counts_: number of those prompts, shape (n,).
        sds_: standard deviation of the intensity over them, shape (n,); NaN at a single prompt.
        ci_: bootstrap interval of each mean, shape (n, 2); NaN at a single prompt.
        dropped_: coefficients left out because no intensity was measured there.
        increasing_: the direction fitted.
        turning_points_: (lower, upper) coefficient beyond which the intensity turns back by more
            than noise, else None. Looked for among coefficients <= 0 and >= 0.
        usable_range_: (lower, upper) end of the widest interval around 0 with mean damage, linearly
            interpolated, within the limit, and with no turning point inside.
        family_: the family fitted.
        cv_error_: leave-one-coefficient-out error of each family, if "auto" had to choose.
        span_: intensity at the upper minus at the lower end of the usable range.
        spearman_: rank correlation of coefficients and means in the usable range; NaN below three
            points or for equal means.

    Notes:
        Only points in the usable range are fitted, and where damage ends it between two points, the
        next one too, so that the curve always interpolates. A sweep that turns back at once on both
        sides has the usable range (0, 0). Intervals are expanded percentiles over resamples of the
        prompts, usable range and family held fixed. No order, of coefficients or prompts, matters.

    Examples:
        >>> import numpy as np
        >>> c = np.linspace(-0.5, 0.5, 11)
        >>> intensities = 8 * c[:, None] + np.array([-1.0, -0.5, 0.5, 1.0])
        >>> curve = DoseCurve("pchip", seed=0).fit(c, intensities)
        >>> round(curve.inverse(2.0).coefficient, 3)
        0.25
        >>> curve.inverse(6.0).highest
        4.0
    """

    def __init__(
        self,
        family: str = "auto",
        damage_limit: float | int = 0.7,
        n_bootstrap: int = 500,
        level: float = 0.95,
        direction: str = "increasing",
        *,
        seed: int,
    ) -> None:
        self.family = family
        self.damage_limit = damage_limit
        self.n_bootstrap = n_bootstrap
        self.level = level
        self.direction = direction
        self.seed = seed

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in _PARAMETERS)
        return f"DoseCurve({arguments})"

    def fit(
        self, coefficients: Numbers, intensities: Numbers, *, damage: Numbers | None = None
    ) -> "DoseCurve":
        """Fit the curve to a sweep.

        Args:
            coefficients: shape (coefficients,), multiples of the layer's typical norm; four or more
                distinct ones with intensities, on both sides of 0 or including it.
            intensities: shape (coefficients, prompts), the same prompts at every coefficient; NaN
                where there is no measurement.
            damage: same shape, nats per token above the unsteered text of the same prompt; NaN
                where unknown. Taken as 0 at coefficient 0 if not measured there, and as too high
                beyond the outermost coefficient measured. None sets no limit.

        Raises:
            InvalidInput: an argument is not as described; fewer than two prompts; damage above the
                limit at coefficient 0; the logistic asked for where too few points are usable.
            UnknownName: a family or direction that does not exist.
        """
        self._check_parameters()
        points = validated(coefficients, intensities, damage)
        safe = safe_range(points, self.damage_limit)
        vars(self).pop("_curve", None)  # a fit that fails leaves no half of an older one
        self._points, y = points, points.complete
        self.dropped_ = tuple(points.coefficients[~points.measured].tolist())
        self.coefficients_ = points.coefficients[points.measured]
        self.counts_ = (~np.isnan(y)).sum(axis=1)
        self.means_ = np.nanmean(y, axis=1)
        squares = np.nansum((y - self.means_[:, None]) ** 2, axis=1)
        self.sds_ = np.sqrt(squares / np.where(self.counts_ > 1, self.counts_ - 1, np.nan))
        means, counts = resampled_means(y, self.n_bootstrap, self.seed)
        self.ci_ = np.quantile(means, self._tails(), axis=0).T
        self.ci_[self.counts_ < 2] = np.nan
        self._fit_range(safe, means)
        # The curve itself in the first column, its replicates in the others.
        self._fit_family(np.vstack([self.means_, means]).T, np.vstack([self.counts_, counts]).T)
        lower, upper = np.asarray(self.predict(self.usable_range_))
        self.span_ = float(upper - lower)
        self.spearman_ = self._rank_correlation()
        return self

    def predict(self, coefficient: Numbers) -> Array | float:
        """Intensity at each coefficient, same shape; NaN outside the usable range, never clipped.

        Raises:
            NotFitted: before `fit`.
        """
        self._check_fitted()
        inside, where = self._inside(coefficient)
        result = np.full(inside.shape, np.nan)
        result[inside] = self._sign * self._curve(where)[:, 0]
        return result[()]

    def interval(self, coefficient: Numbers) -> tuple[Array | float, Array | float]:
        """Pointwise bootstrap interval of the curve: lower and upper ends, NaN where `predict` is.

        Raises:
            NotFitted: before `fit`.
        """
        self._check_fitted()
        inside, where = self._inside(coefficient)
        ends = np.full((2, *inside.shape), np.nan)
        values = self._sign * self._replicates(where)
        ends[:, inside] = np.quantile(values, self._tails(), axis=1)
        return ends[0][()], ends[1][()]

    def inverse(self, target: float | int) -> Dose | Unreachable:
        """The coefficient that gives an intensity, or why there is none.

        Args:
            target: an intensity.

        Returns:
            `Dose` with, on a plateau, the coefficient of the smallest size; or `Unreachable`, where
            the target lies outside the values of the curve on the usable range.

        Raises:
            NotFitted: before `fit`.
            InvalidInput: the target is NaN or infinite.
        """
        self._check_fitted()
        if not np.isfinite(target):
            raise InvalidInput(f"target: expected a finite intensity, got {target}")
        ends, rising = self.usable_range_, self.increasing_
        return invert(float(target), ends, self.predict, self.interval, increasing=rising)

    def to_dict(self) -> dict[str, Any]:
        """The fitted curve as JSON types: the parameters and the data it was fitted to.

        `from_dict` refits: bit for bit the same under the same numpy and scipy.

        Raises:
            NotFitted: before `fit`.
        """
        self._check_fitted()
        return {
            "kind": "dose_curve",
            "schema": SCHEMA,
            # item(): numpy's numbers are no JSON.
            "parameters": {name: np.asarray(getattr(self, name)).item() for name in _PARAMETERS},
            **self._points.as_lists(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DoseCurve":
        """The curve that `to_dict` described, fitted.

        Raises:
            ArtifactError: another kind or schema, or parts are missing or wrong.
        """
        if data.get("kind") != "dose_curve" or data.get("schema") != SCHEMA:
            raise ArtifactError(
                f"expected a dose_curve of schema {SCHEMA}, got kind {data.get('kind')!r}, "
                f"schema {data.get('schema')!r}: calibrate again or use the version that wrote it"
            )
        try:
            curve = cls(**data["parameters"])
            return curve.fit(data["coefficients"], data["intensities"], damage=data["damage"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"damaged dose_curve: {error}; calibrate again") from error

    def _check_parameters(self) -> None:
        if self.family not in ("auto", *FAMILIES):
            raise unknown_name("dose curve family", self.family, ("auto", *FAMILIES))
        if self.direction not in _DIRECTIONS:
            raise unknown_name("direction", self.direction, _DIRECTIONS)
        expected = {
            "damage_limit": ("a positive finite number", 0 < self.damage_limit < np.inf),
            "level": ("a number between 0 and 1", 0 < self.level < 1),
            "n_bootstrap": ("an int >= 20", _is_int(self.n_bootstrap, 20)),
            "seed": ("an int >= 0", _is_int(self.seed, 0)),
        }
        for name, (what, holds) in expected.items():
            if not holds:
                raise InvalidInput(f"{name}: expected {what}, got {getattr(self, name)!r}")

    def _check_fitted(self) -> None:
        if not hasattr(self, "_curve"):
            raise NotFitted("this DoseCurve is not fitted: call fit(coefficients, intensities)")

    def _fit_range(self, safe: tuple[float, float], replicates: Array) -> None:
        c, means, counts = self.coefficients_, self.means_, self.counts_
        self.increasing_ = self.direction == "increasing"
        if self.direction == "auto":
            near = adjoining(c, safe)
            self.increasing_ = rises(c[near], means[near], counts[near])
        self._sign = 1.0 if self.increasing_ else -1.0
        self.turning_points_ = turning_points(
            c, self._sign * means, counts, self._sign * replicates, self.level
        )
        low, high = self.turning_points_
        self.usable_range_ = (
            safe[0] if low is None else max(low, safe[0]),
            safe[1] if high is None else min(high, safe[1]),
        )

    def _fit_family(self, means: Array, counts: Array) -> None:
        used = adjoining(self.coefficients_, self.usable_range_)
        x, y, weights = self.coefficients_[used], self._sign * means[used], counts[used]
        auto = self.family == "auto"
        self.cv_error_ = cross_validated_errors(x, y[:, 0], weights[:, 0]) if auto else {}
        self.family_ = min(self.cv_error_, key=lambda name: self.cv_error_[name], default="pchip")
        if not auto:
            self.family_ = self.family
        self._curve = FAMILIES[self.family_](x, y[:, :1], weights[:, :1])
        # Fitted when an interval is first asked for.
        self._replicate_data, self._replicate_curves = (x, y, weights), None

    def _tails(self) -> tuple[float, float]:
        tail = expanded_tail(self.level, self._points.complete.shape[1])
        return tail, 1 - tail

    def _replicates(self, coefficient: Array) -> Array:
        """Rising replicate curves at each coefficient, shape (k, n_bootstrap)."""
        if self._replicate_curves is None:
            self._replicate_curves = FAMILIES[self.family_](*self._replicate_data)
        return self._replicate_curves(coefficient)[:, 1:]

    def _rank_correlation(self) -> float:
        from scipy.stats import spearmanr  # half a second to import

        lower, upper = self.usable_range_
        inside = (self.coefficients_ >= lower) & (self.coefficients_ <= upper)
        means = self.means_[inside]
        if len(means) < 3 or np.ptp(means) == 0:
            return float("nan")
        # What scipy says of its own results is less than what they are.
        return float(cast(Any, spearmanr(self.coefficients_[inside], means))[0])

    def _inside(self, coefficient: Numbers) -> tuple[NDArray[np.bool_], Array]:
        c = np.asarray(coefficient, dtype=float)
        inside = np.asarray((c >= self.usable_range_[0]) & (c <= self.usable_range_[1]))
        return inside, c[inside]


def _is_int(value: object, least: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return False
    return bool(value >= least)
