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
        residual_sd_: scatter of single texts about the line, in intensity units: what the judge
            gets wrong about a text, whatever the number of windows.
    """

    def fit(
        self, positions: NDArray[np.float64], intensities: NDArray[np.float64]
    ) -> "IntensityScale":
        """Learn the line from texts of known intensity; NaN positions are left out.

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
        self.residual_sd_ = float(residuals.std(ddof=2) / slope)
        return self

    def transform(self, positions: NDArray[np.float64] | float) -> NDArray[np.float64] | float:
        """Intensities of positions; NaN stays NaN. Not clipped: noise may carry one past +-10."""
        if not hasattr(self, "slope_"):
            raise NotFitted("fit the scale on graded texts before transform")
        return (np.asarray(positions, float) - self.offset_) / self.slope_
