"""Steering by hand: one row, one token, one value at a time, without a KV cache."""

import inspect
from contextlib import contextmanager

import torch


def padded(rows, side="left"):
    """Ids and mask of rows of unequal length, padded with 0 to the longest."""
    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        start = longest - len(row) if side == "left" else 0
        ids[i, start : start + len(row)] = torch.as_tensor(row)
        mask[i, start : start + len(row)] = 1
    return ids, mask


def position_options(model, mask):
    """Positions that start at 0 with the first real token, for a model that can be told them."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return {}
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}


@torch.no_grad()
def full_logits(model, ids, mask):
    options = position_options(model, mask)
    return model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits


def in_scope(prompt, token, positions):
    """Whether a row's token is in scope; `prompt` is its row of the prompt mask, as a list."""
    if token >= len(prompt):
        return positions in ("all", "generated")
    if not prompt[token]:
        return False
    if positions == "last":
        return not any(prompt[token + 1 :])
    return positions in ("all", "prompt")


def added_by_hand(hidden, layer, intervention, prompt_mask):
    """What is to be added to a layer's output over whole sequences."""
    added = torch.zeros_like(hidden)
    for r, prompt in enumerate(prompt_mask.tolist()):
        for t in range(hidden.shape[1]):
            if not in_scope(prompt, t, intervention.positions):
                continue
            for v, direction in enumerate(intervention.directions[layer]):
                coefficient = float(intervention.coefficients[r, v])
                added[r, t] += intervention.norms[layer] * coefficient * direction
    return added


@contextmanager
def steered_by_hand(blocks, intervention, prompt_mask):
    def hook(layer):
        def add(_block, _args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden + added_by_hand(hidden, layer, intervention, prompt_mask)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return add

    handles = [blocks[layer].register_forward_hook(hook(layer)) for layer in intervention.norms]
    yield
    for handle in handles:
        handle.remove()


def generated_by_hand(model, blocks, intervention, ids, mask, *, n_tokens, banned):
    """Greedy decoding that runs the whole sequence anew for every token."""
    prompt_mask, n_prompt = mask.bool(), ids.shape[1]
    with steered_by_hand(blocks, intervention, prompt_mask):
        for _ in range(n_tokens):
            logits = full_logits(model, ids, mask)[:, -1]
            logits[:, banned] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return ids[:, n_prompt:]
