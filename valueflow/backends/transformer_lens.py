"""The model under TransformerLens: activations and interventions through its hook points.

A `TransformerBridge` puts components of its own in place of a model's modules, for good, and makes
attention eager. Build one around a model that may be changed so, or take the one of
`valueflow.backends.named.load_backend`, which bridges a twin that shares the weights.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from valueflow.backends.base import Intervention, check_layers
from valueflow.backends.decoder import DecoderBackend
from valueflow.backends.running import Clock, Step, acting, cached_module, hidden_size
from valueflow.errors import InvalidInput


class TransformerLensBackend(DecoderBackend):
    """A `TransformerBridge`, which may be the user's own.

    Its weights must be as they came: `enable_compatibility_mode` folds and centres them, so that
    the residual stream is another one than vectors were made for.

    Args:
        bridge: of a causal language model, with `blocks`.

    Raises:
        InvalidInput: no bridge, one without decoder blocks, or one whose weights were processed.
    """

    def __init__(self, bridge: nn.Module) -> None:
        self.bridge = _checked(bridge)
        super().__init__(self.bridge.original_model, self.bridge.blocks)

    def capture(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "batch seq hidden"]]:
        """Residual stream after each of `layers`; see `Backend`."""
        wanted = check_layers(layers, self.n_layers)
        taken: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(hidden: Tensor, hook: Any) -> None:  # noqa: ARG001
                taken[layer] = hidden

            return hook

        with torch.no_grad():
            self.bridge.run_with_hooks(
                input_ids,
                attention_mask=attention_mask,
                return_type=None,
                use_cache=False,
                stop_at_layer=wanted[-1] + 1,
                fwd_hooks=[(residual(layer), keep(layer)) for layer in wanted],
            )
        return taken

    def _generate_steered(
        self,
        inputs: dict[str, Any],
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "prompts length"],
        copies: int,
    ) -> Int[Tensor, "rows tokens"]:
        """By transformers' own `generate`; the bridge's has no beams or `generation_config`."""
        with steered(self.bridge, intervention, prompt_mask=prompt_mask, copies=copies):
            return self.model.generate(**inputs)


@contextmanager
def steered(
    bridge: TransformerBridge,
    intervention: Intervention,
    *,
    prompt_mask: Bool[Tensor, "rows prompt"] | None = None,
    copies: int = 1,
) -> Iterator[None]:
    """Steer a bridge inside the `with`: its forward, `run_with_cache` and `generate` alike.

    Arguments and errors as in `valueflow.backends.hf.steered`. Hooks of the user's own are left
    alone; those added before see the stream before the addition, and hooks on the block that are
    added inside the `with`, as `run_with_cache` does, after it.
    """
    model: Any = bridge.original_model
    blocks: Any = bridge.blocks
    intervention.check_fit(len(blocks), hidden_size(model), prompt_mask)
    plans = intervention.plans()
    decoder = cached_module(model, blocks)
    clock = Clock(decoder, intervention, prompt_mask, copies)
    step = acting(plans, clock, copies)
    with ExitStack() as stack:
        if plans:
            before = decoder.register_forward_pre_hook(clock.before_call, with_kwargs=True)
            stack.callback(before.remove)
            hooks = [(residual(layer), _hook(step, layer)) for layer in plans]
            stack.enter_context(bridge.hooks(fwd_hooks=hooks))
        yield


def bridged(model: nn.Module, tokenizer: Any) -> TransformerBridge:
    """A bridge over the model's own weights, as they are; the model's modules are replaced.

    Nothing is looked up in a hub, and text is cut as the tokenizer does it, of which the bridge
    gets a copy.

    Raises:
        InvalidInput: TransformerLens has no adapter for the architecture.
    """
    config: Any = model.config
    if not config.architectures:
        # Unset in a model that was not loaded; some adapters are found by no other name.
        config.architectures = [type(model).__name__]
    tokenizer = copy.deepcopy(tokenizer)
    # Without these marks a tokenizer is loaded anew by its name, to put BOS in front of all text.
    tokenizer.init_kwargs = {
        "name_or_path": "",
        **tokenizer.init_kwargs,
        "add_bos_token": True,
    }
    parameter = next(model.parameters())
    try:
        return TransformerBridge.boot_transformers(
            config.architectures[0],
            hf_model=model,
            tokenizer=tokenizer,
            device=parameter.device,
            dtype=parameter.dtype,
        )
    except ValueError as error:
        if "supported architecture" not in str(error):
            raise
        raise InvalidInput(
            f"TransformerLens has no adapter for {type(model).__name__} (model type "
            f"{config.model_type!r}); use the backend 'hf' or 'nnsight'"
        ) from error


def residual(layer: int) -> str:
    """The hook point of the residual stream after a block (also `blocks.{i}.hook_resid_post`)."""
    return f"blocks.{layer}.hook_out"


def _hook(step: Step, layer: int) -> Callable[..., Tensor]:
    def hook(hidden: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        return step(hidden, layer)

    return hook


def _checked(bridge: nn.Module) -> TransformerBridge:
    if not isinstance(bridge, TransformerBridge):
        raise InvalidInput(
            f"expected a TransformerBridge, got {type(bridge).__name__}; load_backend makes one"
        )
    if not hasattr(bridge, "blocks"):
        raise InvalidInput(f"the bridge of {bridge.cfg.architecture} has no decoder blocks")
    if getattr(bridge, "_weights_processed", bridge.compatibility_mode):
        raise InvalidInput(
            "the bridge's weights were folded and centred, so that its residual stream is not the "
            "model's; boot it anew, without enable_compatibility_mode or process_weights"
        )
    return bridge
