"""Steering vectors and their algebra."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.backends.base import Intervention, Positions
from valueflow.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """What to add to the residual stream for one value, or for a combination of values.

    A coefficient c adds `c * norms[layer] * directions[layer]` at each layer. As derived or
    `renormalised`, directions have length 1; sums, multiples and projections in general have not,
    so that `2 * v` does at coefficient 1 what `v` does at 2.

    Attributes:
        value: id of the value, or how values were combined: "0.7*svt/power - 0.3*svt/hedonism".
        directions: per layer (0 = output of block 0).
        norms: per layer the typical residual norm that a coefficient of 1 stands for.
        provenance: plain JSON. "model" names the model it is for; vectors of different models do
            not combine.

    Raises:
        InvalidInput: no layer, layers of `directions` and `norms` that differ, directions of
            different sizes, a number that is not finite, a norm that is not positive.
    """

    value: str
    directions: Mapping[int, Float[Tensor, " hidden"]]
    norms: Mapping[int, float]
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not self.directions or set(self.directions) != set(self.norms):
            raise InvalidInput(
                f"directions are for layers {sorted(self.directions)}, norms for "
                f"{sorted(self.norms)}; expected the same layers, one or more"
            )
        shapes = {tuple(direction.shape) for direction in self.directions.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            raise InvalidInput(f"expected directions of one size (hidden,), got {sorted(shapes)}")
        for layer, direction in self.directions.items():
            if not bool(direction.isfinite().all()):
                raise InvalidInput(f"layer {layer}: a direction is not finite")
            if not (math.isfinite(self.norms[layer]) and self.norms[layer] > 0):
                raise InvalidInput(
                    f"layer {layer}: expected a positive norm, got {self.norms[layer]}"
                )

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it has directions for, ascending."""
        return tuple(sorted(self.directions))

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream it is for."""
        return next(iter(self.directions.values())).shape[0]

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        """What adds as much as both; in units of this one's norms where they differ."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        _check_alike(self, [other])
        directions = {
            layer: mine
            + (other.norms[layer] / self.norms[layer]) * other.directions[layer].to(mine)
            for layer, mine in self.directions.items()
        }
        return _combination(self, directions, _terms(self) + _terms(other))

    def __mul__(self, factor: float | int) -> "SteeringVector":
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        factor = float(factor)
        terms = [term | {"coefficient": factor * term["coefficient"]} for term in _terms(self)]
        return _combination(self, {k: factor * d for k, d in self.directions.items()}, terms)

    __rmul__ = __mul__

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        if not isinstance(other, SteeringVector):
            return NotImplemented
        return self + other * -1.0

    def cosine(self, other: "SteeringVector") -> float:
        """Cosine of the angle between two vectors, in [-1, 1]; 0 if one of them is zero.

        Directions of several layers are taken as one long vector.

        Raises:
            InvalidInput: layers, hidden size or model differ.
        """
        _check_alike(self, [other])
        mine, theirs = _joined(self, self.layers), _joined(other, self.layers)
        scale = float(mine.norm() * theirs.norm())
        return 0.0 if scale == 0 else max(-1.0, min(1.0, float(mine @ theirs) / scale))

    def project_out(self, others: Sequence["SteeringVector"]) -> "SteeringVector":
        """What is left without the parts along `others`, at every layer orthogonal to all of them.

        Others that depend on each other, or are zero, do no harm. The result is shorter than
        before: a coefficient stands for less unless it is `renormalised`.

        Raises:
            InvalidInput: layers, hidden size or model differ.
        """
        _check_alike(self, others)
        if not others:
            return self
        directions = {}
        for layer, mine in self.directions.items():
            stacked = torch.stack([other.directions[layer].to(mine) for other in others])
            directions[layer] = (mine.double() - _part_along(mine, stacked)).to(mine.dtype)
        value = f"{self.value} without {', '.join(other.value for other in others)}"
        without = [dict(other.provenance) for other in others]
        provenance = _derived("project_out", self, others=without)
        return replace(self, value=value, directions=directions, provenance=provenance)

    def renormalised(self) -> "SteeringVector":
        """The same direction with length 1 at every layer.

        Raises:
            InvalidInput: a direction is zero, or nothing but the rounding error of a projection.
        """
        lengths = {k: float(d.double().norm()) for k, d in self.directions.items()}
        vanishing = [layer for layer, length in lengths.items() if length < 1e-5]
        if vanishing:
            raise InvalidInput(f"{self.value} is (almost) zero at layers {vanishing}: no direction")
        directions = {k: (d.double() / lengths[k]).to(d.dtype) for k, d in self.directions.items()}
        provenance = _derived("renormalised", self)
        value = f"unit({self.value})"
        return replace(self, value=value, directions=directions, provenance=provenance)

    def to(
        self, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> "SteeringVector":
        """The same vector elsewhere or in another precision."""
        directions = {k: d.to(device=device, dtype=dtype) for k, d in self.directions.items()}
        return replace(self, directions=directions)


def random_like(vector: SteeringVector, *, seed: int) -> SteeringVector:
    """The random placebo: at every layer a uniformly drawn direction of the same length."""
    generator = torch.Generator().manual_seed(seed)
    directions = {}
    for layer in vector.layers:
        given = vector.directions[layer]
        drawn = torch.randn(given.shape, generator=generator, dtype=torch.float64)
        length = given.double().norm().cpu()
        directions[layer] = (drawn * (length / drawn.norm())).to(given)
    provenance = _derived("random_like", vector, seed=seed)
    value = f"random({vector.value})"
    return replace(vector, value=value, directions=directions, provenance=provenance)


def intervention(
    vectors: Sequence[SteeringVector],
    coefficients: Float[Tensor, "rows values"] | Sequence[Sequence[float | int]],
    *,
    positions: Positions = "all",
) -> Intervention:
    """Several vectors at once, in every batch row with its own coefficients.

    Each vector acts at its own layers and by its own norms.

    Args:
        vectors: one or more, for one model.
        coefficients: one row per batch row (or one for all), one column per vector; multiples of
            the typical residual norm.
        positions: which tokens get the addition (`valueflow.backends.base.Intervention`).

    Raises:
        InvalidInput: no vectors, vectors of different models or hidden sizes, not one column per
            vector, or what `Intervention` refuses.
    """
    if not vectors:
        raise InvalidInput("expected one or more steering vectors, got none")
    _check_alike(vectors[0], vectors[1:], same_layers=False)
    first = vectors[0].directions[vectors[0].layers[0]]
    table = torch.as_tensor(coefficients, dtype=torch.float32).to(first.device)
    if table.ndim != 2 or table.shape[1] != len(vectors):
        raise InvalidInput(
            f"coefficients: expected (rows, {len(vectors)}), one column per vector, "
            f"got {tuple(table.shape)}"
        )
    directions, norms = {}, {}
    for layer in sorted({layer for vector in vectors for layer in vector.layers}):
        # An intervention has one norm per layer; a vector with another is stretched to fit.
        norms[layer] = next(v.norms[layer] for v in vectors if layer in v.norms)
        rows = [
            vector.directions[layer].to(first) * (vector.norms[layer] / norms[layer])
            if layer in vector.norms
            else torch.zeros_like(first)
            for vector in vectors
        ]
        directions[layer] = torch.stack(rows)
    return Intervention(directions, norms, table, positions)


def _check_alike(
    first: SteeringVector, others: Sequence[SteeringVector], *, same_layers: bool = True
) -> None:
    for other in others:
        if same_layers and other.layers != first.layers:
            raise InvalidInput(
                f"{first.value} has layers {list(first.layers)}, "
                f"{other.value} has {list(other.layers)}; derive both at the same layers"
            )
        if other.hidden_size != first.hidden_size:
            raise InvalidInput(
                f"{first.value} has hidden size {first.hidden_size}, {other.value} has "
                f"{other.hidden_size}: they are for different models"
            )
        models = [_model(vector) for vector in (first, other)]
        if None not in models and models[0] != models[1]:
            raise InvalidInput(
                f"{first.value} was made for {models[0]}, {other.value} for {models[1]}: "
                "derive both from the same model"
            )


def _model(vector: SteeringVector) -> Any:
    model = vector.provenance.get("model")
    return model.get("model") if isinstance(model, Mapping) else None


def _joined(vector: SteeringVector, layers: Sequence[int]) -> Float[Tensor, " all_layers"]:
    return torch.cat([vector.directions[layer].detach().double().cpu() for layer in layers])


def _part_along(
    vector: Float[Tensor, " hidden"], others: Float[Tensor, "values hidden"]
) -> Float[Tensor, " hidden"]:
    """The part of a vector within the span of others, fp64."""
    lengths = others.double().norm(dim=1, keepdim=True)
    # Scaled first, so that a short vector is not taken for a dependent one.
    units = others.double() / lengths.where(lengths > 0, 1.0)
    _, strengths, axes = torch.linalg.svd(units, full_matrices=False)
    axes = axes[strengths > 1e-6]
    return (axes @ vector.double()) @ axes


def _terms(vector: SteeringVector) -> list[dict[str, Any]]:
    """The vectors it is a linear combination of, with their coefficients and provenance."""
    if vector.provenance.get("operation") == "combination":
        return list(vector.provenance["terms"])
    own = dict(vector.provenance)
    return [{"value": vector.value, "coefficient": 1.0, "provenance": own}]


def _combination(
    like: SteeringVector,
    directions: Mapping[int, Tensor],
    terms: Sequence[Mapping[str, Any]],
) -> SteeringVector:
    merged: dict[str, dict[str, Any]] = {}
    for term in terms:
        key = json.dumps([term["value"], term["provenance"]], sort_keys=True)
        before = merged[key]["coefficient"] if key in merged else 0.0
        merged[key] = {**term, "coefficient": before + term["coefficient"]}
    kept = [term for term in merged.values() if term["coefficient"] != 0]
    provenance = {"operation": "combination", "terms": kept}
    if "model" in like.provenance:
        provenance["model"] = like.provenance["model"]
    return SteeringVector(_expression(kept), directions, like.norms, provenance)


def _expression(terms: Sequence[Mapping[str, Any]]) -> str:
    """Terms as one reads them: "0.7*svt/power - 0.3*svt/hedonism"; "0" for none."""
    text = ""
    for term in terms:
        size = abs(term["coefficient"])
        sign = "-" if term["coefficient"] < 0 else "+"
        factor = "" if size == 1 else f"{size:g}*"
        lead = f" {sign} " if text else sign.strip("+")
        value = f"({term['value']})" if " " in term["value"] else term["value"]
        text += f"{lead}{factor}{value}"
    return text or "0"


def _derived(operation: str, vector: SteeringVector, **details: Any) -> dict[str, Any]:
    provenance = {"operation": operation, **details, "of": dict(vector.provenance)}
    if "model" in vector.provenance:
        provenance["model"] = vector.provenance["model"]
    return provenance
