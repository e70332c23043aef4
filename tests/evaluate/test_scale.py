import numpy as np
import pytest

from valueflow.errors import InvalidInput, NotFitted
from valueflow.evaluate import IntensityScale


def measured(*, seed, n=4000, slope=0.7, offset=1.3, noise=2.0):
    """Known intensities, normally distributed, and noisy positions on a line."""
    rng = np.random.default_rng(seed)
    known = rng.normal(0, 4, n)
    return offset + slope * known + rng.normal(0, noise, n), known


def test_the_planted_line_and_its_scatter_are_found():
    scale = IntensityScale().fit(*measured(seed=0))
    assert scale.slope_ == pytest.approx(0.7, abs=0.03)
    assert scale.offset_ == pytest.approx(1.3, abs=0.1)
    assert scale.residual_sd_ == pytest.approx(2.0 / 0.7, rel=0.05)


def test_texts_of_intensity_x_measure_x_where_direct_regression_shrinks_them():
    scale = IntensityScale().fit(*measured(seed=1))
    positions, known = measured(seed=2, n=40_000)
    far = known > 6
    assert scale.transform(positions[far]).mean() == pytest.approx(known[far].mean(), abs=0.15)
    direct = np.polyval(np.polyfit(*measured(seed=1), 1), positions[far])
    assert known[far].mean() - direct.mean() > 2


def test_nan_positions_are_left_out_of_the_fit_and_pass_through():
    positions, known = measured(seed=3, n=50)
    expected = IntensityScale().fit(positions, known)
    scale = IntensityScale().fit(np.append(positions, [np.nan, np.inf]), np.append(known, [3, -3]))
    assert (scale.slope_, scale.offset_) == (expected.slope_, expected.offset_)
    result = scale.transform(np.array([np.nan, scale.offset_]))
    assert np.isnan(result[0]) and result[1] == 0
    assert np.isnan(scale.transform(float("nan")))


def test_results_past_the_ends_are_not_clipped():
    scale = IntensityScale().fit(np.arange(-5.0, 6.0), np.arange(-5.0, 6.0))
    assert scale.transform(14.0) == pytest.approx(14.0)


def test_a_judge_that_orders_backwards_is_refused():
    positions, known = measured(seed=4, n=100)
    with pytest.raises(InvalidInput, match="do not rise"):
        IntensityScale().fit(-positions, known)


@pytest.mark.parametrize(
    ("positions", "known"),
    [
        (np.arange(4.0), np.arange(4.0)),
        (np.array([1, 2, 3, 4, np.nan]), np.arange(5.0)),
        (np.full(6, np.nan), np.arange(6.0)),
        (np.arange(6.0), np.ones(6)),
    ],
    ids=["four", "four and a nan", "all nan", "one intensity"],
)
def test_too_little_to_fit_a_line_is_refused(positions, known):
    with pytest.raises(InvalidInput, match="needs 5 or more"):
        IntensityScale().fit(positions, known)


def test_transform_needs_a_fit():
    with pytest.raises(NotFitted):
        IntensityScale().transform(1.0)


def test_misreading_is_what_known_errors_leave_over():
    rng = np.random.default_rng(6)
    n, stderrs, grade_stderrs = 6000, rng.uniform(0.3, 1.0, 6000), rng.uniform(0.5, 1.5, 6000)
    truth = rng.normal(0, 6, n)
    read = truth + rng.normal(0, 1.7, n)
    positions = 0.5 * read + stderrs * rng.standard_normal(n)
    known = truth + grade_stderrs * rng.standard_normal(n)
    errors = {"position_stderrs": stderrs, "grade_stderrs": grade_stderrs}
    scale = IntensityScale().fit(positions, known, **errors)
    assert scale.misreading_sd_ == pytest.approx(1.7, abs=0.12)
    bare = IntensityScale().fit(positions, known)
    assert bare.misreading_sd_ == pytest.approx(bare.residual_sd_)
    wide = {"position_stderrs": 5 * stderrs, "grade_stderrs": np.full(n, np.nan)}
    assert IntensityScale().fit(positions, known, **wide).misreading_sd_ == 0.0


def test_the_lines_own_error_is_the_scatter_of_lines():
    at = np.array([-8.0, 0.0, 8.0])
    position = 1.3 + 0.7 * at
    found, stated = [], []
    for seed in range(400):
        scale = IntensityScale().fit(*measured(seed=seed, n=30))
        found.append(scale.transform(position))
        stated.append(scale.stderr(at))
    assert np.mean(stated, axis=0) == pytest.approx(np.std(found, axis=0), rel=0.2)
    assert np.std(found, axis=0)[2] > 1.8 * np.std(found, axis=0)[1]


def test_position_undoes_transform():
    scale = IntensityScale().fit(*measured(seed=7))
    assert scale.transform(scale.position(3.2)) == pytest.approx(3.2)
