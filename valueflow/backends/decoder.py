"""What every backend around a transformers decoder has in common."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.backends.base import Intervention
from valueflow.backends.decoding import greedy_unless_told, sequences_per_prompt
from valueflow.backends.scoring import continuation_nll, token_nll


class DecoderBackend:
    """A `Backend` but for `capture`, and for how its model is steered while it generates.

    Args:
        model: any decoder; put in eval mode by the caller.
        blocks: its decoder blocks, first to last.
    """

    def __init__(self, model: Any, blocks: Any) -> None:
        self.model: Any = model
        self.blocks: Any = blocks

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    def generate(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"],
        intervention: Intervention | None = None,
        **options: Any,
    ) -> Int[Tensor, "rows new"]:
        """New token ids, one row per returned sequence.

        Rows of the intervention follow the prompts through beams and returned sequences. Options
        go to transformers' `generate`; decoding is greedy unless they (or a `generation_config`
        among them) say otherwise.

        Raises:
            InvalidInput: what does not fit the model or the prompts.
        """
        options = greedy_unless_told(options)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **options}
        with torch.inference_mode():
            if intervention is None:
                ids = self.model.generate(**inputs)
            else:
                copies = sequences_per_prompt(self.model, options)
                ids = self._generate_steered(inputs, intervention, attention_mask.bool(), copies)
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

    def _generate_steered(
        self,
        inputs: dict[str, Any],
        intervention: Intervention,
        prompt_mask: Bool[Tensor, "prompts length"],
        copies: int,
    ) -> Int[Tensor, "rows tokens"]:
        """Prompts and new tokens, as the model's `generate` returns them."""
        raise NotImplementedError
