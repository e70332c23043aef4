"""From a value's graded texts to its steering vector; every step is a verb of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

import valueflow
from valueflow.errors import InvalidInput
from valueflow.models.chat import Template
from valueflow.models.loading import LoadedModel
from valueflow.steering.activations import (
    Activations,
    Captures,
    Progress,
    answer_activations,
    typical_norms,
)
from valueflow.steering.contrasts import GradedTexts, contrasts, shuffled
from valueflow.steering.directions import (
    ESTIMATORS,
    LayerScore,
    choose_layer,
    labels,
    middle_layers,
)
from valueflow.steering.vector import SteeringVector
from valueflow.theories import get_value


def derive(
    loaded: LoadedModel,
    vidb: GradedTexts,
    value: str,
    *,
    estimator: str = "mean_difference",
    layer: Literal["auto"] | int | Sequence[int] = "auto",
    seed: int,
    split: str = "steer",
    prompts: Sequence[str] | None = None,
    shuffle_labels: bool = False,
    batch_size: int = 16,
    template: Template = "auto",
    backend: Captures | None = None,
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> SteeringVector:
    """The steering vector of a value: contrasts, their activations, a layer, a direction.

    Args:
        loaded: the model to steer.
        vidb: graded texts (`valueflow.vidb.Vidb`).
        value: id or unambiguous name of a value.
        estimator: a name in `ESTIMATORS`.
        layer: "auto" takes the one of the middle half that separates held-out ladders best; one or
            several given layers are taken as they are.
        seed: deals ladders to folds and shuffles labels.
        split: the part of the database to learn from.
        prompts: calibration prompts, whose content tokens give the norms that coefficients are
            multiples of; None for the tokens of the contrasts' answers.
        shuffle_labels: make the label-shuffled placebo instead.
        batch_size: texts per forward pass.
        template: the format of the conversation.
        backend: what runs the model; None for transformers with hooks.
        activations: of these very contrasts (`contrasts`, `answer_activations`) if they were read
            before: a vector and its shuffled placebos need them but once.
        progress: called with the number of texts done and of all.

    Raises:
        UnknownName: no such value, split or estimator.
        InvalidInput: too few texts with both poles, a layer the model lacks, activations of
            other contrasts or without a layer that is wanted.
    """
    estimate, full_id = ESTIMATORS[estimator], get_value(value).id
    rng = np.random.default_rng(seed)
    graded = contrasts(vidb, value, split=split)
    if shuffle_labels:
        graded = shuffled(graded, rng=rng)
    options: dict[str, Any] = {"batch_size": batch_size, "template": template, "backend": backend}
    wanted = _wanted(layer, loaded.n_layers)
    if activations is None:
        activations = answer_activations(loaded, graded, wanted, progress=progress, **options)
    _check_read(activations, len(graded), wanted)
    scores: dict[int, LayerScore] = {}
    if layer == "auto":
        best, scores = choose_layer(activations, graded, estimator=estimate, rng=rng)
        wanted = [best]
    intensities, ladders = labels(graded)
    directions = {i: estimate(activations.by_layer[i], intensities, ladders) for i in wanted}
    norms: Mapping[int, float] = activations.norms
    if prompts is not None:
        norms = typical_norms(loaded, prompts, wanted, **options)
    provenance = {
        "operation": "derive",
        "library_version": valueflow.__version__,
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "template": template,
        "vidb": vidb.fingerprint(),
        "value": full_id,
        "split": split,
        "texts": len(graded),
        "labels": "shuffled" if shuffle_labels else "true",
        "estimator": estimator,
        "layer": layer if isinstance(layer, str | int) else list(layer),
        "layer_scores": {str(i): score._asdict() for i, score in scores.items()},
        "norms": "answers" if prompts is None else "prompts",
        "seed": seed,
    }
    name = f"shuffled({full_id})" if shuffle_labels else full_id
    return SteeringVector(name, directions, {i: norms[i] for i in wanted}, provenance)


def _check_read(activations: Activations, n_texts: int, layers: Sequence[int]) -> None:
    missing = [i for i in layers if i not in activations.by_layer]
    if missing:
        raise InvalidInput(f"activations have no layer {missing[0]}; read it as well")
    found = len(activations.by_layer[layers[0]])
    if found != n_texts:
        raise InvalidInput(f"activations of {found} texts, but the contrasts are {n_texts}")


def _wanted(layer: Literal["auto"] | int | Sequence[int], n_layers: int) -> list[int]:
    if layer == "auto":
        return middle_layers(n_layers)
    if isinstance(layer, str):
        raise InvalidInput(f"layer {layer!r}: expected 'auto', a number or several numbers")
    return [layer] if isinstance(layer, int) else sorted(set(layer))
