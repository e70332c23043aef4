"""Where a vector may act: layers and positions to choose among, and doses that compare."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from valueflow.backends.base import Positions, check_layers
from valueflow.errors import InvalidInput
from valueflow.steering.vector import SteeringVector

SCOPES: tuple[Positions, ...] = ("all", "generated")


@dataclass(frozen=True)
class Candidate:
    """Layers and positions at which a vector acts, and how its directions were estimated.

    Attributes:
        layers: ascending, 0 = output of block 0.
        positions: tokens that get the addition.
        estimator: a name in `valueflow.steering.ESTIMATORS`.
    """

    layers: tuple[int, ...]
    positions: Positions = "all"
    estimator: str = "mean_difference"

    @property
    def name(self) -> str:
        """As one reads it: "layers 8-10, generated, lda"."""
        first, last = self.layers[0], self.layers[-1]
        unbroken = self.layers == tuple(range(first, last + 1))
        if len(self.layers) == 1:
            where = f"layer {first}"
        elif unbroken:
            where = f"layers {first}-{last}"
        else:
            where = f"layers {','.join(map(str, self.layers))}"
        return f"{where}, {self.positions}, {self.estimator}"


def layer_sets(layers: Sequence[int], *, stride: int = 1, window: int = 3) -> list[tuple[int, ...]]:
    """Single layers, windows of neighbours and all of the layers together, without doubles.

    Args:
        layers: to choose among; `valueflow.steering.middle_layers` for the middle half.
        stride: between single layers, and between the first layers of windows, counted in `layers`.
        window: neighbours in a window, neighbours being next to each other in `layers`; 1 for none.

    Raises:
        InvalidInput: no layers, a stride or window below 1.
    """
    if not layers or stride < 1 or window < 1:
        raise InvalidInput(
            f"expected layers, and stride and window of 1 or more; got {len(layers)} layers, "
            f"{stride} and {window}"
        )
    own = sorted(set(layers))
    sets = [(layer,) for layer in own[::stride]]
    sets += [tuple(own[i : i + window]) for i in range(0, len(own) - window + 1, stride)]
    return list(dict.fromkeys([*sets, tuple(own)]))


def candidates(
    layers: Iterable[Sequence[int]],
    *,
    scopes: Sequence[Positions] = SCOPES,
    estimators: Sequence[str] = ("mean_difference",),
) -> list[Candidate]:
    """Every set of layers with every scope and estimator.

    Raises:
        InvalidInput: nothing to choose among, or an empty set of layers.
    """
    sets = [tuple(sorted(set(own))) for own in layers]
    found = [Candidate(s, scope, e) for e in estimators for scope in scopes for s in sets]
    if not found or not all(sets):
        raise InvalidInput("expected one or more sets of layers, scopes and estimators")
    return list(dict.fromkeys(found))


def at_layers(vector: SteeringVector, layers: Sequence[int]) -> SteeringVector:
    """The vector at some of its layers.

    Raises:
        InvalidInput: a layer that it has no direction for.
    """
    missing = sorted(set(layers) - set(vector.layers))
    if missing:
        raise InvalidInput(
            f"{vector.value} has no direction at layer {missing[0]}; it has {list(vector.layers)}"
        )
    kept = sorted(set(layers))
    return replace(
        vector,
        directions={layer: vector.directions[layer] for layer in kept},
        norms={layer: vector.norms[layer] for layer in kept},
        provenance={**vector.provenance, "at_layers": kept},
    )


def reach(vector: SteeringVector) -> float:
    """What a coefficient of 1 adds up to, in typical norms of the last layer; 1 for a single layer.

    Blocks pass the residual stream on, so that what is added at several layers adds up: three
    layers with the same direction and like norms have a reach of 3. What blocks do to an addition
    is left out, so this sets the first doses to try and decides nothing.
    """
    total = torch.stack(
        [vector.norms[layer] * vector.directions[layer].double() for layer in vector.layers]
    ).sum(0)
    single = vector.norms[vector.layers[-1]] * vector.directions[vector.layers[-1]].double().norm()
    # Opposed directions nearly cancel, which does not make them harmless.
    return max(float(total.norm() / single), 1.0)


def check_candidates(
    given: Sequence[Candidate], vectors: Mapping[str, SteeringVector], n_layers: int
) -> None:
    """Refuse before anything is generated.

    Raises:
        InvalidInput: fewer than two or equal candidates, a layer the model lacks, an estimator
            without a vector, or a vector without a candidate's layer.
    """
    if len(given) < 2 or len(set(given)) < len(given):
        raise InvalidInput(f"expected two or more different candidates, got {len(given)}")
    for candidate in given:
        check_layers(candidate.layers, n_layers)
        if candidate.estimator not in vectors:
            raise InvalidInput(
                f"candidate {candidate.name!r}: there are vectors of {sorted(vectors)} alone"
            )
        at_layers(vectors[candidate.estimator], candidate.layers)
