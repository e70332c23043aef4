"""What an intervention is, and what every backend can do."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.backends.operators import Plan, plan
from valueflow.errors import InvalidInput

Positions = Literal["all", "prompt", "generated", "last"]
POSITIONS: tuple[Positions, ...] = ("all", "prompt", "generated", "last")


@dataclass(frozen=True, eq=False)
class Intervention:
    """What is done to the residual stream, something else in every row of the batch.

    At the output of each layer in `directions`, at the positions in scope, three things happen to
    row r in this order:

    1. The components along directions that the row holds are set: at 0 a direction is projected
       out (ablated), at c its component becomes `c * norms[layer]` (clamped). Directions held
       together are held jointly, whatever the angles between them.
    2. `norms[layer] * coefficients[r] @ directions[layer]` is added. A direction that is held at
       c and added with d ends at c + d.
    3. With `keep_norm`, each token is scaled to the length it had before, and what was held at c
       is scaled with it.

    Directions need not have length 1. One of length L counts L times when it is added, and a
    component held at c becomes `c * norms[layer] * L` along the unit direction, so that holding
    at c is projecting out and adding c; projecting out does not depend on L.

    Attributes:
        directions: per layer (0 = output of block 0) the unit directions, shape (values, hidden).
        norms: per layer the typical residual norm that a coefficient of 1 stands for.
        coefficients: shape (rows, values), multiples of the typical norm. One row serves every
            row of a batch.
        positions: "all"; "prompt" or "generated" alone; "last", the last prompt token alone.
            Padding of the prompt is never in scope. Positions count from the start of the prompt,
            so a KV cache or padding does not shift them.
        held: shape (rows, values), where components are set to, in the unit of `coefficients`; 0
            projects out, NaN leaves a component as it is. None holds nothing.
        keep_norm: whether tokens keep their length, for all rows or, shape (rows,), for each.

    Raises:
        InvalidInput: layers of `directions` and `norms` differ, shapes do not fit, a number is
            not finite, a norm is not positive, a scope is unknown.
    """

    directions: Mapping[int, Float[Tensor, "values hidden"]]
    norms: Mapping[int, float]
    coefficients: Float[Tensor, "rows values"]
    positions: Positions = "all"
    held: Float[Tensor, "rows values"] | None = None
    keep_norm: Bool[Tensor, " rows"] | bool = False

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
                f"coefficients: expected (rows, values), got {tuple(self.coefficients.shape)}"
            )
        for layer, direction in self.directions.items():
            if direction.ndim != 2 or direction.shape[0] != self.coefficients.shape[1]:
                raise InvalidInput(
                    f"layer {layer}: directions {tuple(direction.shape)} do not fit "
                    f"coefficients {tuple(self.coefficients.shape)}; expected (values, hidden)"
                )
            if not bool(direction.isfinite().all()):
                raise InvalidInput(f"layer {layer}: a direction is not finite")
            if not (math.isfinite(self.norms[layer]) and self.norms[layer] > 0):
                raise InvalidInput(
                    f"layer {layer}: expected a positive norm, got {self.norms[layer]}"
                )
        if not bool(self.coefficients.isfinite().all()):
            raise InvalidInput("a coefficient is not finite")
        self._check_operators()

    def _check_operators(self) -> None:
        shape = tuple(self.coefficients.shape)
        if self.held is not None and tuple(self.held.shape) != shape:
            raise InvalidInput(
                f"held: expected (rows, values) as for coefficients, {shape}, "
                f"got {tuple(self.held.shape)}; use NaN for what is not held"
            )
        if self.held is not None and bool(self.held.isinf().any()):
            raise InvalidInput("a held component is infinite; use NaN for what is not held")
        if isinstance(self.keep_norm, Tensor) and tuple(self.keep_norm.shape) != shape[:1]:
            raise InvalidInput(
                f"keep_norm: expected True, False or one for each of {shape[0]} rows, "
                f"got {tuple(self.keep_norm.shape)}"
            )

    @property
    def only_adds(self) -> bool:
        """Whether no row holds a component or keeps its norm: `deltas` is all there is."""
        return not self._holds and not bool(torch.as_tensor(self.keep_norm).any())

    @property
    def _holds(self) -> bool:
        return self.held is not None and not bool(self.held.isnan().all())

    def plans(self) -> dict[int, Plan]:
        """What is done at each layer; empty where all coefficients are 0 and nothing is held.

        Raises:
            InvalidInput: directions that depend on each other are held at contradicting values.
        """
        if self.only_adds:
            return {layer: Plan(delta) for layer, delta in self.deltas().items()}
        if not self._holds and not bool(self.coefficients.any()):
            return {}
        keep_norm = torch.as_tensor(self.keep_norm).expand(self.coefficients.shape[0])
        return {
            layer: plan(direction, self.norms[layer], self.coefficients, self.held, keep_norm)
            for layer, direction in self.directions.items()
        }

    def deltas(self) -> dict[int, Float[Tensor, "rows hidden"]]:
        """What is added at each layer, in fp32; empty where all coefficients are 0.

        Raises:
            InvalidInput: the intervention does more than add, which `plans` gives.
        """
        if not self.only_adds:
            raise InvalidInput("the intervention does more than add; use plans()")
        if not bool(self.coefficients.any()):
            return {}
        weights = self.coefficients.float()
        return {
            layer: self.norms[layer] * weights.to(direction.device) @ direction.float()
            for layer, direction in self.directions.items()
        }

    def check_fit(
        self, n_layers: int, hidden_size: int, prompt_mask: Bool[Tensor, "prompts length"] | None
    ) -> None:
        """Whether this can be done to a model of that size, for those prompts.

        Raises:
            InvalidInput: a layer the model lacks, a hidden size or row count that does not fit, no
                `prompt_mask` though the scope needs one.
        """
        check_layers(self.directions, n_layers)
        for layer, direction in self.directions.items():
            if direction.shape[1] != hidden_size:
                raise InvalidInput(
                    f"layer {layer}: directions have {direction.shape[1]} dimensions, "
                    f"the model's residual stream {hidden_size}"
                )
        if prompt_mask is None and self.positions != "all":
            raise InvalidInput(
                f"positions={self.positions!r} needs prompt_mask, "
                "or the generated tokens cannot be told from the prompt"
            )
        rows = self.coefficients.shape[0]
        if prompt_mask is not None and rows not in (1, prompt_mask.shape[0]):
            raise InvalidInput(
                f"the intervention has {rows} rows, the prompts {prompt_mask.shape[0]}; "
                "expected as many, or one for all"
            )


def check_layers(layers: Iterable[int], n_layers: int) -> list[int]:
    """The distinct layers in ascending order.

    Raises:
        InvalidInput: none given, or one outside [0, n_layers).
    """
    wanted = sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= n_layers:
        raise InvalidInput(
            f"layers {wanted}: expected one or more of 0..{n_layers - 1} "
            "(0 is the output of block 0)"
        )
    return wanted


def prompt_scope(
    prompt_mask: Bool[Tensor, "rows prompt"], positions: Positions
) -> Bool[Tensor, "rows prompt"]:
    """The prompt tokens in scope; `prompt_mask` marks those that are no padding, on either side."""
    if positions == "generated":
        return torch.zeros_like(prompt_mask)
    if positions == "last":
        order = torch.arange(prompt_mask.shape[1], device=prompt_mask.device)
        last = (order * prompt_mask).argmax(dim=1, keepdim=True)
        return prompt_mask & (order == last)
    return prompt_mask


@runtime_checkable
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
        """Residual stream after each of `layers`; blocks after the last of them do not run.

        Raises:
            InvalidInput: a layer outside [0, n_layers).
        """
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
        """Mean negative log-likelihood, in nats, of the scored tokens of each row.

        `scored[b, t]` marks token t as predicted from what comes before it. Padding and the first
        token of a row, which nothing comes before, do not count. A row without a scored token is
        NaN.
        """
        ...

    def continuation_nll(
        self,
        prompt_ids: Int[Tensor, "rows prompt"],
        prompt_mask: Int[Tensor, "rows prompt"],
        new_ids: Int[Tensor, "rows new"],
        new_mask: Bool[Tensor, "rows new"],
    ) -> Float[Tensor, " rows"]:
        """Mean nats per token of `new_mask`, after prompts that are padded on the left.

        What `token_nll` gives for the new tokens of prompt and continuation together, but a prompt
        that several rows share is run once. A row without new tokens is NaN.
        """
        ...
