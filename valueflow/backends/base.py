"""What an intervention is, and what every backend can do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.errors import InvalidInput

Positions = Literal["all", "prompt", "generated", "last"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated", "last")


@dataclass(frozen=True)
class Intervention:
    """Additions to the residual stream, a different one for every row of the batch.

    At the output of each layer in `directions`, row r gets
    `norms[layer] * coefficients[r] @ directions[layer]` added at the positions in scope.

    Attributes:
        directions: per layer (0 = output of block 0) the unit directions, shape (values, hidden).
        norms: per layer the typical residual norm that a coefficient of 1 stands for.
        coefficients: shape (rows, values), multiples of the typical norm. One row serves every
            row of a batch.
        positions: "all"; "prompt" or "generated" alone; "last", the last prompt token alone.
            Padding is never in scope. Positions count from the first token of the prompt, so a
            KV cache or padding does not shift them.

    Raises:
        InvalidInput: layers of `directions` and `norms` differ, shapes do not fit, a number is
            not finite, a scope is unknown.
    """

    directions: Mapping[int, Float[Tensor, "values hidden"]]
    norms: Mapping[int, float]
    coefficients: Float[Tensor, "rows values"]
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if set(self.directions) != set(self.norms):
            raise InvalidInput(
                f"directions are for layers {sorted(self.directions)}, "
                f"norms for {sorted(self.norms)}; expected the same layers"
            )
        if self.positions not in POSITIONS:
            raise InvalidInput(f"positions must be one of {POSITIONS}, got {self.positions!r}")
        if self.coefficients.ndim != 2:
            raise InvalidInput(
                f"coefficients: expected (rows, values), got {self.coefficients.shape}"
            )
        for layer, direction in self.directions.items():
            if direction.ndim != 2 or direction.shape[0] != self.coefficients.shape[1]:
                raise InvalidInput(
                    f"layer {layer}: directions {tuple(direction.shape)} do not fit "
                    f"coefficients {tuple(self.coefficients.shape)}; expected (values, hidden)"
                )
            if not bool(direction.isfinite().all()):
                raise InvalidInput(f"layer {layer}: a direction is not finite")
        if not bool(self.coefficients.isfinite().all()):
            raise InvalidInput("a coefficient is not finite")

    def deltas(self) -> dict[int, Float[Tensor, "rows hidden"]]:
        """What is added at each layer, in fp32; layers that would get only zeros are left out."""
        if not bool(self.coefficients.any()):
            return {}
        weights = self.coefficients.float()
        return {
            layer: self.norms[layer] * weights @ direction.float()
            for layer, direction in self.directions.items()
        }


class Backend(Protocol):
    """A loaded model that gives activations and takes interventions."""

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        ...

    def capture(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "batch seq hidden"]]:
        """Residual stream after each of `layers`."""
        ...

    def generate(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        intervention: Intervention | None,
        **options: object,
    ) -> Int[Tensor, "rows new"]:
        """New token ids only, one row per sequence."""
        ...

    def token_nll(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        scored: Bool[Tensor, "batch seq"],
    ) -> Float[Tensor, " batch"]:
        """Mean negative log-likelihood, in nats, of the scored tokens of each row."""
        ...
