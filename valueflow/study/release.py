"""Vectors and calibrations of many values on one model, made to be handed out.

Per value: derive, sweep with placebos, fit the curve, ask for targets on other prompts, save the
card. Texts go to a work folder, from where `valueflow.study.specificity_run` reads them again; the
cards go to the released folder. A killed run goes on with the value it was in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.dose.arms import Arm, measured, row_means
from valueflow.dose.calibrate import (
    Calibration,
    Stage,
    Verified,
    mean_absolute_error,
    verify,
)
from valueflow.dose.curve import DoseCurve
from valueflow.dose.prediction import scale_noise
from valueflow.dose.prompts import load_prompts
from valueflow.dose.released import value_folder
from valueflow.dose.stale import measured_by
from valueflow.dose.steerer import Card, load_card, save_card
from valueflow.dose.sweep import Grid
from valueflow.errors import StaleArtifact
from valueflow.evaluate import vidb_evaluator
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.evaluate.panel import panel_from_vidb
from valueflow.judges.base import Judge
from valueflow.models.loading import LoadedModel
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector
from valueflow.study.kept import kept_sweep, write_sweep
from valueflow.study.release_plan import Deriver, Plan, check_plan, plan_deriver, random_placebo
from valueflow.theories import get_value
from valueflow.vidb import Vidb
from valueflow.vidb.schema import ANSWERING

SWEEPS, PLACEBOS, SHUFFLED, VERIFICATION = "sweeps", "placebos", "shuffled", "verification"
"""Folders of the work folder; each holds one file of texts per sweep."""

DECIMALS = 3
"""Of kept intensities and damage: their errors are a hundred times as large."""


def build_release(
    loaded: LoadedModel,
    values: Sequence[str],
    out: str | Path,
    *,
    work: str | Path,
    vidb: Vidb,
    judge: Judge,
    plan: Plan,
    derive_vector: Deriver | None = None,
    stage: Stage | None = None,
) -> list[Card]:
    """Calibrate values and save a card for each, in `out/<value>`; cards that are there stay.

    Args:
        loaded: the model.
        values: ids or names.
        out: the model's released folder.
        work: where texts are kept; may be deleted when the release, and what is computed from its
            texts, is done.
        vidb: graded texts.
        judge: who ranks.
        plan: how.
        derive_vector: where vectors come from; None for `derive` as the plan says.
        stage: progress.

    Raises:
        StaleArtifact: `out` holds a card of another plan, model, judge or panel.
        InvalidInput: coefficient 0 is not in the plan, or too few prompts in the suites.
    """
    check_plan(plan)
    tell: Callable[[str], Any] = stage or (lambda _name: None)
    source = derive_vector or plan_deriver(loaded, vidb, plan)
    cards = []
    ids = list(dict.fromkeys(get_value(value).id for value in values))
    for n, value in enumerate(ids, start=1):
        folder = Path(out) / value_folder(value)
        if (folder / "card").exists():
            cards.append(_kept(folder, plan, loaded, judge, vidb))
            continue

        def told(name: str, value: str = value, n: int = n) -> Any:
            return tell(f"{value} ({n} of {len(ids)}): {name}")

        told("scale")
        evaluator = vidb_evaluator(vidb, value, judge, seed=plan.seed)
        card = build_card(loaded, value, evaluator, source, work=Path(work), plan=plan, stage=told)
        save_card(card, folder, overwrite=True)
        cards.append(card)
    return cards


def build_card(
    loaded: LoadedModel,
    value: str,
    evaluator: AnchorEvaluator,
    derive_vector: Deriver,
    *,
    work: Path,
    plan: Plan,
    stage: Stage | None = None,
) -> Card:
    """The card of one value: swept, with placebos, verified on prompts it was not fitted on."""
    tell: Callable[[str], Any] = stage or (lambda _name: None)
    prompts = load_prompts("calibration")[: plan.n_calibration]
    tell("derive")
    vector = derive_vector(value, None)
    cells = [{"vector": c} for c in plan.coefficients]
    grid = kept_sweep(
        work / SWEEPS / f"{value_folder(value)}.jsonl.gz",
        loaded,
        {"vector": vector},
        cells,
        prompts,
        decoding=plan.decoding,
        progress=tell("sweep"),
    )
    tell("judge")
    arm = measured(grid, "vector", evaluator)
    curve = _curve(arm, plan)
    unsteered = grid.at([plan.coefficients.index(0.0)])
    draws = _draws(value, vector, curve.usable_range_, derive_vector, work, plan)
    placebos = {
        kind: tuple(_drawn_arm(loaded, draw, unsteered, evaluator, plan, tell) for draw in own)
        for kind, own in draws.items()
    }
    provenance = {
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "layers": list(vector.layers),
        "vector": vector_hash(vector),
        **measured_by(evaluator),
        "prompts": prompts,
        "seed": plan.seed,
        "plan": plan.to_dict(),
    }
    kept = {k: v for k, v in placebos.items() if v}
    calibration = Calibration(vector, curve, arm, kept, plan.decoding, provenance)
    cosines = {kind: [x.vector.cosine(vector) for x in own] for kind, own in draws.items()}
    others = load_prompts("verification")[: plan.n_verification]
    rows, texts = verify(
        loaded, calibration, evaluator, prompts=others, targets=plan.targets, stage=stage
    )
    write_sweep(
        work / VERIFICATION / f"{value_folder(value)}.jsonl.gz",
        texts,
        {"cells": [dict(cell) for cell in texts.cells], "prompts": list(texts.prompts)},
    )
    found = findings(calibration, rows, others, evaluator, cosines)
    return Card(vector, curve, plan.decoding, provenance, found)


def findings(
    calibration: Calibration,
    rows: Sequence[Verified],
    prompts: Sequence[str],
    evaluator: AnchorEvaluator,
    cosines: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """What a card keeps beside its curve, as plain JSON; None for what was not measured.

    `cosines` are those of each kind's placebos with the vector: a shuffled one is made of the same
    differences, so that it may hold a good part of it, of either sign.
    """
    arm, curve = calibration.arm, calibration.curve
    found = {
        "arm": {
            "coefficients": list(arm.coefficients),
            "intensities": arm.means.tolist(),
            "damage": row_means(arm.damage).tolist(),
            "degenerate": list(arm.degenerate),
            "outside": list(arm.outside),
        },
        "change": arm.change(*curve.usable_range_),
        "placebos": {
            kind: {
                "draws": len(draws),
                "change": calibration.placebo_change(kind),
                "changes": [draw.change(*curve.usable_range_) for draw in draws],
                "cosines": list(cosines[kind]),
            }
            for kind, draws in calibration.placebos.items()
        },
        "span": curve.span_,
        "spearman": curve.spearman_,
        "verified": [asdict(row) | {"ci": list(row.ci)} for row in rows],
        "verified_on": list(prompts),
        "error": mean_absolute_error(rows),
        "scale_noise": scale_noise(evaluator).to_dict(),
    }
    return _plain(found)


@dataclass(frozen=True, eq=False)
class _Draw:
    """A placebo, the coefficients it is measured at beside 0, and where its texts are kept."""

    name: str
    vector: SteeringVector
    doses: tuple[float, ...]
    path: Path


def _draws(
    value: str,
    vector: SteeringVector,
    ends: tuple[float, float],
    derive_vector: Deriver,
    work: Path,
    plan: Plan,
) -> dict[str, list[_Draw]]:
    """By kind. Random ones serve all values with the same layers, so they are asked every dose."""
    doses = tuple(c for c in plan.coefficients if c != 0)
    random = []
    for i in range(plan.random_draws):
        own = random_placebo(vector, seed=plan.seed + i)
        path = work / PLACEBOS / f"{vector_hash(own)}.jsonl.gz"
        random.append(_Draw(f"random placebo {i + 1}", own, doses, path))
    doses = tuple(sorted(set(ends) - {0.0}))
    shuffled = []
    for i in range(plan.shuffled_draws if doses else 0):
        own = derive_vector(value, plan.seed + i)
        path = work / SHUFFLED / f"{value_folder(value)}-{i}.jsonl.gz"
        shuffled.append(_Draw(f"shuffled placebo {i + 1}", own, doses, path))
    return {"random": random, "shuffled": shuffled}


def _drawn_arm(
    loaded: LoadedModel,
    draw: _Draw,
    unsteered: Grid,
    evaluator: AnchorEvaluator,
    plan: Plan,
    tell: Callable[[str], Any],
) -> Arm:
    grid = kept_sweep(
        draw.path,
        loaded,
        {"vector": draw.vector},
        [{"vector": dose} for dose in draw.doses],
        unsteered.prompts,
        decoding=plan.decoding,
        progress=tell(draw.name),
    )
    return measured(unsteered.joined(grid), "vector", evaluator)


def _curve(arm: Arm, plan: Plan) -> DoseCurve:
    """Fitted to the rounded numbers that the card keeps, so that it is the same when loaded."""
    curve = DoseCurve(damage_limit=plan.damage_limit, seed=plan.seed)
    return curve.fit(
        list(arm.coefficients),
        np.round(arm.intensities, DECIMALS),
        damage=np.round(arm.damage, DECIMALS),
    )


def _kept(folder: Path, plan: Plan, loaded: LoadedModel, judge: Judge, vidb: Vidb) -> Card:
    card = load_card(folder)
    panel = panel_from_vidb(vidb, card.value, "test", registers=ANSWERING)
    there, here = card.provenance.get("plan") or {}, plan.to_dict()
    differing = [name for name, value in here.items() if there.get(name) != value]
    model = {"name": loaded.name, **asdict(loaded.fingerprint)}
    differing += [k for k, v in model.items() if k != "name" and card.provenance["model"][k] != v]
    ruler = {"judge_fingerprint": judge.fingerprint(), "panel": panel.fingerprint()}
    differing += [name for name, v in ruler.items() if card.provenance[name] != v]
    if differing:
        raise StaleArtifact(
            f"{folder}: made with another {', '.join(differing)}; delete it or use another folder"
        )
    return card


def _plain(value: Any) -> Any:
    """Numbers rounded, and None for those that are not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
