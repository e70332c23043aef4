"""What a value's vector does at every layer and coefficient, and the search that uses it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.dose.arms import Arm, measured, row_means
from valueflow.dose.calibrate import DAMAGE_LIMIT, Stage
from valueflow.dose.candidates import at_layers
from valueflow.dose.effect import Effect, Limits, effect_within
from valueflow.dose.search import Search, Tried
from valueflow.dose.sweep import Cell, Decoding, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.chat import Template
from valueflow.models.loading import LoadedModel
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import contrasts
from valueflow.steering.derivation import derive
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.vidb import Vidb

COEFFICIENTS = (-0.4, -0.2, -0.1, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class LayerSweep:
    """One vector, each layer by itself at the same coefficients.

    Attributes:
        value: what the vector is of.
        arms: by layer what its direction does; all share the unsteered answers.
        placebos: by layer what a random direction of the same length does there.
        limits: what is borne.
        decoding: how texts were made.
        provenance: model, evaluator, prompts, seed.
    """

    value: str
    arms: Mapping[int, Arm]
    placebos: Mapping[int, Arm]
    limits: Limits
    decoding: Decoding
    provenance: Mapping[str, Any]

    @property
    def coefficients(self) -> tuple[float, ...]:
        """Ascending, 0 among them."""
        return next(iter(self.arms.values())).coefficients

    @property
    def effects(self) -> dict[int, Effect]:
        """By layer the change of intensity within the limits."""
        return {layer: effect_within(arm, self.limits) for layer, arm in self.arms.items()}

    def best(self) -> int | None:
        """The layer with the largest change within the limits; None if no text was ranked."""
        changes = {layer: e.change for layer, e in self.effects.items() if np.isfinite(e.change)}
        return max(changes, key=lambda layer: changes[layer]) if changes else None


def layer_sweep(
    loaded: LoadedModel,
    vector: SteeringVector,
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    coefficients: Sequence[float] = COEFFICIENTS,
    placebo_layers: Sequence[int] = (),
    decoding: Decoding | None = None,
    limits: Limits | None = None,
    batch_rows: int = 144,
    seed: int,
    stage: Stage | None = None,
) -> LayerSweep:
    """Measure every layer of a vector at every coefficient, in one sweep over the prompts.

    Args:
        loaded: the model.
        vector: with directions at the layers to sweep.
        evaluator: measures intensities; fitted.
        prompts: asked at every dose.
        coefficients: the same at every layer; 0 is added and measured once for all.
        placebo_layers: layers of the vector to measure a random direction at as well.
        decoding: None for `Decoding()`.
        limits: None for a damage of 0.7 nats per token.
        batch_rows: answers per generate call.
        seed: of the random directions, a different one at each layer.
        stage: progress.

    Raises:
        InvalidInput: coefficients that are not on both sides of 0 or repeat, a placebo layer that
            the vector lacks.
        NotFitted: an evaluator without its scale.
    """
    doses = check_coefficients(coefficients)
    evaluator.check_fitted()
    decoding, tell = decoding or Decoding(), stage or (lambda _name: None)
    named = {f"layer {i}": at_layers(vector, [i]) for i in vector.layers}
    drawn = random_like(vector, seed=seed)
    named |= {f"random {i}": at_layers(drawn, [i]) for i in placebo_layers}
    cells: list[Cell] = [{}, *({name: dose} for name in named for dose in doses)]
    grid = sweep(
        loaded,
        named,
        cells,
        prompts,
        decoding=decoding,
        batch_rows=batch_rows,
        progress=tell("sweep"),
    )
    tell("judge")
    arms = {name: measured(grid, name, evaluator) for name in named}
    provenance = {
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "vector": dict(vector.provenance),
        "judge": evaluator.judge.name,
        "evaluator": evaluator.fingerprint(),
        "prompts": list(prompts),
        "seed": seed,
    }
    return LayerSweep(
        value=vector.value,
        arms={i: arms[f"layer {i}"] for i in vector.layers},
        placebos={i: arms[f"random {i}"] for i in sorted(set(placebo_layers))},
        limits=limits or Limits(DAMAGE_LIMIT),
        decoding=decoding,
        provenance=provenance,
    )


def check_coefficients(coefficients: Sequence[float]) -> list[float]:
    """The coefficients in ascending order, without 0.

    Raises:
        InvalidInput: they repeat, are not finite, or are not on both sides of 0.
    """
    doses = sorted(set(coefficients) - {0.0})
    repeat = len(set(coefficients)) < len(coefficients)
    if repeat or not doses or not doses[0] < 0 < doses[-1] or not np.isfinite(doses).all():
        raise InvalidInput(
            f"coefficients {list(coefficients)}: expected distinct ones on both sides of 0"
        )
    return doses


def vectors_at(
    loaded: LoadedModel,
    vidb: Vidb,
    value: str,
    layers: Sequence[int],
    *,
    estimators: Sequence[str] = ("mean_difference",),
    prompts: Sequence[str],
    template: Template = "auto",
    seed: int,
) -> dict[str, SteeringVector]:
    """By estimator the value's vector at all of the layers; the contrasts are read once.

    Arguments and errors as in `valueflow.steering.derive`; `prompts` give the norms.
    """
    wanted = sorted(set(layers))
    read = answer_activations(
        loaded, contrasts(vidb, value, split="steer"), wanted, template=template
    )
    return {
        name: derive(
            loaded,
            vidb,
            value,
            estimator=name,
            layer=wanted,
            seed=seed,
            prompts=prompts,
            template=template,
            activations=read,
        )
        for name in estimators
    }


def sweep_results(found: LayerSweep) -> dict[str, Any]:
    """The sweep as plain JSON, texts included; null where nothing was measured."""
    best = found.best()
    return {
        "value": found.value,
        "coefficients": list(found.coefficients),
        "limits": asdict(found.limits),
        "decoding": asdict(found.decoding),
        "layers": [
            {"layer": layer, **_arm(arm), "within_limits": _effect(found.effects[layer])}
            for layer, arm in found.arms.items()
        ],
        "random": [{"layer": layer, **_arm(arm)} for layer, arm in found.placebos.items()],
        "best_layer": best,
        "provenance": dict(found.provenance),
    }


def search_results(found: Search) -> dict[str, Any]:
    """A search as plain JSON: the choice, how sure it is, and all that was measured on the way."""
    winner = found.winner
    return {
        "winner": _tried(winner),
        "lead": [_number(x) for x in found.lead],
        "limits": asdict(found.limits),
        "decoding": asdict(found.decoding),
        "rows": found.rows,
        "seed": found.seed,
        "rungs": [
            {
                "prompts": list(rung.prompts),
                "tried": [{**_tried(t), "measured": _arm(t.arm)} for t in rung.tried],
            }
            for rung in found.rungs
        ],
    }


def searched_vector(found: Search) -> SteeringVector:
    """The winner's vector with the search in its provenance."""
    told = {k: v for k, v in search_results(found).items() if k != "rungs"}
    prompts = [prompt for rung in found.rungs for prompt in rung.prompts]
    provenance = {**found.vector.provenance, "search": {**told, "prompts": prompts}}
    return replace(found.vector, provenance=provenance)


def _tried(tried: Tried) -> dict[str, Any]:
    return {
        "candidate": tried.candidate.name,
        **asdict(tried.candidate),
        "layers": list(tried.candidate.layers),
        **_effect(tried.effect),
        "stderr": _number(tried.stderr),
        "best": tried.best,
        "kept": tried.kept,
    }


def _effect(effect: Effect) -> dict[str, Any]:
    return {**asdict(effect), "change": _number(effect.change)}


def _arm(arm: Arm) -> dict[str, Any]:
    return {
        "coefficients": list(arm.coefficients),
        "intensities": _rows(arm.intensities),
        "intensity": [_number(x) for x in arm.means.tolist()],
        "damage": [_number(x) for x in row_means(arm.damage).tolist()],
        "degenerate": list(arm.degenerate),
        "texts": [list(row) for row in arm.texts],
    }


def _rows(table: Float[np.ndarray, "n prompts"]) -> list[list[float | None]]:
    return [[_number(x) for x in row] for row in table.tolist()]


def _number(x: float) -> float | None:
    return x if np.isfinite(x) else None
