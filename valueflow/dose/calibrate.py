"""The closed loop: sweep, curve, inverse, and a check on prompts that were never seen.

Vectors, judge and scale come from disjoint parts of VIDB; calibration and verification use
disjoint prompts. Placebo arms go through the very same measurement.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from valueflow.dose.curve import DoseCurve
from valueflow.dose.inverse import Dose, Unreachable
from valueflow.dose.sweep import Decoding, Grid, Progress, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector
from valueflow.typing import Item

COEFFICIENTS = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)
PLACEBO_COEFFICIENTS = (-0.3, -0.15, 0.0, 0.15, 0.3)
TARGETS = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
DAMAGE_LIMIT = 0.7
LEVEL_Z = 1.96

Stage = Callable[[str], Progress | None]
"""Told the name of each stage; gives what reports progress within it."""


@dataclass(frozen=True)
class Arm:
    """Measurements of one vector at several coefficients, on the same prompts.

    Attributes:
        coefficients: shape (n,).
        intensities: (n, prompts); the bound where a text is outside the panel, NaN where unranked.
        damage: nats per token above the same prompt's unsteered answer, (n, prompts).
        degenerate: share of empty or looping texts, (n,).
        outside: share of texts outside the panel, (n,).
        second: mean score of the confirming judge at each coefficient, or None.
        texts: (n, prompts).
    """

    coefficients: tuple[float, ...]
    intensities: Float[np.ndarray, "n prompts"]
    damage: Float[np.ndarray, "n prompts"]
    degenerate: tuple[float, ...]
    outside: tuple[float, ...]
    second: tuple[float, ...] | None
    texts: tuple[tuple[str, ...], ...]

    @property
    def means(self) -> Float[np.ndarray, " n"]:
        """Mean intensity at each coefficient; NaN where no text was ranked."""
        return _means(self.intensities)

    def change(self, lower: float, upper: float) -> float:
        """Mean intensity at `upper` minus at `lower`, on the least-squares line between them.

        The line makes the change of a placebo no larger for having been measured at more points;
        the spread of its means would be.
        """
        x, y = np.array(self.coefficients), self.means
        inside = (x >= lower) & (x <= upper) & np.isfinite(y)
        if inside.sum() < 2:
            return float("nan")
        return float(np.polyfit(x[inside], y[inside], 1)[0] * (upper - lower))


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
        arms: "vector", "random", "shuffled".
        decoding: how texts were made; the curve holds for this alone.
        provenance: model, judge, panel, prompts, seed.
    """

    vector: SteeringVector
    curve: DoseCurve
    arms: dict[str, Arm]
    decoding: Decoding
    provenance: dict[str, Any]

    def span_ratio(self, arm: str) -> float:
        """Size of the vector's change over the usable range, in units of a placebo's.

        NaN where the range holds fewer than two coefficients of either.
        """
        lower, upper = self.curve.usable_range_
        own, other = (abs(self.arms[name].change(lower, upper)) for name in ("vector", arm))
        return own / other if other != 0 else float("inf")


