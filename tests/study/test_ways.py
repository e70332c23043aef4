"""What a way does for a target, against a slow search over everything it could do."""

import numpy as np
import pytest

from valueflow.dose.arms import Arm
from valueflow.dose.curve import DoseCurve
from valueflow.errors import InvalidInput
from valueflow.study.ways import Doses, Levels, Setting, plan

NOISE = np.array([-0.2, 0.0, 0.2])
C = np.linspace(-0.4, 0.4, 9)


def curve(base=0.0, slope=10.0, cost=2.0, limit=0.7):
    damage = np.repeat(cost * C[:, None] ** 2, 3, axis=1)
    made = DoseCurve("pchip", n_bootstrap=20, damage_limit=limit, seed=0)
    return made.fit(C, base + slope * C[:, None] + NOISE, damage=damage)


def arm(means, damage, levels=(-2, -1, 0, 1, 2)):
    n = len(levels)
    table = np.array(means)[:, None] + NOISE
    harm = np.repeat(np.array(damage)[:, None], 3, axis=1)
    texts = (("a", "b", "c"),) * n
    return Arm(tuple(map(float, levels)), table, harm, (0.0,) * n, (0.0,) * n, None, texts)


def near(one, other):
    same = (one.form, one.level, one.vector) == (other.form, other.level, other.vector)
    return same and one.coefficient == pytest.approx(other.coefficient)


LEVELS = Levels("levels", arm([-3.0, -1.0, 0.5, 2.0, 6.0], [0.3, 0.1, 0.0, 0.1, 0.9]), 0.7)


def test_levels_beyond_the_damage_limit_are_not_used():
    assert [c.setting.level for c in LEVELS.usable] == [0, -1, 1, -2]
    assert LEVELS.span == pytest.approx(5.0)
    assert LEVELS.nearest(9.0).setting == Setting("levels", 1)
    everything = Levels("levels", LEVELS.arm, 1.0)
    found = everything.nearest(9.0)
    assert found.setting == Setting("levels", 2)
    assert (found.expected, found.damage) == pytest.approx((6.0, 0.9))


@pytest.mark.parametrize("target", np.linspace(-6, 8, 29).tolist())
def test_the_nearest_level_is_the_one_of_an_exhaustive_search(target):
    found = LEVELS.nearest(target)
    gaps = {c.setting: abs(c.expected - target) for c in LEVELS.usable}
    assert gaps[found.setting] == min(gaps.values())


def test_level_0_is_unsteered_and_of_two_as_near_the_weaker_is_taken():
    assert LEVELS.nearest(0.5).setting == Setting()
    tied = Levels("texts", arm([-2.0, -2.0, 0.0, 2.0, 2.0], [0.0] * 5), 0.7)
    assert tied.nearest(5.0).setting.level == 1 and tied.nearest(-5.0).setting.level == -1


def test_a_level_without_a_number_is_left_out():
    broken = arm([-3.0, np.nan, 0.5, 2.0, 6.0], [0.0] * 5)
    assert [c.setting.level for c in Levels("levels", broken, 0.7).usable] == [0, 1, -2, 2]
    nothing = Levels("levels", arm([np.nan] * 5, [0.0] * 5), 0.7)
    assert nothing.nearest(1.0) is None and nothing.span == 0
    with pytest.raises(InvalidInput, match="nothing to choose from"):
        plan([nothing], [1.0])


def test_doses_are_the_curves_inverse_with_the_damage_measured_there():
    found = Doses(curve()).nearest(3.0)
    assert near(found.setting, Setting("", 0, "value", 0.3))
    assert found.expected == 3.0 and found.damage == pytest.approx(2 * 0.3**2)
    assert Doses(curve()).nearest(0.0).setting == Setting()
    far = Doses(curve(cost=10.0), "levels", 2).nearest(9.0)
    assert far.setting.form == "levels" and far.setting.level == 2
    assert far.damage == pytest.approx(0.7) and far.expected == pytest.approx(
        10 * far.setting.coefficient
    )


@pytest.mark.parametrize("target", [-9.0, -3.3, 0.0, 0.01, 2.5, 9.0])
def test_a_dose_is_that_of_the_curves_own_inverse(target):
    made = curve(base=0.4, cost=6.0)
    found, dose = Doses(made).nearest(target), made.inverse(target)
    assert found.setting.coefficient == dose.coefficient
    assert found.expected == getattr(dose, "nearest", target)


def test_a_plan_has_the_ends_and_says_what_is_out_of_reach():
    made = plan([LEVELS], [-6.0, -3.0, 0.0, 2.0, 2.5])
    assert (made.low.expected, made.high.expected) == pytest.approx((-3.0, 2.0))
    assert [a.status for a in made.asked] == ["unreachable", "ok", "ok", "ok", "unreachable"]
    assert [a.setting.level for a in made.asked] == [-2, -2, 0, 1, 1]
    assert [a.target for a in made.asked] == [-6.0, -3.0, 0.0, 2.0, 2.5]
    assert len(made.settings) == 3


def test_of_several_branches_the_nearest_is_taken_and_then_the_least_damage():
    plain, helped = Doses(curve()), Doses(curve(base=3.0), "levels", 1)
    made = plan([plain, LEVELS, helped], [3.0, 6.0, -2.0, 2.0])
    # 3.0: coefficient .3 alone (.18), or level 1 without any (0); 2.0 is level 1's own mean.
    assert made.asked[0].setting == Setting("levels", 1, "", 0.0)
    assert near(made.asked[1].setting, Setting("levels", 1, "value", 0.3))
    assert near(made.asked[2].setting, Setting("", 0, "value", -0.2))
    assert made.high.expected == pytest.approx(7.0) and made.low.expected == pytest.approx(-4.0)
    assert plan([plain, helped], [3.0]).asked == plan([helped, plain], [3.0]).asked


def test_more_branches_never_reach_less():
    rng = np.random.default_rng(0)
    for _ in range(20):
        branches = [
            Doses(curve(base=rng.normal(), slope=rng.uniform(1, 12), cost=rng.uniform(1, 8))),
            Levels("levels", arm(rng.normal(0, 3, 5), rng.uniform(0, 1, 5)), 0.7),
        ]
        target = float(rng.uniform(-8, 8))
        both = plan(branches, [target])
        for branch in branches:
            alone = branch.nearest(target)
            if alone is None:
                continue
            assert abs(both.asked[0].expected - target) <= abs(alone.expected - target) + 1e-6
