"""How likely a causal language model finds tokens that are already there."""

import inspect
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


@torch.no_grad()
def token_nll(
    model: nn.Module,
    input_ids: Int[Tensor, "batch seq"],
    attention_mask: Int[Tensor, "batch seq"],
    scored: Bool[Tensor, "batch seq"],
) -> Float[Tensor, " batch"]:
    """Mean negative log-likelihood, in nats, of each row's scored tokens; see `Backend`."""
    real = attention_mask.bool()
    counted = scored[:, 1:] & real[:, 1:] & real[:, :-1]
    # The vocabulary is what costs: only positions from the first counted one on are predicted.
    first = int(counted.any(0).float().argmax())
    kept = input_ids.shape[1] - first
    logits = forward(model, input_ids, attention_mask, keep=kept).logits[:, -kept:-1]
    return _mean_loss(logits, input_ids[:, 1 + first :], counted[:, first:])


@torch.no_grad()
def continuation_nll(
    model: nn.Module,
    prompt_ids: Int[Tensor, "rows prompt"],
    prompt_mask: Int[Tensor, "rows prompt"],
    new_ids: Int[Tensor, "rows new"],
    new_mask: Bool[Tensor, "rows new"],
) -> Float[Tensor, " rows"]:
    """Mean nats per token of `new_mask`; a prompt that several rows share is run once.

    The same number as `token_nll` of prompt and continuation. Prompts are padded on the left, new
    tokens on the right; a row without new tokens is NaN.
    """
    # Rows of one sweep answer few prompts at many coefficients.
    shared, row_of = torch.cat([prompt_ids, prompt_mask], dim=1).unique(dim=0, return_inverse=True)
    ids, mask = shared.chunk(2, dim=1)
    start = forward(model, ids, mask, keep=1, use_cache=True)
    logits = start.logits[row_of, -1:]
    if new_ids.shape[1] > 1:
        start.past_key_values.batch_select_indices(row_of)
        fed = forward(
            model,
            new_ids[:, :-1],
            torch.cat([mask[row_of], new_mask[:, :-1].long()], dim=1),
            past_key_values=start.past_key_values,
        )
        logits = torch.cat([logits, fed.logits], dim=1)
    return _mean_loss(logits, new_ids, new_mask)


def forward(
    model: nn.Module,
    input_ids: Int[Tensor, "batch new"],
    attention_mask: Int[Tensor, "batch seq"],
    *,
    keep: int = 0,
    use_cache: bool = False,
    past_key_values: Any = None,
) -> Any:
    """One pass; logits of the last `keep` positions at least, 0 for all.

    The mask covers what is in the cache too.
    """
    takes = inspect.signature(model.forward).parameters
    options: dict[str, Any] = {"use_cache": use_cache or past_key_values is not None}
    if past_key_values is not None:
        options["past_key_values"] = past_key_values
    if "logits_to_keep" in takes:
        options["logits_to_keep"] = keep
    # Without them some models count positions from the padding on.
    if "position_ids" in takes:
        positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
        options["position_ids"] = positions[:, -input_ids.shape[1] :]
    return model(input_ids=input_ids, attention_mask=attention_mask, **options)


def _mean_loss(
    logits: Float[Tensor, "batch tokens vocabulary"],
    targets: Int[Tensor, "batch tokens"],
    counted: Bool[Tensor, "batch tokens"],
) -> Float[Tensor, " batch"]:
    losses = torch.zeros_like(targets, dtype=torch.float32)
    losses[counted] = nn.functional.cross_entropy(
        logits[counted].float(), targets[counted], reduction="none"
    )
    counts = counted.sum(1)
    return (losses.sum(1) / counts.clamp(min=1)).masked_fill(counts == 0, torch.nan)
