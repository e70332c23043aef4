"""The reference backend: transformers models and forward hooks that live inside a `with`.

Hooks are installed after everything was validated and removed on any exit, so a model is never
left steered. They return new tensors, whatever the block returns (tensor or tuple). While a block
is steered, every thread that uses the same model object sees it steered.
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from valueflow.backends.base import Intervention, check_layers, prompt_scope
from valueflow.backends.compiled import uncompiled
from valueflow.backends.scoring import continuation_nll, forward, token_nll
from valueflow.errors import InvalidInput


class _EnoughLayers(Exception):
    """Raised by a hook once the last wanted layer has run; never leaves `capture`."""


class HFBackend:
    """A transformers causal language model with its decoder blocks found.

    Args:
        model: any decoder; put in eval mode by the caller.
        blocks: its decoder blocks, first to last (`valueflow.models.decoder_blocks`).
    """

    def __init__(self, model: nn.Module, blocks: nn.ModuleList) -> None:
        self.model: Any = model
        self.blocks = blocks

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

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
        return capture(self.model, self.blocks, input_ids, attention_mask, layers)

    def generate(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        intervention: Intervention | None = None,
        **options: Any,
    ) -> Int[Tensor, "rows new"]:
        """New token ids, one row per returned sequence.

        Rows of the intervention follow the prompts through beams and returned sequences. Options
        go to `model.generate`; decoding is greedy unless they (or a `generation_config` among
        them) say otherwise.
        """
        options = _decoding(options)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if intervention is not None:
                context = steered(
                    self.model,
                    self.blocks,
                    intervention,
                    prompt_mask=attention_mask.bool(),
                    copies=_sequences_per_prompt(self.model, options),
                )
                stack.enter_context(context)
            ids = self.model.generate(input_ids=input_ids, attention_mask=attention_mask, **options)
        return ids[:, input_ids.shape[1] :].clone()

    def token_nll(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        scored: Bool[Tensor, "batch seq"],
    ) -> Float[Tensor, " batch"]:
        """Mean negative log-likelihood, in nats, of each row's scored tokens; see `Backend`."""
        return token_nll(self.model, input_ids, attention_mask, scored)

    def continuation_nll(
        self,
        prompt_ids: Int[Tensor, "rows prompt"],
        prompt_mask: Int[Tensor, "rows prompt"],
        new_ids: Int[Tensor, "rows new"],
        new_mask: Bool[Tensor, "rows new"],
    ) -> Float[Tensor, " rows"]:
        """Mean nats per new token after its prompt; see `Backend`."""
        return continuation_nll(self.model, prompt_ids, prompt_mask, new_ids, new_mask)


def capture(
    model: nn.Module,
    blocks: nn.ModuleList,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    layers: Sequence[int],
) -> dict[int, Float[Tensor, "batch seq hidden"]]:
    """Residual stream after each of `layers`, stopping after the last; see `HFBackend.capture`."""
    wanted = check_layers(layers, len(blocks))
    taken: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _args: Any, output: Any) -> None:
            taken[layer] = _hidden(output)
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
    """Steer `model` inside the `with`; contexts nest, and their additions add up.

    A compiled model runs uncompiled meanwhile (`valueflow.backends.compiled`): its graphs may be
    without the hooks. The same holds for what `generate` compiles with a static cache on a GPU;
    `HFBackend.generate` has it not compile at all.

    Args:
        model: the model or anything around it (a wrapper's `generate` may pass the wrapper by).
        blocks: its decoder blocks.
        intervention: what is added where. With all coefficients 0 no hook is installed.
        prompt_mask: which tokens of the padded prompts are real, shape (prompts, length); what
            comes after is generated. Needed for every scope but "all"; without it padding gets
            the addition too, which no real token sees.
        copies: consecutive batch rows per prompt (beams, returned sequences).

    Raises:
        InvalidInput: blocks or a layer the model lacks, a hidden size or row count that does not
            fit, a scope that needs `prompt_mask`. While steering, a batch whose rows do not fit.
    """
    intervention.check_fit(len(blocks), _hidden_size(model), prompt_mask)
    deltas = intervention.deltas()
    decoder = _cached_module(model, blocks)
    clock = _Clock(decoder, intervention, prompt_mask, copies)
    with ExitStack() as stack:
        if deltas:
            stack.enter_context(uncompiled())
            before = decoder.register_forward_pre_hook(clock.start_call, with_kwargs=True)
            stack.callback(before.remove)
        for layer, delta in deltas.items():
            handle = blocks[layer].register_forward_hook(_adder(delta, clock, copies))
            stack.callback(handle.remove)
        yield


