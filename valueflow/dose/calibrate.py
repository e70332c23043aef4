"""The closed loop: sweep, curve, inverse, and a check on prompts that were never seen.

Vectors, judge and scale come from disjoint parts of VIDB; calibration and verification use
disjoint prompts. Placebos go through the very same measurement, at the ends of the range that the
vector turned out to be usable in; several draws of each, as one draw of chance says little.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit
from scipy.stats import spearmanr

from valueflow.dose.arms import Arm, intensities_of, measured
from valueflow.dose.curve import DoseCurve
from valueflow.dose.inverse import Dose, Unreachable
from valueflow.dose.prompted import Asked, prompt_arms
from valueflow.dose.stale import measured_by
from valueflow.dose.sweep import Decoding, Grid, Progress, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector

COEFFICIENTS = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)
TARGETS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
DAMAGE_LIMIT = 0.7
LEVEL = 0.95

Stage = Callable[[str], Progress | None]
"""Told the name of each stage; gives what reports progress within it."""


@dataclass(frozen=True)
class Verified:
    """One target, asked for on prompts that calibration never saw.

    Attributes:
        target: intensity asked for.
        coefficient: used; of the nearest reachable intensity if the target is not.
        achieved: mean measured intensity; NaN if no text was ranked.
        ci: 95% interval of the mean over prompts; NaN for fewer than two.
        damage: mean, nats per token.
        degenerate: share of empty or looping texts.
        status: "ok" or "unreachable".
        nearest: the intensity that the coefficient is meant to give.
    """

    target: float
    coefficient: float
    achieved: float
    ci: tuple[float, float]
    damage: float
    degenerate: float
    status: str
    nearest: float


@dataclass(frozen=True)
class Calibration:
    """What is known of one vector on one model.

    Attributes:
        vector: what is injected.
        curve: coefficient -> intensity, fitted on the calibration prompts.
        arm: what the curve was fitted to.
        placebos: by kind ("random", "shuffled") the arms of its draws, measured at the ends of the
            usable range and at 0.
        decoding: how texts were made; the curve holds for this alone.
        provenance: model, judge, panel, prompts, seed.
        prompted: by name the arms of instructions, with levels for coefficients; none unless
            asked for.
    """

    vector: SteeringVector
    curve: DoseCurve
    arm: Arm
    placebos: Mapping[str, tuple[Arm, ...]]
    decoding: Decoding
    provenance: dict[str, Any]
    prompted: Mapping[str, Arm] = field(default_factory=dict)

    def placebo_change(self, kind: str) -> float:
        """Mean size of the change that the draws of a placebo make over the usable range.

        Sizes, not signed changes, which would cancel: so it holds the noise of measuring too. NaN
        where a draw was not measured at two coefficients of the range.
        """
        ends = self.curve.usable_range_
        return float(np.mean([abs(draw.change(*ends)) for draw in self.placebos[kind]]))

    def span_ratio(self, kind: str) -> float:
        """Size of the vector's change over the usable range, in units of a placebo's.

        NaN where either is.
        """
        own = abs(self.arm.change(*self.curve.usable_range_))
        other = self.placebo_change(kind)
        return own / other if other != 0 else float("inf")


def calibrate(
    loaded: LoadedModel,
    vector: SteeringVector,
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    placebos: Mapping[str, Sequence[SteeringVector]] | None = None,
    asked: Mapping[str, Asked] | None = None,
    coefficients: Sequence[float] = COEFFICIENTS,
    decoding: Decoding | None = None,
    damage_limit: float = DAMAGE_LIMIT,
    second: AnchorEvaluator | None = None,
    seed: int,
    stage: Stage | None = None,
) -> Calibration:
    """Sweep the vector and its placebos over the prompts and fit the dose curve.

    Args:
        loaded: the model.
        vector: what is calibrated.
        evaluator: measures intensities; fitted.
        prompts: calibration prompts, 2 or more.
        placebos: by kind the draws of other vectors that are measured the same way.
        asked: by name the prompts under instructions that are measured the same way, formatted
            (`valueflow.prompting.ValuePrompt.formatted`), by level.
        coefficients: of the vector; 0 must be among them.
        decoding: None for `Decoding()`.
        damage_limit: mean damage that bounds the usable range, nats per token.
        second: another evaluator that confirms the direction.
        seed: of the bootstrap.
        stage: progress.

    Raises:
        InvalidInput: coefficient 0 missing; a placebo without a draw; what `DoseCurve.fit` refuses.
        NotFitted: an evaluator without its scale.
    """
    if 0.0 not in coefficients:
        raise InvalidInput("coefficients must include 0: damage is measured against it")
    placebos, tell = placebos or {}, stage or (lambda _name: None)
    empty = [kind for kind, draws in placebos.items() if not draws]
    if empty:
        raise InvalidInput(f"placebo {empty[0]!r} has no draw; give it vectors or leave it out")
    for judged in (evaluator, *([second] if second else [])):
        judged.check_fitted()  # not after minutes of generation
    decoding = decoding or Decoding()
    cells = [{"vector": c} for c in coefficients]
    progress = tell("sweep")
    grid = sweep(loaded, {"vector": vector}, cells, prompts, decoding=decoding, progress=progress)
    tell("judge")
    arm = measured(grid, "vector", evaluator, second)
    curve = DoseCurve(damage_limit=damage_limit, seed=seed)
    curve.fit(list(arm.coefficients), arm.intensities, damage=arm.damage)
    unsteered = grid.at([list(coefficients).index(0.0)])
    found = _placebo_arms(
        loaded, placebos, unsteered, evaluator, second, curve.usable_range_, decoding, tell
    )
    prompted = prompt_arms(
        loaded,
        asked or {},
        evaluator,
        unsteered=unsteered,
        decoding=decoding,
        second=second,
        progress=tell("instructions") if asked else None,
    )
    provenance = {
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "layers": list(vector.layers),
        "vector": vector_hash(vector),
        **measured_by(evaluator),
        "prompts": list(prompts),
        "seed": seed,
    }
    return Calibration(vector, curve, arm, found, decoding, provenance, prompted)


def _placebo_arms(
    loaded: LoadedModel,
    placebos: Mapping[str, Sequence[SteeringVector]],
    unsteered: Grid,
    evaluator: AnchorEvaluator,
    second: AnchorEvaluator | None,
    usable: tuple[float, float],
    decoding: Decoding,
    tell: Stage,
) -> dict[str, tuple[Arm, ...]]:
    """All draws at the ends of the usable range, in one sweep."""
    names = {kind: [f"{kind} {i}" for i in range(len(d))] for kind, d in placebos.items()}
    vectors = {n: v for kind, d in placebos.items() for n, v in zip(names[kind], d, strict=True)}
    cells = [{name: end} for name in vectors for end in sorted(set(usable) - {0.0})]
    if cells:
        progress = tell("placebos")
        more = sweep(
            loaded, vectors, cells, unsteered.prompts, decoding=decoding, progress=progress
        )
        unsteered = unsteered.joined(more)
    return {
        kind: tuple(measured(unsteered, name, evaluator, second) for name in own)
        for kind, own in names.items()
    }


def verify(
    loaded: LoadedModel,
    calibration: Calibration,
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    targets: Sequence[float] = TARGETS,
    stage: Stage | None = None,
) -> tuple[list[Verified], Grid]:
    """Ask for each target on new prompts and measure what came.

    Unreachable targets are generated at the nearest reachable intensity and named as such.

    Raises:
        InvalidInput: a verification prompt was calibrated on.
    """
    seen = set(calibration.provenance["prompts"]) & set(prompts)
    if seen:
        raise InvalidInput(f"prompt {sorted(seen)[0]!r} was calibrated on; verify on others")
    doses = [calibration.curve.inverse(target) for target in targets]
    wanted = [0.0, *(dose.coefficient for dose in doses)]
    # Unreachable targets of one side share the end of the range, and its texts.
    once = list(dict.fromkeys(wanted))
    grid = sweep(
        loaded,
        {"vector": calibration.vector},
        [{"vector": c} for c in once],
        prompts,
        decoding=calibration.decoding,
        progress=stage and stage("verify"),
    ).at([once.index(c) for c in wanted])
    intensities, _ = intensities_of(evaluator, grid, range(len(wanted)))
    rows = [_verified(dose, grid, intensities, i) for i, dose in enumerate(doses, start=1)]
    return rows, grid


def mean_absolute_error(rows: Sequence[Verified]) -> float:
    """Mean |target - achieved| over the reachable targets; NaN if there is none."""
    errors = [abs(row.target - row.achieved) for row in rows if row.status == "ok"]
    return float(np.mean(errors)) if errors else float("nan")


def mean_half_width(own: Float[np.ndarray, " n"]) -> float:
    """Half the 95% interval of a mean, by Student's t; NaN of fewer than two numbers."""
    if len(own) < 2:
        return float("nan")
    return float(stdtrit(len(own) - 1, (1 + LEVEL) / 2) * own.std(ddof=1) / len(own) ** 0.5)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman correlation; NaN below three points or without variation."""
    if len(x) < 3 or len(set(y)) < 2:
        return float("nan")
    # What scipy says of its own results is less than what they are.
    return float(cast(Any, spearmanr(x, y)).statistic)


def _verified(
    dose: Dose | Unreachable, grid: Grid, intensities: Float[np.ndarray, "cells prompts"], row: int
) -> Verified:
    own = intensities[row][np.isfinite(intensities[row])]
    mean = float(own.mean()) if len(own) else float("nan")
    half = mean_half_width(own)
    return Verified(
        target=dose.target,
        coefficient=dose.coefficient,
        achieved=mean,
        ci=(mean - half, mean + half),
        damage=float(np.nanmean(grid.nll[row] - grid.nll[0])),
        degenerate=float(grid.degenerate[row].mean()),
        status=dose.status,
        nearest=dose.nearest if isinstance(dose, Unreachable) else dose.target,
    )
