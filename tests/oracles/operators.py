"""Operators by hand: one token at a time in fp64, by normal equations rather than by axes."""

from contextlib import contextmanager

import numpy as np
import torch
from oracles.steering import in_scope


def operated(token, directions, norm, coefficients, held, keep):
    """What becomes of one token's residual; all arguments are numpy, `held` has NaN for free."""
    result = token.copy()
    fixed = [i for i, d in enumerate(directions) if np.isfinite(held[i]) and np.any(d)]
    if fixed:
        units = np.stack([directions[i] / np.linalg.norm(directions[i]) for i in fixed])
        wanted = [held[i] * norm * np.linalg.norm(directions[i]) for i in fixed]
        steps = np.linalg.lstsq(units @ units.T, wanted - units @ result, rcond=1e-10)[0]
        result += units.T @ steps
    for coefficient, direction in zip(coefficients, directions, strict=True):
        result += norm * coefficient * direction
    if keep and np.any(result):
        result *= np.linalg.norm(token) / np.linalg.norm(result)
    return result


def operated_batch(hidden, layer, intervention, prompt_mask):
    """A layer's output over whole sequences, row by row and token by token."""
    directions = intervention.directions[layer].double().numpy()
    coefficients = intervention.coefficients.double().numpy()
    free = torch.full(coefficients.shape, torch.nan)
    held = (free if intervention.held is None else intervention.held).double().numpy()
    keep = torch.as_tensor(intervention.keep_norm).expand(len(held)).tolist()
    result = hidden.double().numpy().copy()
    for r, prompt in enumerate(prompt_mask.tolist()):
        own = r if len(held) > 1 else 0
        if not (np.any(coefficients[own]) or np.any(np.isfinite(held[own]))):
            continue
        for t in range(hidden.shape[1]):
            if in_scope(prompt, t, intervention.positions):
                result[r, t] = operated(
                    result[r, t],
                    directions,
                    intervention.norms[layer],
                    coefficients[own],
                    held[own],
                    keep[own],
                )
    return torch.as_tensor(result).to(hidden.dtype)


@contextmanager
def operated_by_hand(blocks, intervention, prompt_mask):
    def hook(layer):
        def change(_block, _args, output):
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = operated_batch(hidden, layer, intervention, prompt_mask)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return change

    handles = [blocks[layer].register_forward_hook(hook(layer)) for layer in intervention.norms]
    yield
    for handle in handles:
        handle.remove()
