"""Placebos of a calibration: measured like the vector, told by size, draw by draw."""

import dataclasses
import math

import numpy as np
import pytest
from planted_loop import (
    CALIBRATED_ON,
    DECODING,
    DRAWS,
    calibration,
    loaded,
    vector,
)

from valueflow.dose.arms import Arm
from valueflow.dose.sweep import sweep
from valueflow.steering.vector import random_like


@pytest.mark.slow
def test_random_directions_move_little():
    found = calibration()
    ends = found.curve.usable_range_
    sizes = [abs(draw.change(*ends)) for draw in found.placebos["random"]]
    assert len(sizes) == DRAWS and max(sizes) < 0.4 * found.curve.span_
    assert found.placebo_change("random") == pytest.approx(sum(sizes) / DRAWS)
    assert found.span_ratio("random") > 3


def test_a_placebo_that_is_the_vector_turned_round_moves_as_far_the_other_way():
    """The measurement of placebos is not a tamer one than that of the vector."""
    found = calibration()
    (draw,) = found.placebos["turned"]
    own, turned = (arm.change(*found.curve.usable_range_) for arm in (found.arm, draw))
    assert own > 4 and turned == pytest.approx(-own, rel=0.25)
    assert found.span_ratio("turned") == pytest.approx(1, abs=0.25)


def test_placebos_are_measured_at_the_ends_of_the_usable_range_and_at_0():
    lower, upper = calibration().curve.usable_range_
    assert lower < 0 < upper
    draws = [draw for kind in ("random", "turned") for draw in calibration().placebos[kind]]
    assert [draw.coefficients for draw in draws] == [(lower, 0.0, upper)] * (DRAWS + 1)
    assert all(draw.intensities.shape == draw.damage.shape == (3, 24) for draw in draws)
    # Every draw is a direction of its own.
    assert len({draw.texts[end] for draw in draws for end in (0, 2)}) == 2 * len(draws)


def test_a_placebos_texts_are_those_of_a_sweep_of_its_own():
    draw, end = calibration().placebos["random"][1], calibration().curve.usable_range_[1]
    arms = {"it": random_like(vector(), seed=1)}
    alone = sweep(loaded(), arms, [{"it": end}], CALIBRATED_ON, decoding=DECODING)
    assert alone.texts[0] == draw.texts[2]


def test_the_unsteered_texts_are_shared_and_do_no_damage():
    own = calibration().arm
    for draw in (d for draws in calibration().placebos.values() for d in draws):
        assert draw.texts[1] == own.texts[3]
        assert draw.means[1] == pytest.approx(own.means[3], abs=0.6)
        assert (draw.damage[1] == 0).all()
    assert (own.damage[3] == 0).all()
    assert own.damage[[0, -1]].mean() > 0.1


def made_draw(table, coefficients):
    nothing, texts = (0.0,) * len(table), (("text",) * table.shape[1],) * len(table)
    return Arm(coefficients, table, np.zeros_like(table), nothing, nothing, None, texts)


def with_placebos(*tables, coefficients=None):
    """The calibration with a kind "made", measured at the ends of the usable range unless said."""
    lower, upper = calibration().curve.usable_range_
    measured = coefficients or (lower, 0.0, upper)
    draws = [made_draw(np.array(table, dtype=np.float64), measured) for table in tables]
    return dataclasses.replace(calibration(), placebos={"made": tuple(draws)})


def test_changes_of_draws_that_cancel_do_not_make_a_small_placebo():
    there, back = [[0, 0], [2, 2], [4, 4]], [[4, 4], [2, 2], [0, 0]]
    found = with_placebos(there, back)
    changes = [draw.change(*found.curve.usable_range_) for draw in found.placebos["made"]]
    assert sum(changes) == pytest.approx(0, abs=1e-9)
    assert found.placebo_change("made") == pytest.approx(np.abs(changes).mean())
    assert found.placebo_change("made") == pytest.approx(4, rel=0.1)
    own = abs(found.arm.change(*found.curve.usable_range_))
    assert found.span_ratio("made") == pytest.approx(own / found.placebo_change("made"))


def test_the_ratio_counts_sizes_whichever_way_the_vector_points():
    found = with_placebos([[0, 0], [1, 1], [2, 2]])
    turned = dataclasses.replace(found.arm, intensities=-found.arm.intensities)
    turned = dataclasses.replace(found, arm=turned)
    assert turned.span_ratio("made") == pytest.approx(found.span_ratio("made"))
    assert turned.span_ratio("made") > 1


def test_a_draw_not_measured_in_the_range_gives_no_ratio():
    rising = [[0, 0], [1, 1], [2, 2]]
    assert math.isnan(with_placebos(rising, coefficients=(-5.0, 0.0, 5.0)).span_ratio("made"))
    nothing = [[0, 0], [float("nan")] * 2, [float("nan")] * 2]
    assert math.isnan(with_placebos(rising, nothing).placebo_change("made"))
    assert with_placebos([[1, 1]] * 3).span_ratio("made") > 1e6