class _Clock:
    """Where in its sequence the current forward call stands, and which of its tokens count."""

    def __init__(
        self,
        decoder: nn.Module,
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "rows prompt"] | None,
        copies: int,
    ) -> None:
        self.signature = inspect.signature(decoder.forward)
        self.generated_in_scope = intervention.positions in ("all", "generated")
        self.prompt_scope = None
        if prompt_mask is not None:
            in_scope = prompt_scope(prompt_mask, intervention.positions)
            self.prompt_scope = in_scope.repeat_interleave(copies, dim=0)
        self.start = 0

    def start_call(self, _decoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        cache = (self.signature.bind_partial(*args).arguments | kwargs).get("past_key_values")
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


def _cached_module(model: nn.Module, blocks: nn.ModuleList) -> nn.Module:
    """The innermost module around the blocks that is given the KV cache; no call passes it by."""
    around = [m for m in model.modules() if any(part is blocks for part in m.modules())]
    if not around:
        raise InvalidInput(f"these {len(blocks)} blocks are not part of the {type(model).__name__}")
    caching = [m for m in around if "past_key_values" in inspect.signature(m.forward).parameters]
    return caching[-1] if caching else model


def _adder(delta: Float[Tensor, "rows hidden"], clock: _Clock, copies: int) -> Callable[..., Any]:
    """A hook that adds each row's delta at the positions in scope."""
    rows = delta if len(delta) == 1 else delta.repeat_interleave(copies, dim=0)
    ready: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def hook(_block: nn.Module, _args: Any, output: Any) -> Any:
        hidden = _hidden(output)
        scope = clock.scope(hidden)
        if len(rows) > 1:
            _check_rows(len(rows), hidden.shape[0])
        if scope is False:
            return output
        key = (hidden.device, hidden.dtype)
        if key not in ready:
            # Once per device: under a device map every layer has its own.
            ready[key] = rows.to(*key)[:, None, :]
        addition = ready[key]
        if scope is not True:
            addition = addition * scope[:, :, None].to(addition.dtype)
        hidden = hidden + addition
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


def _check_rows(expected: int, batch: int) -> None:
    if expected != batch:
        raise InvalidInput(
            f"steering was set up for {expected} rows (prompts x copies), the batch has {batch}"
        )


def _hidden(output: Any) -> Tensor:
    """The residual stream in what a block returned: a tensor, or the first of a tuple."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise InvalidInput(
            f"a block returned {type(output).__name__}, expected a (batch, seq, hidden) tensor "
            "or a tuple that begins with one"
        )
    return hidden


def _hidden_size(model: Any) -> int:
    # The embedding can be narrower than the stream (OPT-350m), so it is asked second.
    config: Any = getattr(model, "config", None)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config(decoder=True)
    size = getattr(config, "hidden_size", None)
    return model.get_input_embeddings().weight.shape[1] if size is None else size


def _decoding(options: dict[str, Any]) -> dict[str, Any]:
    """`generate`'s options: greedy by default, never compiled, as that would run without hooks."""
    config = copy.deepcopy(options.get("generation_config"))
    if config is None:
        return {"do_sample": False, "disable_compile": True} | options
    config.disable_compile = True
    return options | {"generation_config": config}


def _sequences_per_prompt(model: nn.Module, options: dict[str, Any]) -> int:
    """How many batch rows `generate` makes of each prompt, asked where it looks itself."""
    configs = (options.get("generation_config"), getattr(model, "generation_config", None))
    sources = [options, *(vars(config) for config in configs if config is not None)]

    def setting(name: str) -> int:
        return next((s[name] for s in sources if s.get(name) is not None), 1)

    return max(setting("num_beams"), setting("num_return_sequences"))
