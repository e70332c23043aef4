"""Instructions and activation steering on one axis: the same judge, prompts, decoding and damage.

Everything that is chosen is chosen on the calibration prompts: the wording and place of the
instructions, the settings at the ends of each way's range, the setting for each target. What is
reported is measured on other prompts. Damage is counted alike for all: the rise of the loss of the
answer's tokens under the unsteered model after the plain prompt, without any instruction.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from valueflow.dose.arms import intensities_of
from valueflow.dose.calibrate import TARGETS, Stage
from valueflow.dose.curve import DoseCurve
from valueflow.dose.steerer import Card, Steerer
from valueflow.dose.sweep import Grid, Progress, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import random_like
from valueflow.study.instructions import FORMS, Form, Instructor, Tried, choose_forms
from valueflow.study.ways import Doses, Plan, Setting, plan
from valueflow.vidb import Vidb

RANDOM_DRAWS = 2
GRID_POINTS = 5
PLACEBO = "placebo "


@dataclass(frozen=True)
class Cell:
    """Answers to all verification prompts in one setting.

    Attributes:
        setting: how they were made.
        intensities: of each prompt's answer, NaN where unranked, shape (prompts,).
        damage: nats per token above the unsteered answer, both after the plain prompt, (prompts,).
        degenerate: empty or looping, (prompts,).
        texts: the answers.
    """

    setting: Setting
    intensities: Float[np.ndarray, " prompts"]
    damage: Float[np.ndarray, " prompts"]
    degenerate: Bool[np.ndarray, " prompts"]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """One value by every way, on the verification prompts.

    Attributes:
        value: id.
        prompts: answered in every cell.
        limit: damage limit of the calibration, nats per token.
        plans: by way ("activation", "levels", "texts", "both") what it does.
        controls: by name the settings of placebos: "placebo levels" and "placebo texts", one each,
            and each random direction at the two ends of the vector's range.
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
    tell = stage or (lambda _name: None)
    limit = float(card.curve.damage_limit)
    instructor = Instructor(loaded.tokenizer, vidb, card.value, seed)
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
    doses = Doses(card.curve)
    joint = _under_instruction(loaded, card, evaluator, instructor, unsteered, chosen, seed, tell)
    plans = {"activation": plan([doses], targets)}
    plans |= {kind: plan([own.levels], targets) for kind, own in chosen.items()}
    plans["both"] = plan([doses, *(own.levels for own in chosen.values()), *joint], targets)
    controls = _controls(plans, n_random)
    cells = _measure(loaded, card, evaluator, instructor, chosen, plans, controls, prompts,
                     seed=seed, progress=tell("verify"))  # fmt: skip
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


def _under_instruction(
    loaded: LoadedModel,
    card: Card,
    evaluator: AnchorEvaluator,
    instructor: Instructor,
    unsteered: Grid,
    chosen: Mapping[str, Tried],
    seed: int,
    tell: Callable[[str], Progress | None],
) -> list[Doses]:
    """Dose curves of the vector under the wider instruction's lowest and highest level."""
    best = max(chosen.values(), key=lambda own: own.levels.span, default=None)
    coefficients = _grid(card.curve.usable_range_)
    if best is None or not coefficients or not best.levels.usable:
        return []
    by_mean = sorted(best.levels.usable, key=lambda choice: choice.expected)
    levels = sorted({by_mean[0].setting.level, by_mean[-1].setting.level} - {0})
    if not levels:
        return []
    prompts = unsteered.prompts
    given = {x: instructor.given(best.form, x, prompts) for x in levels}
    cells = [(x, c) for x in levels for c in coefficients]
    progress = tell("both")
    grid = sweep(
        loaded,
        {"value": card.vector},
        [{"value": c} for _, c in cells],
        prompts,
        asked=[given[x] for x, _ in cells],
        decoding=card.decoding,
        progress=progress,
    )
    intensities, _ = intensities_of(evaluator, grid, range(len(cells)))
    damage = grid.nll - unsteered.nll[0]
    found = []
    for level in levels:
        own = best.arm.coefficients.index(float(level))
        rows = [i for i, (x, _) in enumerate(cells) if x == level]
        curve = DoseCurve(damage_limit=card.curve.damage_limit, seed=seed)
        # Level alone is coefficient 0; too little that was ranked leaves no curve.
        try:
            curve.fit(
                [0.0, *coefficients],
                np.vstack([best.arm.intensities[own], intensities[rows]]),
                damage=np.vstack([best.arm.damage[own], damage[rows]]),
            )
        except InvalidInput:
            continue
        found.append(Doses(curve, best.form.kind, level))
    return found


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
    ends = [plans["activation"].low.setting, plans["activation"].high.setting]
    for i in range(n_random):
        name = f"random {i + 1}"
        found[name] = tuple(
            Setting("", 0, name, end.coefficient) if end.coefficient else Setting() for end in ends
        )
    return found


def _measure(
    loaded: LoadedModel,
    card: Card,
    evaluator: AnchorEvaluator,
    instructor: Instructor,
    chosen: Mapping[str, Tried],
    plans: Mapping[str, Plan],
    controls: Mapping[str, tuple[Setting, ...]],
    prompts: Sequence[str],
    *,
    seed: int,
    progress: Progress | None,
) -> tuple[Cell, ...]:
    """Every setting on the verification prompts, in one sweep."""
    wanted = [Setting(), *(s for own in plans.values() for s in own.settings)]
    settings = list(dict.fromkeys([*wanted, *(s for own in controls.values() for s in own)]))
    draws = sorted({s.vector for s in settings} - {"", "value"})
    vectors = {"value": card.vector} | {
        name: random_like(card.vector, seed=seed + i) for i, name in enumerate(draws)
    }
    given = {}
    for form, level in {(s.form, s.level) for s in settings}:
        kind = form.removeprefix(PLACEBO)
        own = chosen[kind].form if kind else None
        placebo = form.startswith(PLACEBO)
        given[form, level] = instructor.given(own, level, prompts, placebo=placebo)
    grid = sweep(
        loaded,
        vectors,
        [{s.vector: s.coefficient} if s.vector else {} for s in settings],
        prompts,
        asked=[given[s.form, s.level] for s in settings],
        decoding=card.decoding,
        progress=progress,
    )
    intensities, _ = intensities_of(evaluator, grid, range(len(settings)))
    return tuple(
        Cell(s, intensities[i], grid.nll[i] - grid.nll[0], grid.degenerate[i], grid.texts[i])
        for i, s in enumerate(settings)
    )
