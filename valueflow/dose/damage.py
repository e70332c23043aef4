"""What steering costs: how unlikely the text is to the unsteered model, and broken texts."""

import re

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.backends.base import Backend

LOOP_NGRAM = 3
LOOP_SHARE = 0.5


def generated_nll(
    backend: Backend,
    prompt_ids: Int[Tensor, "rows prompt"],
    prompt_mask: Int[Tensor, "rows prompt"],
    new_ids: Int[Tensor, "rows new"],
    new_mask: Bool[Tensor, "rows new"],
    *,
    batch_size: int = 36,
) -> Float[Tensor, " rows"]:
    """Mean nats per token of `new_mask` under the unsteered model; NaN in a row without any."""
    parts = [
        backend.continuation_nll(prompt_ids[i:j], prompt_mask[i:j], new_ids[i:j], new_mask[i:j])
        for i, j in ((i, i + batch_size) for i in range(0, len(new_ids), batch_size))
    ]
    return torch.cat(parts)


def is_degenerate(text: str) -> bool:
    """Empty, or looping: more than half of its word trigrams have occurred before in it.

    Texts of fewer than 8 words are only checked for being empty.
    """
    words = re.findall(r"\w+", text.lower())
    if len(words) < 8:
        return not words
    ngrams = list(zip(*(words[i:] for i in range(LOOP_NGRAM)), strict=False))
    return 1 - len(set(ngrams)) / len(ngrams) > LOOP_SHARE
