"""Ways to reach an intensity, and what each does for a target: decided from what was calibrated.

A way is one or several branches. A branch knows the intensities that its settings gave on the
calibration prompts: a dose curve, or the levels of an instruction. `plan` asks every branch of a
way for the setting nearest to a target; nothing here is measured, and no model is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from valueflow.dose.arms import Arm, row_means
from valueflow.dose.curve import DoseCurve
from valueflow.dose.inverse import Unreachable, invert
from valueflow.errors import InvalidInput

FAR = 100.0
"""Beyond any intensity: the setting nearest to it is a way's end."""

NEAR = 1e-6
"""Intensity points below which two settings are equally near to a target."""


@dataclass(frozen=True)
class Setting:
    """How an answer is made; the default is an unsteered one.

    Attributes:
        form: the kind of instruction, "levels" or "texts"; "placebo levels" and "placebo texts" are
            instructions without values that are as long; empty for none.
        level: of the instruction.
        vector: name of what is injected; empty for nothing.
        coefficient: of it.
    """

    form: str = ""
    level: int = 0
    vector: str = ""
    coefficient: float = 0.0


class Choice(NamedTuple):
    """A setting with the mean intensity and damage it had on the calibration prompts."""

    setting: Setting
    expected: float
    damage: float


@dataclass(frozen=True)
class Doses:
    """Coefficients of a vector, alone or under an instruction.

    Attributes:
        curve: fitted on the calibration prompts.
        form: the instruction it was measured under.
        level: its level.
    """

    curve: DoseCurve
    form: str = ""
    level: int = 0

    def nearest(self, target: float) -> Choice:
        """By the curve's inverse: on a plateau the smallest coefficient."""
        predict = self.curve.predict
        # Not `curve.inverse`: its interval, for which every replicate is fitted, is of no use here.
        dose = invert(
            target,
            self.curve.usable_range_,
            predict,
            lambda c: (predict(c), predict(c)),
            increasing=self.curve.increasing_,
        )
        expected = dose.nearest if isinstance(dose, Unreachable) else target
        vector = "value" if dose.coefficient else ""
        setting = Setting(self.form, self.level, vector, float(dose.coefficient))
        return Choice(setting, float(expected), _damage(self.curve, dose.coefficient))


@dataclass(frozen=True)
class Levels:
    """Levels of one kind of instruction, no instruction among them.

    Attributes:
        form: "levels" or "texts".
        arm: measured on the calibration prompts; its coefficients are levels.
        limit: levels of more damage are not used.
    """

    form: str
    arm: Arm
    limit: float

    @property
    def usable(self) -> list[Choice]:
        """The levels within the limit, weakest first; without an instruction there is no damage."""
        found = [
            Choice(Setting(self.form, int(x), "", 0.0) if x else Setting(), float(y), float(d))
            for x, y, d in zip(
                self.arm.coefficients, self.arm.means, row_means(self.arm.damage), strict=True
            )
            if np.isfinite(y) and (x == 0 or d <= self.limit)
        ]
        return sorted(found, key=lambda choice: abs(choice.setting.level))

    def nearest(self, target: float) -> Choice | None:
        """By the mean at each level; of two as near the weaker."""
        return min(self.usable, key=lambda c: abs(c.expected - target), default=None)

    @property
    def span(self) -> float:
        """Highest minus lowest intensity; 0 where no level is usable."""
        means = [choice.expected for choice in self.usable]
        return max(means) - min(means) if means else 0.0


Branch = Doses | Levels


class Asked(NamedTuple):
    """A target and the setting that is tried for it.

    Attributes:
        target: intensity asked for.
        setting: used.
        expected: what it gave on the calibration prompts.
        status: "ok", or "unreachable" where the target lies beyond the way's ends.
    """

    target: float
    setting: Setting
    expected: float
    status: str


@dataclass(frozen=True)
class Plan:
    """What a way does at its ends and for each target."""

    low: Choice
    high: Choice
    asked: tuple[Asked, ...]

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All it takes, each once."""
        every = (self.low.setting, self.high.setting, *(asked.setting for asked in self.asked))
        return tuple(dict.fromkeys(every))


def plan(branches: Sequence[Branch], targets: Sequence[float]) -> Plan:
    """Choose the ends of a way and a setting for each target.

    Of settings as near to a target the one with less damage is taken.

    Raises:
        InvalidInput: no branch has a setting.
    """

    def choose(target: float) -> Choice:
        found = [choice for branch in branches if (choice := branch.nearest(target)) is not None]
        if not found:
            raise InvalidInput("nothing to choose from: no text was ranked at any setting")
        return min(found, key=lambda c: (round(abs(c.expected - target) / NEAR), c.damage))

    low, high = choose(-FAR), choose(FAR)
    asked = []
    for target in targets:
        choice = choose(float(target))
        inside = low.expected <= target <= high.expected
        status = "ok" if inside else "unreachable"
        asked.append(Asked(float(target), choice.setting, choice.expected, status))
    return Plan(low, high, tuple(asked))


def _damage(curve: DoseCurve, coefficient: float) -> float:
    """Mean damage at a coefficient, interpolated; NaN where none was measured."""
    data = curve.to_dict()
    if data["damage"] is None:
        return float("nan")
    table = np.array(data["damage"], dtype=float)
    known = ~np.isnan(table).all(axis=1)
    x, y = np.array(data["coefficients"])[known], row_means(table[known])
    return float(np.interp(coefficient, x, y))
