import math

import numpy as np
import pytest

from valueflow.dose.arms import Arm


def arm(intensities, coefficients=(-0.2, 0.0, 0.2)):
    table = np.array(intensities, dtype=np.float64)
    nothing = (0.0,) * len(table)
    texts = (("text",) * table.shape[1],) * len(table)
    return Arm(coefficients, table, np.zeros_like(table), nothing, nothing, None, texts)


def test_change_is_of_the_line_through_the_means_within_the_range():
    assert arm([[0, 2], [2, 4], [4, 6]]).change(-0.2, 0.2) == pytest.approx(4)
    assert arm([[0, 2], [2, 4], [4, 6]]).change(-0.1, 0.3) == pytest.approx(4)
    assert arm([[0], [9], [0]]).change(-0.2, 0.2) == pytest.approx(0)
    assert math.isnan(arm([[0], [1], [2]]).change(-0.1, 0.1))


def test_texts_that_were_not_ranked_are_left_out_of_means_and_changes():
    nan = float("nan")
    partly = arm([[0, nan], [nan, nan], [4, 4]])
    assert partly.means == pytest.approx([0, nan, 4], nan_ok=True)
    assert partly.change(-0.2, 0.2) == pytest.approx(4)
