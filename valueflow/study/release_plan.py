"""How a release is measured, and where its vectors and placebos come from."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from valueflow.dose.calibrate import COEFFICIENTS, DAMAGE_LIMIT, TARGETS
from valueflow.dose.prompts import load_prompts
from valueflow.dose.recheck import used_prompts
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput
from valueflow.models.loading import LoadedModel
from valueflow.steering.activations import answer_activations
from valueflow.steering.contrasts import contrasts
from valueflow.steering.derivation import derive
from valueflow.steering.directions import middle_layers
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.study.nuisance import controlled
from valueflow.study.specificity import siblings_of
from valueflow.theories import get_value, steered_values
from valueflow.vidb import Vidb

Deriver = Callable[[str, int | None], SteeringVector]
"""Value id, and None for its vector or a seed for a label-shuffled placebo of it."""


@dataclass(frozen=True)
class Plan:
    """How every value of a release is measured; part of every card.

    Attributes:
        layer: "auto", or the layers that all values share (so they share random placebos too).
        apart: ids of the values out of whose vectors those of their siblings are projected.
        coefficients: of the sweep.
        targets: asked for on the verification prompts.
        n_calibration: prompts of the calibration suite, from its start.
        n_verification: prompts of the verification suite, from its start.
        random_draws: random directions, measured at all the coefficients.
        shuffled_draws: label-shuffled vectors, measured at the ends of the usable range.
        decoding: how texts are made.
        damage_limit: nats per token.
        seed: of folds, placebos, panels and bootstrap.
    """

    layer: Literal["auto"] | tuple[int, ...] = "auto"
    apart: tuple[str, ...] = ()
    coefficients: tuple[float, ...] = COEFFICIENTS
    targets: tuple[float, ...] = TARGETS
    n_calibration: int = 24
    n_verification: int = 24
    random_draws: int = 3
    shuffled_draws: int = 1
    decoding: Decoding = field(default_factory=Decoding)
    damage_limit: float = DAMAGE_LIMIT
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        told = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in told.items()}


def check_plan(plan: Plan) -> None:
    """Refuse a plan that cannot be carried out.

    Raises:
        InvalidInput: no coefficient 0, more prompts than the suites hold, or a vector to be set
            apart from siblings when every value has a layer of its own.
    """
    if 0.0 not in plan.coefficients:
        raise InvalidInput("coefficients must include 0: damage is measured against it")
    if plan.apart and plan.layer == "auto":
        raise InvalidInput("values set apart from siblings need layers that all share; give them")
    suites: tuple[Literal["calibration", "verification"], ...] = ("calibration", "verification")
    for suite, n in zip(suites, (plan.n_calibration, plan.n_verification), strict=True):
        held = len(load_prompts(suite))
        if not 2 <= n <= held:
            raise InvalidInput(f"{suite} prompts: expected 2 to {held}, got {n}")


def steered_siblings(value: str) -> list[str]:
    """Ids of the siblings that have vectors of their own."""
    return siblings_of(value, [own.id for own in steered_values(get_value(value).theory)])


def plan_deriver(loaded: LoadedModel, vidb: Vidb, plan: Plan) -> Deriver:
    """`derive` as a plan says; a value's contrasts are read once for it and its placebos.

    Label-shuffled placebos are set apart from the same siblings as the value's own vector. What is
    set apart is still the value's vector, by its id; provenance says what was projected out.
    """
    prompts = load_prompts("calibration")[: plan.n_calibration]
    layers = middle_layers(loaded.n_layers) if plan.layer == "auto" else list(plan.layer)
    template = plan.decoding.template
    read: dict[str, Any] = {}
    siblings: dict[str, SteeringVector] = {}

    def deriver(value: str, shuffle: int | None) -> SteeringVector:
        vector = plain(value, shuffle)
        if value not in plan.apart:
            return vector
        for other in steered_siblings(value):
            if other not in siblings:
                siblings[other] = plain(other, None)
        family = {value: vector} | {other: siblings[other] for other in steered_siblings(value)}
        # A projection names itself by its formula, but a card is looked up by a value's id.
        return replace(controlled(family, "siblings")[value], value=vector.value)

    def plain(value: str, shuffle: int | None) -> SteeringVector:
        if value not in read:
            read.clear()
            graded = contrasts(vidb, value, split="steer")
            read[value] = answer_activations(loaded, graded, layers, template=template)
        layer: Any = plan.layer if plan.layer == "auto" else list(plan.layer)
        if shuffle is not None and plan.layer == "auto":
            layer = list(plain(value, None).layers)
        return derive(
            loaded,
            vidb,
            value,
            layer=layer,
            seed=plan.seed if shuffle is None else shuffle,
            shuffle_labels=shuffle is not None,
            prompts=prompts,
            template=template,
            activations=read[value],
        )

    return deriver


def unused_prompts(cards: Sequence[Card], n_prompts: int, *, seed: int) -> list[str]:
    """Shipped prompts that none of the cards was calibrated or verified on, drawn by a seed.

    Raises:
        InvalidInput: fewer than that are left.
    """
    used = {prompt for card in cards for prompt in used_prompts(card)}
    left = [p for p in load_prompts("verification") if p not in used]
    if len(left) < n_prompts:
        raise InvalidInput(
            f"{n_prompts} prompts asked for, {len(left)} were not used for the cards"
        )
    order = np.random.default_rng(seed).permutation(len(left))
    return [left[i] for i in sorted(order[:n_prompts].tolist())]


def random_placebo(vector: SteeringVector, *, seed: int) -> SteeringVector:
    """A random unit direction that depends on layers, norms, model and seed, not on the value."""
    one = torch.zeros(vector.hidden_size)
    one[0] = 1.0
    provenance = {"model": vector.provenance["model"]} if "model" in vector.provenance else {}
    unit = SteeringVector(
        "unit", {layer: one for layer in vector.layers}, dict(vector.norms), provenance
    )
    return random_like(unit, seed=seed)
