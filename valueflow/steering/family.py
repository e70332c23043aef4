"""The steering vectors of several values from one reading of the model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

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
from valueflow.steering.contrasts import Contrast, GradedTexts, contrasts
from valueflow.steering.directions import labels
from valueflow.steering.methods import METHODS, Texts, directions_of, drawn
from valueflow.steering.vector import SteeringVector
from valueflow.theories import get_value

Embed = Callable[[Sequence[str]], Any]
"""Texts -> one embedding each (an array of texts x width)."""


def family_contrasts(
    vidb: GradedTexts, values: Sequence[str], *, split: str = "steer"
) -> list[Contrast]:
    """The contrasts of all values one after the other: what `derive_family` reads.

    Raises what `contrasts` raises.
    """
    return [c for value in values for c in contrasts(vidb, value, split=split)]


def derive_family(
    loaded: LoadedModel,
    vidb: GradedTexts,
    values: Sequence[str],
    *,
    method: str,
    n_ladders: int | None = None,
    layer: int | Sequence[int],
    seed: int,
    split: str = "steer",
    prompts: Sequence[str] | None = None,
    embed: Embed | None = None,
    batch_size: int = 16,
    template: Template = "auto",
    backend: Captures | None = None,
    activations: Activations | None = None,
    progress: Progress | None = None,
) -> dict[str, SteeringVector]:
    """The steering vectors of several values, from one reading of the model.

    Args:
        loaded: the model to steer.
        vidb: graded texts (`valueflow.vidb.Vidb`).
        values: ids or unambiguous names; a value that is to help another must be among them.
        method: a name in `METHODS`.
        n_ladders: ladders per value, drawn at random; None for all. More hold the fewer.
        layer: one or several, 0 = output of block 0.
        seed: draws the ladders, and shuffles the tree of the placebo.
        split: the part of the database to learn from.
        prompts: calibration prompts for the norms; None for the tokens of the answers.
        embed: texts to embeddings, for the method `matched`.
        batch_size: texts per forward pass.
        template: the format of the conversation.
        backend: what runs the model; None for transformers with hooks.
        activations: of `family_contrasts` if they were read before.
        progress: called with the number of texts done and of all.

    Raises:
        UnknownName: no such value, split or method.
        InvalidInput: no values, a value twice, too few ladders with both poles, activations of
            other contrasts, or no `embed` where the method needs it.
    """
    METHODS[method]  # noqa: B018  A wrong name fails here, before the model runs.
    ids = [get_value(value).id for value in values]
    if not ids or len(set(ids)) < len(ids) or (n_ladders is not None and n_ladders < 1):
        raise InvalidInput(
            f"expected values, each once, and one ladder or more; got {ids} and {n_ladders} ladders"
        )
    layers = [layer] if isinstance(layer, int) else sorted(set(layer))
    graded = {value: contrasts(vidb, value, split=split) for value in ids}
    flat = [contrast for part in graded.values() for contrast in part]
    options: dict[str, Any] = {"batch_size": batch_size, "template": template, "backend": backend}
    # Before the answers are read, which takes far longer: a prompt may be refused.
    told = None if prompts is None else typical_norms(loaded, prompts, layers, **options)
    if activations is None:
        activations = answer_activations(loaded, flat, layers, progress=progress, **options)
    rows = _rows(activations, layers, {value: len(part) for value, part in graded.items()})
    norms = activations.norms if told is None else told
    directions: dict[str, dict[int, Tensor]] = {value: {} for value in ids}
    for each in layers:
        family = {
            value: _texts(rows[each][value], part, embed if method == "matched" else None)
            for value, part in graded.items()
        }
        if n_ladders is not None:
            family = drawn(family, n_ladders, seed=seed)
        found = directions_of(family, method, rng=np.random.default_rng(seed))
        for value, direction in found.items():
            directions[value][each] = direction
    provenance = {
        "operation": "derive_family",
        "library_version": valueflow.__version__,
        "model": {"name": loaded.name, **asdict(loaded.fingerprint)},
        "template": template,
        "vidb": vidb.fingerprint(),
        "family": ids,
        "split": split,
        "method": method,
        "n_ladders": n_ladders,
        "norms": "answers" if prompts is None else "prompts",
        "seed": seed,
    }
    chosen = {each: norms[each] for each in layers}
    return {
        value: SteeringVector(
            value if method != "shuffled_tree" else f"shuffled_tree({value})",
            directions[value],
            chosen,
            {**provenance, "value": value},
        )
        for value in ids
    }


def _texts(
    rows: Float[Tensor, "texts hidden"], graded: Sequence[Contrast], embed: Embed | None
) -> Texts:
    embeddings = None
    if embed is not None:
        found = np.asarray(embed([c.text for c in graded]), dtype=np.float32)
        embeddings = torch.from_numpy(found)
    return Texts(rows, *labels(graded), embeddings)


def _rows(
    activations: Activations, layers: Sequence[int], lengths: Mapping[str, int]
) -> dict[int, dict[str, Float[Tensor, "texts hidden"]]]:
    missing = [layer for layer in layers if layer not in activations.by_layer]
    if missing or not layers:
        raise InvalidInput(f"activations have no layer {missing or 'at all'}; read it as well")
    found, expected = len(activations.by_layer[layers[0]]), sum(lengths.values())
    if found != expected:
        raise InvalidInput(f"activations of {found} texts, but the contrasts are {expected}")
    return {
        layer: dict(
            zip(lengths, activations.by_layer[layer].split(list(lengths.values())), strict=True)
        )
        for layer in layers
    }
