"""The reference backend: transformers models and forward hooks that live inside a `with`.

Hooks are installed after everything was validated and removed on any exit, so a model is never
left steered. They return new tensors, whatever the block returns (tensor or tuple). While a block
is steered, every thread that uses the same model object sees it steered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from valueflow.backends.base import Intervention, check_layers
from valueflow.backends.compiled import uncompiled
from valueflow.backends.decoder import DecoderBackend
from valueflow.backends.running import (
    Clock,
    Step,
    acting,
    cached_module,
    hidden_of,
    hidden_size,
    with_hidden,
)
from valueflow.backends.scoring import forward


class _EnoughLayers(Exception):
    """Raised by a hook once the last wanted layer has run; never leaves `capture`."""


class HFBackend(DecoderBackend):
    """A transformers causal language model with its decoder blocks found.

    Args:
        model: any decoder; put in eval mode by the caller.
        blocks: its decoder blocks, first to last (`valueflow.models.decoder_blocks`).
    """

    def capture(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "batch seq hidden"]]:
        """Residual stream after each of `layers`; see `Backend`."""
        return capture(self.model, self.blocks, input_ids, attention_mask, layers)

    def _generate_steered(
        self,
        inputs: dict[str, Any],
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "prompts length"],
        copies: int,
    ) -> Int[Tensor, "rows tokens"]:
        asked = {"prompt_mask": prompt_mask, "copies": copies}
        with steered(self.model, self.blocks, intervention, **asked):
            return self.model.generate(**inputs)


def capture(
    model: nn.Module,
    blocks: nn.ModuleList,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    layers: Sequence[int],
) -> dict[int, Float[Tensor, "batch seq hidden"]]:
    """Residual stream after each of `layers`, stopping after the last; see `Backend`."""
    wanted = check_layers(layers, len(blocks))
    taken: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _args: Any, output: Any) -> None:
            taken[layer] = hidden_of(output)
            if layer == wanted[-1]:
                raise _EnoughLayers

        return hook

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(uncompiled())
        for layer in wanted:
            stack.callback(blocks[layer].register_forward_hook(keep(layer)).remove)
        stack.enter_context(suppress(_EnoughLayers))
        forward(model, input_ids, attention_mask)
    return taken


@contextmanager
def steered(
    model: nn.Module,
    blocks: nn.ModuleList,
    intervention: Intervention,
    *,
    prompt_mask: Bool[Tensor, "rows prompt"] | None = None,
    copies: int = 1,
) -> Iterator[None]:
    """Steer `model` inside the `with`; contexts nest: the outer one acts first, additions add up.

    A compiled model runs uncompiled meanwhile (`valueflow.backends.compiled`): its graphs may be
    without the hooks. The same holds for what `generate` compiles with a static cache on a GPU;
    `HFBackend.generate` has it not compile at all.

    Args:
        model: the model or anything around it (a wrapper's `generate` may pass the wrapper by).
        blocks: its decoder blocks.
        intervention: what is done where. With all coefficients 0 and nothing held no hook is
            installed.
        prompt_mask: which tokens of the padded prompts are real, shape (prompts, length); what
            comes after is generated. Needed for every scope but "all"; without it padding is
            steered too, which no real token sees.
        copies: consecutive batch rows per prompt (beams, returned sequences).

    Raises:
        InvalidInput: blocks or a layer the model lacks, a hidden size or row count that does not
            fit, a scope that needs `prompt_mask`. While steering, a batch whose rows do not fit.
    """
    intervention.check_fit(len(blocks), hidden_size(model), prompt_mask)
    plans = intervention.plans()
    decoder = cached_module(model, blocks)
    clock = Clock(decoder, intervention, prompt_mask, copies)
    step = acting(plans, clock, copies)
    with ExitStack() as stack:
        if plans:
            stack.enter_context(uncompiled())
            before = decoder.register_forward_pre_hook(clock.before_call, with_kwargs=True)
            stack.callback(before.remove)
        for layer in plans:
            handle = blocks[layer].register_forward_hook(_hook(step, layer))
            stack.callback(handle.remove)
        yield


def _hook(step: Step, layer: int) -> Callable[..., Any]:
    """A forward hook that does to a block's output what `step` does at this layer."""

    def hook(_block: nn.Module, _args: Any, output: Any) -> Any:
        return with_hidden(output, step(hidden_of(output), layer))

    return hook
