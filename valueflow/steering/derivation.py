"""From a value's graded texts to its steering vector; every step is a verb of its own."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, SupportsIndex

import numpy as np

import valueflow
from valueflow.errors import InvalidInput
from valueflow.models.chat import Template, checked_texts
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

Layers = Literal["auto"] | SupportsIndex | Sequence[SupportsIndex]
"""Which layers a vector is of; numpy's integers are numbers of layers as well."""


def derive(
    loaded: LoadedModel,
    vidb: GradedTexts,
    value: str,
    *,
    estimator: str = "mean_difference",
    layer: Layers = "auto",
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
        InvalidInput: too few texts with both poles, a layer that is no integer or that the model
            lacks, prompts that are one string or that `typical_norms` refuses, activations of other
            contrasts or without a layer that is wanted.
    """
    asked = _asked(layer)
    if prompts is not None:
        prompts = checked_texts("prompts", prompts)
    estimate, full_id = ESTIMATORS[estimator], get_value(value).id
    rng = np.random.default_rng(seed)
    graded = contrasts(vidb, value, split=split)
    if shuffle_labels:
        graded = shuffled(graded, rng=rng)
    options: dict[str, Any] = {"batch_size": batch_size, "template": template, "backend": backend}
    wanted = middle_layers(loaded.n_layers) if asked == "auto" else _several(asked)
    norms: Mapping[int, float] = {}
    if prompts is not None:
        # Before the answers are read, which takes far longer: a prompt may be refused.
        norms = typical_norms(loaded, prompts, wanted, **options)
    if activations is None:
        activations = answer_activations(loaded, graded, wanted, progress=progress, **options)
    _check_read(activations, len(graded), wanted)
    scores: dict[int, LayerScore] = {}
    if asked == "auto":
        best, scores = choose_layer(activations, graded, estimator=estimate, rng=rng)
        wanted = [best]
    intensities, ladders = labels(graded)
    directions = {i: estimate(activations.by_layer[i], intensities, ladders) for i in wanted}
    norms = norms if prompts is not None else activations.norms
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
        "layer": asked,
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


def _asked(layer: Layers) -> Literal["auto"] | int | list[int]:
    """The layers as plain JSON, in the order given."""
    if isinstance(layer, str):
        if layer == "auto":
            return "auto"
        raise InvalidInput(f"layer {layer!r}: expected 'auto', a number or several numbers")
    return _number(layer) if np.ndim(layer) == 0 else [_number(each) for each in layer]  # type: ignore[union-attr]


def _number(layer: object) -> int:
    # A flag is an integer to Python, but whoever gives one means no layer.
    if not isinstance(layer, bool) and isinstance(layer, SupportsIndex):
        return operator.index(layer)
    raise InvalidInput(
        f"layer {layer!r}: expected 'auto', a whole number or several, such as 12 or [11, 12]"
    )


def _several(layers: int | list[int]) -> list[int]:
    return [layers] if isinstance(layers, int) else sorted(set(layers))
