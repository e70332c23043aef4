"""From a position among anchors to an intensity."""

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from valueflow.errors import InvalidInput, NoSignal, NotFitted


class IntensityScale(BaseEstimator):
    """The monotone map from a Plackett-Luce position to intensity, learned on graded texts.

    Positions are regressed on the known intensities and the line is inverted (calibration by
    inverse regression), so that texts of intensity x measure x on average: regressing the other
    way round would pull every noisy measurement towards the middle.

    Attributes:
        slope_: position units per intensity unit, positive.
        offset_: position of a neutral text.
        residual_sd_: scatter of single texts about the line, in intensity units.
        misreading_sd_: the part of it that neither the positions' errors nor the grades' explain:
            what the judge gets wrong about a text, whatever the number of windows. It is 0 where
            they explain everything.
    """

    def fit(
        self,
        positions: NDArray[np.float64],
        intensities: NDArray[np.float64],
        *,
        position_stderrs: NDArray[np.float64] | None = None,
        grade_stderrs: NDArray[np.float64] | None = None,
    ) -> "IntensityScale":
        """Learn the line from texts of known intensity; NaN positions are left out.

        Args:
            positions: shape (texts,), in any unit.
            intensities: what they should measure.
            position_stderrs: known errors of the positions, in their unit; NaN where unknown.
            grade_stderrs: known errors of the intensities.

        Raises:
            InvalidInput: fewer than 5 finite positions, or a judge whose positions do not rise
                with the intensities.
        """
        x, y = np.asarray(intensities, float), np.asarray(positions, float)
        known = np.isfinite(x) & np.isfinite(y)
        if known.sum() < 5 or np.ptp(x[known]) == 0:
            raise InvalidInput(f"a scale needs 5 or more graded texts, got {int(known.sum())}")
        slope, offset = np.polyfit(x[known], y[known], 1)
        if slope <= 0:
            raise NoSignal(
                f"positions do not rise with intensity (slope {slope:.3f}): "
                "this judge cannot tell support from opposition here"
            )
        self.slope_, self.offset_ = float(slope), float(offset)
        residuals = y[known] - (offset + slope * x[known])
        self.residual_sd_ = float(np.sqrt((residuals**2).sum() / (known.sum() - 2)) / slope)
        explained = _mean_square(position_stderrs, known) / slope**2
        explained += _mean_square(grade_stderrs, known)
        self.misreading_sd_ = float(np.sqrt(max(self.residual_sd_**2 - explained, 0.0)))
        self._mean, self._n = float(x[known].mean()), int(known.sum())
        self._spread = float(((x[known] - self._mean) ** 2).sum())
        return self

    def position(self, intensity: float) -> float:
        """The inverse of `transform`."""
        return self.offset_ + self.slope_ * intensity

    def stderr(self, intensities: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
        """Error that the line itself brings into measured intensities, the same for all texts.

        It is smallest in the middle of the texts it was learned on.
        """
        away = np.asarray(intensities, float) - self._mean
        return self.residual_sd_ * np.sqrt(1 / self._n + away**2 / self._spread)

    def redraw_stderr(
        self, intensities: NDArray[np.float64] | float
    ) -> NDArray[np.float64] | float:
        """How far two lines differ that were learned on the same texts, ranked anew for each.

        The standard deviation of the difference of the two measured intensities: the judge noise
        of the graded texts, but not what it misreads in them, which both lines share.
        """
        away = np.asarray(intensities, float) - self._mean
        noise = np.sqrt(2 * max(self.residual_sd_**2 - self.misreading_sd_**2, 0.0))
        return noise * np.sqrt(1 / self._n + away**2 / self._spread)

    def transform(self, positions: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
        """Intensities of positions; NaN stays NaN. Not clipped: noise may carry one past +-10."""
        if not hasattr(self, "slope_"):
            raise NotFitted("fit the scale on graded texts before transform")
        return (np.asarray(positions, float) - self.offset_) / self.slope_


def _mean_square(stderrs: NDArray[np.float64] | None, known: NDArray[np.bool_]) -> float:
    """Mean of the squares that are known; 0 where none is."""
    if stderrs is None:
        return 0.0
    squares = np.asarray(stderrs, float)[known] ** 2
    squares = squares[np.isfinite(squares)]
    return float(squares.mean()) if len(squares) else 0.0