def calibrate(
    loaded: LoadedModel,
    vector: SteeringVector,
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    placebos: dict[str, SteeringVector] | None = None,
    coefficients: Sequence[float] = COEFFICIENTS,
    placebo_coefficients: Sequence[float] = PLACEBO_COEFFICIENTS,
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
        placebos: other vectors measured the same way, by name.
        coefficients: of the vector; 0 must be among them.
        placebo_coefficients: of the placebos; 0 is shared with the vector.
        decoding: None for `Decoding()`.
        damage_limit: mean damage that bounds the usable range, nats per token.
        second: another evaluator that confirms the direction.
        seed: of the bootstrap.
        stage: progress.

    Raises:
        InvalidInput: coefficient 0 missing; a placebo called "vector"; what `DoseCurve.fit`
            refuses.
    """
    if 0.0 not in coefficients:
        raise InvalidInput("coefficients must include 0: damage is measured against it")
    decoding, placebos = decoding or Decoding(), placebos or {}
    if "vector" in placebos:
        raise InvalidInput("'vector' is the calibrated arm; give the placebo another name")
    all_arms = {"vector": vector, **placebos}
    cells = [{"vector": c} for c in coefficients]
    cells += [{name: c} for name in placebos for c in placebo_coefficients if c != 0]
    grid = sweep(
        loaded, all_arms, cells, prompts, decoding=decoding, progress=stage and stage("sweep")
    )
    if stage is not None:
        stage("judge")
    arms = {name: _arm(grid, name, evaluator, second) for name in all_arms}
    own = arms["vector"]
    curve = DoseCurve(damage_limit=damage_limit, seed=seed)
    curve.fit(list(own.coefficients), own.intensities, damage=own.damage)
    provenance = {
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "judge": evaluator.judge.name,
        "evaluator": evaluator.fingerprint(),
        "panel": evaluator.panel.fingerprint(),
        "prompts": list(prompts),
        "seed": seed,
    }
    return Calibration(vector, curve, arms, decoding, provenance)


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
    cells = [{"vector": 0.0}] + [{"vector": dose.coefficient} for dose in doses]
    grid = sweep(
        loaded,
        {"vector": calibration.vector},
        cells,
        prompts,
        decoding=calibration.decoding,
        progress=stage and stage("verify"),
    )
    intensities, _ = _scores(evaluator, grid, range(len(cells)))
    rows = [_verified(dose, grid, intensities, i) for i, dose in enumerate(doses, start=1)]
    return rows, grid


def mean_absolute_error(rows: Sequence[Verified]) -> float:
    """Mean |target - achieved| over the reachable targets; NaN if there is none."""
    errors = [abs(row.target - row.achieved) for row in rows if row.status == "ok"]
    return float(np.mean(errors)) if errors else float("nan")


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman correlation; NaN below three points or without variation."""
    if len(x) < 3 or len(set(y)) < 2:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def _verified(
    dose: Dose | Unreachable, grid: Grid, intensities: Float[np.ndarray, "cells prompts"], row: int
) -> Verified:
    own = intensities[row][np.isfinite(intensities[row])]
    mean = float(own.mean()) if len(own) else float("nan")
    half = LEVEL_Z * float(own.std(ddof=1)) / len(own) ** 0.5 if len(own) > 1 else float("nan")
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


def _arm(grid: Grid, name: str, evaluator: AnchorEvaluator, second: AnchorEvaluator | None) -> Arm:
    zero = next(i for i, cell in enumerate(grid.cells) if not any(cell.values()))
    rows = [i for i, cell in enumerate(grid.cells) if name in cell and i != zero] + [zero]
    rows.sort(key=lambda i: grid.cells[i].get(name, 0.0))
    intensities, outside = _scores(evaluator, grid, rows)
    return Arm(
        coefficients=tuple(grid.cells[i].get(name, 0.0) for i in rows),
        intensities=intensities,
        damage=grid.nll[rows] - grid.nll[zero],
        degenerate=tuple(grid.degenerate[rows].mean(axis=1).tolist()),
        outside=tuple(outside),
        second=None if second is None else tuple(_means(_scores(second, grid, rows)[0]).tolist()),
        texts=tuple(grid.texts[i] for i in rows),
    )


def _means(table: Float[np.ndarray, "n prompts"]) -> Float[np.ndarray, " n"]:
    """Mean of each row's numbers; NaN for a row without one."""
    counts = np.isfinite(table).sum(axis=1)
    return np.where(counts > 0, np.nansum(table, axis=1) / np.maximum(counts, 1), np.nan)


def _scores(
    evaluator: AnchorEvaluator, grid: Grid, rows: Sequence[int]
) -> tuple[Float[np.ndarray, "rows prompts"], list[float]]:
    """Intensities of the rows' texts, and per row the share of them outside the panel."""
    table, outside = [], []
    for row in rows:
        items = [Item(t, p) for t, p in zip(grid.texts[row], grid.prompts, strict=True)]
        scored = evaluator.score(items)
        table.append([s.or_bound for s in scored])
        outside.append(float(np.mean([s.status in ("above_panel", "below_panel") for s in scored])))
    return np.array(table, dtype=np.float64), outside
