"""The model under nnsight: activations and interventions through its traces.

nnsight puts a callable of its own in place of every module's `forward`, for good; outside a trace
it only passes calls on. Give `NNsightBackend` a model that may be wrapped so, or take the one of
`valueflow.backends.named.load_backend`, which wraps a twin that shares the weights.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from nnsight import NNsight
from nnsight.intervention.envoy import Envoy
from nnsight.intervention.interleaver import OutOfOrderError
from torch import Tensor, nn

from valueflow.backends.base import Intervention, check_layers
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
from valueflow.errors import InvalidInput


class NNsightBackend(DecoderBackend):
    """A causal language model whose decoder blocks are read and changed in nnsight traces.

    Args:
        model: a transformers decoder, or any nnsight model around one (`NNsight`,
            `TransformersModel`); its own edits are not replayed.
        blocks: the decoder blocks, first to last (`valueflow.models.decoder_blocks`).

    Raises:
        InvalidInput: the blocks are not part of the model.
    """

    def __init__(self, model: nn.Module | Envoy, blocks: nn.ModuleList) -> None:
        super().__init__(model._module if isinstance(model, Envoy) else model, blocks)
        self._decoder = cached_module(self.model, blocks)
        self._root: Any = NNsight(self.model)
        self._envoys = [self._envoy_of(block) for block in blocks]

    def capture(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "batch seq hidden"]]:
        """Residual stream after each of `layers`; see `Backend`."""
        wanted = check_layers(layers, self.n_layers)
        taken: dict[int, Tensor] = {}

        def run(input_ids: Tensor, attention_mask: Tensor) -> Any:
            return forward(self.model, input_ids, attention_mask)

        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        # nnsight runs the body beside the model's pass: each `output` waits for its block.
        with torch.no_grad(), self._root.trace(fn=run, **inputs) as tracer:
            for layer in wanted:
                taken[layer] = hidden_of(self._envoys[layer].output)
            tracer.stop()
        return taken

    def _generate_steered(
        self,
        inputs: dict[str, Any],
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "prompts length"],
        copies: int,
    ) -> Int[Tensor, "rows tokens"]:
        intervention.check_fit(self.n_layers, hidden_size(self.model), prompt_mask)
        plans = intervention.plans()
        if not plans:
            return self.model.generate(**inputs)
        clock = Clock(self._decoder, intervention, prompt_mask, copies)
        step = acting(plans, clock, copies)
        return self._traced(inputs, clock, step, sorted(intervention.directions))

    def _traced(
        self, inputs: dict[str, Any], clock: Clock, step: Step, layers: Sequence[int]
    ) -> Int[Tensor, "rows tokens"]:
        """What `generate` of the model returns when every call of the decoder is steered."""
        returned: list[Tensor] = []
        called: list[int] = []
        steered: list[int] = []

        def run(**inputs: Any) -> None:
            handle = self._decoder.register_forward_pre_hook(lambda *_: called.append(1))
            try:
                returned.append(self.model.generate(**inputs))
            finally:
                handle.remove()

        with self._root.trace(fn=run, **inputs) as tracer:
            self._steer_every_call(tracer, clock, step, layers, steered)
        if len(steered) != len(called):
            raise InvalidInput(
                f"{len(called) - len(steered)} of {len(called)} calls of the "
                f"{type(self._decoder).__name__} did not run their blocks in the order of the "
                "list, which steering in nnsight needs; use the backend 'hf'"
            )
        return returned[0]

    def _steer_every_call(
        self, tracer: Any, clock: Clock, step: Step, layers: Sequence[int], done: list[int]
    ) -> None:
        """The body of a trace: it waits for each call of the decoder and for the blocks in it."""
        decoder = self._envoy_of(self._decoder)
        # The loop has no end of its own: it waits for one more call when generation is over.
        with suppress(OutOfOrderError):
            for _ in tracer.iter[:]:
                args, kwargs = decoder.inputs
                clock.before_call(None, args, kwargs)
                for layer in layers:
                    block = self._envoys[layer]
                    output = block.output
                    block.output = with_hidden(output, step(hidden_of(output), layer))
                done.append(1)

    def _envoy_of(self, module: nn.Module) -> Any:
        path = next(name for name, m in self.model.named_modules() if m is module)
        return self._root.get(path) if path else self._root
