"""Instructions and activation steering on one axis: the same judge, prompts, decoding and damage.

Everything that is chosen is chosen on the calibration prompts: the wording and place of the
instructions, the settings at the ends of each way's range, the setting for each target. What is
reported is measured on other prompts. Damage is counted alike for all: the rise of the loss of the
answer's tokens under the unsteered model after the plain prompt, without any instruction.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valueflow.dose.arms import Arm
from valueflow.dose.calibrate import TARGETS, Stage
from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card, Steerer
from valueflow.dose.sweep import Grid, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.prompting.persona_texts import SPLIT
from valueflow.study.bench import PLACEBO, Bench, Cell
from valueflow.study.instructions import FORMS, Form, Instructor, choose_forms
from valueflow.study.ways import Doses, Plan, Setting, plan
from valueflow.vidb import Vidb

RANDOM_DRAWS = 2
GRID_POINTS = 5


@dataclass(frozen=True)
class Measurement:
    """One value by every way, on the verification prompts.

    Attributes:
        value: id.
        prompts: answered in every cell.
        limit: damage limit of the calibration, nats per token.
        plans: by way ("activation", "levels", "texts", "both") what it does.
        controls: by name the settings of placebos: "placebo levels" and "placebo texts", one each,
            and each random direction at the two ends of the vector's range, none where both are 0.
        cells: one per setting of the plans and controls, and the unsteered one.
        chosen: the instruction that was chosen for each kind, and all that were tried, as JSON.
    """

    value: str
    prompts: tuple[str, ...]
    limit: float
    plans: Mapping[str, Plan]
    controls: Mapping[str, tuple[Setting, ...]]
    cells: tuple[Cell, ...]
    chosen: Mapping[str, Any]

    def at(self, setting: Setting) -> Cell:
        """The answers in a setting.

        Raises:
            KeyError: it was not measured.
        """
        return {cell.setting: cell for cell in self.cells}[setting]

    @property
    def unsteered(self) -> Cell:
        """The answers without any steering."""
        return self.at(Setting())


def compare_value(
    loaded: LoadedModel,
    card: Card,
    evaluator: AnchorEvaluator,
    vidb: Vidb,
    *,
    prompts: Sequence[str],
    targets: Sequence[float] = TARGETS,
    forms: Sequence[Form] = FORMS,
    n_random: int = RANDOM_DRAWS,
    seed: int,
    stage: Stage | None = None,
) -> Measurement:
    """Calibrate instructions as the vector was, then measure every way on new prompts.

    Args:
        loaded: the model of the card.
        card: vector, curve, decoding and the prompts that it was calibrated on, which instructions
            are calibrated on too.
        evaluator: as the card was made with, fitted.
        vidb: whose steering split the texts of a person are from.
        prompts: for verification.
        targets: intensities asked of every way.
        forms: instructions to choose from, one or more of each kind.
        n_random: random directions, placebos of the vector.
        seed: of texts, random directions and the curves' bootstrap.
        stage: progress.

    Raises:
        InvalidInput: a verification prompt was calibrated on.
        StaleArtifact: the card is of another model.
        NotFitted: an evaluator without its scale.
    """
    calibrated_on = card.provenance["prompts"]
    _check(calibrated_on, prompts)
    Steerer(loaded, [card])  # refuses what is of another model
    evaluator.check_fitted()
    tell: Stage = stage or (lambda _name: None)
    limit = float(card.curve.damage_limit)
    texts, template = vidb.of(card.value, SPLIT), card.decoding.template
    instructor = Instructor(loaded.tokenizer, texts, card.value, seed, template)
    progress = tell("unsteered")
    unsteered = sweep(loaded, {}, [{}], calibrated_on, decoding=card.decoding, progress=progress)
    chosen, tried = choose_forms(
        loaded,
        instructor,
        evaluator,
        unsteered=unsteered,
        decoding=card.decoding,
        limit=limit,
        forms=forms,
        stage=tell,
    )
    bench = Bench(loaded, card, evaluator, instructor, chosen, seed)
    doses = Doses(card.curve)
    joint = _under_instruction(bench, unsteered, tell)
    plans = {"activation": plan([doses], targets)}
    plans |= {kind: plan([own.levels], targets) for kind, own in chosen.items()}
    plans["both"] = plan([doses, *(own.levels for own in chosen.values()), *joint], targets)
    controls = _controls(plans, n_random)
    wanted = [Setting(), *(s for own in plans.values() for s in own.settings)]
    wanted += [s for own in controls.values() for s in own]
    cells = bench.cells(list(dict.fromkeys(wanted)), prompts, progress=tell("verify"))
    told = {
        "chosen": {kind: own.as_json() for kind, own in chosen.items()},
        "tried": [own.as_json() for own in tried],
    }
    return Measurement(card.value, tuple(prompts), limit, plans, controls, cells, told)


def _check(calibrated_on: Sequence[str], prompts: Sequence[str]) -> None:
    seen = set(calibrated_on) & set(prompts)
    if seen:
        raise InvalidInput(f"prompt {sorted(seen)[0]!r} was calibrated on; compare on others")
    if len(prompts) < 2 or len(set(prompts)) < len(prompts):
        raise InvalidInput(f"expected two or more different prompts, got {len(prompts)}")


def _under_instruction(bench: Bench, unsteered: Grid, tell: Stage) -> list[Doses]:
    """Dose curves of the vector under the wider instruction's lowest and highest level."""
    best = max(bench.chosen.values(), key=lambda own: own.levels.span, default=None)
    coefficients = _grid(bench.card.curve.usable_range_)
    if best is None or not coefficients:
        return []
    by_mean = sorted(best.levels.usable, key=lambda choice: choice.expected)
    ends = {choice.setting.level for choice in (*by_mean[:1], *by_mean[-1:])}
    levels = sorted(ends - {0})
    settings = [Setting(best.form.kind, x, "value", c) for x in levels for c in coefficients]
    if not settings:
        return []
    cells = bench.cells(
        settings, unsteered.prompts, unsteered=unsteered.nll[0], progress=tell("both")
    )
    curves = {
        x: _curve(bench, best.arm, [c for c in cells if c.setting.level == x]) for x in levels
    }
    return [Doses(curve, best.form.kind, x) for x, curve in curves.items() if curve is not None]


