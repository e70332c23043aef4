"""The reference backend: transformers models and forward hooks that live inside a `with`.

Hooks are installed after everything was validated and removed on any exit, so a model is never
left steered. They return new tensors, whatever the block returns (tensor or tuple). While a block
is steered, every thread that uses the same model object sees it steered.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from valueflow.backends.base import Intervention, Positions
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
        self.model = model
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

        Rows of the intervention follow the prompts through beams and returned sequences; options
        go to `model.generate`, with greedy decoding as the default.
        """
        beams, returned = options.get("num_beams", 1), options.get("num_return_sequences", 1)
        options.setdefault("do_sample", False)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            if intervention is not None:
                context = steered(
                    self.model,
                    self.blocks,
                    intervention,
                    prompt_mask=attention_mask.bool(),
                    copies=max(beams, returned),
                )
                stack.enter_context(context)
            ids = self.model.generate(
                input_ids=input_ids, attention_mask=attention_mask, **options
            )
        return ids[:, input_ids.shape[1] :].clone()

    @torch.inference_mode()
    def token_nll(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        scored: Bool[Tensor, "batch seq"],
    ) -> Float[Tensor, " batch"]:
        """Mean negative log-likelihood, in nats, of the scored tokens of each row.

        `scored[b, t]` marks token t as predicted from what comes before it. A row without a scored
        token is NaN.
        """
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        options = {"position_ids": positions} if _takes(self.model, "position_ids") else {}
        logits = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **options
        ).logits
        targets = input_ids[:, 1:].masked_fill(~scored[:, 1:], -100)
        losses = nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2), targets, ignore_index=-100, reduction="none"
        )
        counts = scored[:, 1:].sum(1)
        means = losses.sum(1) / counts.clamp(min=1)
        return means.masked_fill(counts == 0, torch.nan).clone()


def capture(
    model: nn.Module,
    blocks: nn.ModuleList,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    layers: Sequence[int],
) -> dict[int, Float[Tensor, "batch seq hidden"]]:
    """Residual stream after each of `layers`, stopping after the last; see `HFBackend.capture`."""
    wanted = _checked_layers(layers, len(blocks))
    taken: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_block: nn.Module, _args: Any, output: Any) -> None:
            taken[layer] = _hidden(output)
            if layer == max(wanted):
                raise _EnoughLayers

        return hook

    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    options = {"position_ids": positions} if _takes(model, "position_ids") else {}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for layer in wanted:
            stack.callback(blocks[layer].register_forward_hook(keep(layer)).remove)
        try:
            model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **options)
        except _EnoughLayers:
            pass
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

    Args:
        model: the module whose forward is called, by hand or by its `generate`.
        blocks: its decoder blocks.
        intervention: what is added where. With all coefficients 0 no hook is installed.
        prompt_mask: which tokens of the padded prompt are real, shape (rows, prompt); what comes
            after is generated. Needed for every scope but "all".
        copies: consecutive batch rows per intervention row (beams, returned sequences).

    Raises:
        InvalidInput: a layer the model lacks, a hidden size or row count that does not fit, a
            scope that needs `prompt_mask`. While steering, a batch whose rows do not fit.
    """
    _check_fit(model, blocks, intervention, prompt_mask)
    deltas = intervention.deltas()
    clock = _Clock(intervention.positions, prompt_mask, copies)
    with ExitStack() as stack:
        if deltas:
            before = model.register_forward_pre_hook(clock.start_call, with_kwargs=True)
            stack.callback(before.remove)
        for layer, delta in deltas.items():
            handle = blocks[layer].register_forward_hook(_adder(delta, clock, copies))
            stack.callback(handle.remove)
        yield


class _Clock:
    """Where in its sequence the current forward call stands, and which of its tokens are in scope."""

    def __init__(
        self, positions: Positions, prompt_mask: Bool[Tensor, "rows prompt"] | None, copies: int
    ) -> None:
        self.generated_in_scope = positions in ("all", "generated")
        self.prompt_scope = None if prompt_mask is None else _prompt_scope(prompt_mask, positions)
        if self.prompt_scope is not None and copies > 1:
            self.prompt_scope = self.prompt_scope.repeat_interleave(copies, dim=0)
        self.start = 0

    def start_call(self, _model: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        self.start = 0 if cache is None else int(cache.get_seq_length())

    def scope(self, n_tokens: int, device: torch.device) -> Tensor | bool:
        """Mask (rows, n_tokens) of the current call's tokens, or True / False for all / none."""
        if self.prompt_scope is None:
            return True
        prompt_length = self.prompt_scope.shape[1]
        if self.start >= prompt_length:
            return self.generated_in_scope
        mask = self.prompt_scope.to(device)[:, self.start : self.start + n_tokens]
        n_generated = n_tokens - mask.shape[1]
        if n_generated == 0:
            return mask
        tail = mask.new_full((len(mask), n_generated), self.generated_in_scope)
        return torch.cat([mask, tail], dim=1)


