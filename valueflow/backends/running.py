"""What an intervention does while a model runs, whatever tool calls it at each block.

A backend starts the `Clock` before every call of the module that is given the KV cache, takes the
residual stream out of what a block returned (`hidden_of`), hands it to a `Step` and puts the result
back (`with_hidden`).
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from valueflow.backends.base import Intervention, prompt_scope
from valueflow.backends.operators import Plan
from valueflow.errors import InvalidInput

Step = Callable[[Tensor, int], Tensor]
"""(residual stream after a layer, the layer) -> what goes on; its argument is left unchanged."""


class Clock:
    """Where in its sequence the current forward call stands, and which of its tokens count.

    Args:
        decoder: the module whose calls are counted (`cached_module`).
        intervention: says which positions are in scope.
        prompt_mask: real tokens of the padded prompts; None if the scope is "all".
        copies: consecutive batch rows per prompt.
    """

    def __init__(
        self,
        decoder: nn.Module,
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "rows prompt"] | None,
        copies: int,
    ) -> None:
        # Not the instance's: a tool may have put a callable of its own there.
        self.signature = inspect.signature(type(decoder).forward)
        self.generated_in_scope = intervention.positions in ("all", "generated")
        self.prompt_scope = None
        if prompt_mask is not None:
            in_scope = prompt_scope(prompt_mask, intervention.positions)
            self.prompt_scope = in_scope.repeat_interleave(copies, dim=0)
        self.start = 0

    def before_call(self, decoder: nn.Module | None, args: Any, kwargs: dict[str, Any]) -> None:
        """A forward pre-hook: note how many tokens the cache of the coming call holds."""
        given = self.signature.bind_partial(decoder, *args).arguments | kwargs
        cache = given.get("past_key_values")
        self.start = 0 if cache is None else int(cache.get_seq_length())

    def scope(self, hidden: Float[Tensor, "batch tokens hidden"]) -> Tensor | bool:
        """Mask (batch, tokens) of the current call, or True / False for all / none."""
        if self.prompt_scope is None:
            return True
        _check_rows(self.prompt_scope.shape[0], hidden.shape[0])
        if self.start >= self.prompt_scope.shape[1]:
            return self.generated_in_scope
        end = self.start + hidden.shape[1]
        mask = self.prompt_scope[:, self.start : end].to(hidden.device)
        n_generated = hidden.shape[1] - mask.shape[1]
        tail = mask.new_full((len(mask), n_generated), self.generated_in_scope)
        return torch.cat([mask, tail], dim=1)


def acting(plans: Mapping[int, Plan], clock: Clock, copies: int) -> Step:
    """The step that does to each row what is planned, at the positions in scope.

    Layers without a plan stay as they are.
    """
    ready = {layer: plan.repeated(copies) for layer, plan in plans.items()}

    def step(hidden: Tensor, layer: int) -> Tensor:
        plan = ready.get(layer)
        if plan is None:
            return hidden
        if plan.rows > 1:
            _check_rows(plan.rows, hidden.shape[0])
        return plan(hidden, clock.scope(hidden))

    return step


def cached_module(model: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    """The innermost module around the blocks that is given the KV cache; no call passes it by.

    Raises:
        InvalidInput: the blocks are not part of the model.
    """
    around = [m for m in model.modules() if any(part is blocks for part in m.modules())]
    if not around:
        raise InvalidInput(f"these {len(blocks)} blocks are not part of the {type(model).__name__}")
    caching = [m for m in around if "past_key_values" in inspect.signature(m.forward).parameters]
    return caching[-1] if caching else model


def hidden_of(output: Any) -> Tensor:
    """The residual stream in what a block returned: a tensor, or the first of a tuple.

    Raises:
        InvalidInput: the block returned something else.
    """
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise InvalidInput(
            f"a block returned {type(output).__name__}, expected a (batch, seq, hidden) tensor "
            "or a tuple that begins with one"
        )
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """What a block returned, with another residual stream in it."""
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def hidden_size(model: Any) -> int:
    """Width of the residual stream."""
    # The embedding can be narrower than the stream (OPT-350m), so it is asked second.
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    size = getattr(config, "hidden_size", None)
    return model.get_input_embeddings().weight.shape[1] if size is None else size


def _check_rows(expected: int, batch: int) -> None:
    if expected != batch:
        raise InvalidInput(
            f"steering was set up for {expected} rows (prompts x copies), the batch has {batch}"
        )