def _curve(bench: Bench, arm: Arm, cells: Sequence[Cell]) -> DoseCurve | None:
    """Coefficient -> intensity at one level, the level alone being 0; None where that fails."""
    alone = arm.coefficients.index(float(cells[0].setting.level))
    curve = DoseCurve(damage_limit=bench.card.curve.damage_limit, seed=bench.seed)
    # Too little that was ranked leaves no curve, and no curve is no error of anybody's.
    with contextlib.suppress(InvalidInput):
        return curve.fit(
            [0.0, *(cell.setting.coefficient for cell in cells)],
            np.stack([arm.intensities[alone], *(cell.intensities for cell in cells)]),
            damage=np.stack([arm.damage[alone], *(cell.damage for cell in cells)]),
        )
    return None


def _grid(usable: tuple[float, float]) -> list[float]:
    """Coefficients over the usable range, without 0 and what is next to it; none if too few."""
    width = usable[1] - usable[0]
    spread = np.linspace(*usable, GRID_POINTS).tolist()
    found = [c for c in spread if abs(c) > 0.1 * width]
    return found if len(found) >= 3 else []


def _controls(plans: Mapping[str, Plan], n_random: int) -> dict[str, tuple[Setting, ...]]:
    found: dict[str, tuple[Setting, ...]] = {}
    for kind, own in plans.items():
        level = own.high.setting.level or own.low.setting.level
        if kind in ("levels", "texts"):
            # Also where no level was of use: then as long as the strongest.
            found[f"{PLACEBO}{kind}"] = (Setting(f"{PLACEBO}{kind}", level or 2),)
    ends = [end.setting.coefficient for end in (plans["activation"].low, plans["activation"].high)]
    if any(ends):  # else nothing is injected, and a range of 0 would look like a measured one
        for name in (f"random {i + 1}" for i in range(n_random)):
            found[name] = tuple(Setting("", 0, name, c) if c else Setting() for c in ends)
    return found