def _prompt_scope(
    prompt_mask: Bool[Tensor, "rows prompt"], positions: Positions
) -> Bool[Tensor, "rows prompt"]:
    if positions == "generated":
        return torch.zeros_like(prompt_mask)
    if positions == "last":
        order = torch.arange(prompt_mask.shape[1], device=prompt_mask.device)
        last = (order * prompt_mask).argmax(dim=1, keepdim=True)
        return prompt_mask & (order == last)
    return prompt_mask


def _adder(delta: Float[Tensor, "rows hidden"], clock: _Clock, copies: int) -> Callable[..., Any]:
    """A hook that adds each row's delta at the positions in scope."""
    ready: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def hook(_block: nn.Module, _args: Any, output: Any) -> Any:
        hidden = _hidden(output)
        scope = clock.scope(hidden.shape[1], hidden.device)
        if scope is False:
            return output
        key = (hidden.device, hidden.dtype)
        if key not in ready:
            # Once per device: under a device map every layer has its own.
            ready[key] = delta.repeat_interleave(copies, dim=0).to(*key)[:, None, :]
        addition = ready[key]
        if addition.shape[0] not in (1, copies, hidden.shape[0]):
            raise InvalidInput(
                f"the intervention has {delta.shape[0]} rows x {copies} copies, "
                f"the batch {hidden.shape[0]} rows"
            )
        if addition.shape[0] != hidden.shape[0]:
            addition = addition[:1]
        if isinstance(scope, Tensor):
            addition = addition * scope[:, :, None].to(addition.dtype)
        return _with_hidden(output, hidden + addition)

    return hook


def _hidden(output: Any) -> Tensor:
    """The residual stream in what a block returned: a tensor, or the first of a tuple."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor) or hidden.ndim != 3:
        raise InvalidInput(
            f"a block returned {type(output).__name__}, expected a (batch, seq, hidden) tensor "
            "or a tuple that begins with one"
        )
    return hidden


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def _checked_layers(layers: Sequence[int], n_layers: int) -> list[int]:
    wanted = sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= n_layers:
        raise InvalidInput(
            f"layers {list(layers)}: expected one or more of 0..{n_layers - 1} "
            "(0 is the output of block 0)"
        )
    return wanted


def _check_fit(
    model: nn.Module,
    blocks: nn.ModuleList,
    intervention: Intervention,
    prompt_mask: Bool[Tensor, "rows prompt"] | None,
) -> None:
    _checked_layers(list(intervention.directions), len(blocks))
    hidden_size = model.get_input_embeddings().weight.shape[1]
    config = getattr(model, "config", None)
    if config is not None:
        hidden_size = getattr(config.get_text_config(decoder=True), "hidden_size", hidden_size)
    for layer, direction in intervention.directions.items():
        if direction.shape[1] != hidden_size:
            raise InvalidInput(
                f"layer {layer}: directions have {direction.shape[1]} dimensions, "
                f"the model's residual stream {hidden_size}"
            )
    if prompt_mask is None and intervention.positions != "all":
        raise InvalidInput(
            f"positions={intervention.positions!r} needs prompt_mask, "
            "or the generated tokens cannot be told from the prompt"
        )
    rows = intervention.coefficients.shape[0]
    if prompt_mask is not None and rows not in (1, prompt_mask.shape[0]):
        raise InvalidInput(
            f"the intervention has {rows} rows, the prompts {prompt_mask.shape[0]}"
        )


def _takes(model: nn.Module, argument: str) -> bool:
    import inspect

    return argument in inspect.signature(model.forward).parameters
