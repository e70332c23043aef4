"""What the tests of every backend steer: tiny models, padded prompts, strong interventions."""

import contextlib
import functools

import pytest
import torch
from oracles.steering import full_logits, padded
from tiny import ARCHITECTURES, each_architecture_with, tiny_model

from valueflow.backends.base import POSITIONS, Intervention
from valueflow.backends.hf import HFBackend, steered
from valueflow.models.layers import decoder_blocks

EVERY_ARCHITECTURE = pytest.mark.parametrize("arch", ARCHITECTURES)
EVERY_SCOPE = pytest.mark.parametrize("positions", POSITIONS)
ARCHITECTURES_AND_SCOPES = each_architecture_with("positions", POSITIONS)
NO_EOS = {"min_new_tokens": 5, "max_new_tokens": 5}
LAYERS = (1, 2)
# Row 1 is the control; with norms near those of the tiny models' streams the others are strong.
COEFFICIENTS = torch.tensor([[2.0, -1.5], [0.0, 0.0], [-1.0, 2.5]])


@functools.cache
def load(arch="llama"):
    model = tiny_model(arch)
    return HFBackend(model, decoder_blocks(model)[1])


@functools.cache
def prompts(side="left"):
    # With 5 new tokens the longest outgrows the window (16) of the models that have one.
    generator = torch.Generator().manual_seed(5)
    return padded([torch.randint(3, 128, (n,), generator=generator) for n in (3, 12, 5)], side)


def intervene(coefficients=COEFFICIENTS, positions="all", *, layers=LAYERS, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    directions = torch.randn(10, 2, 32, generator=generator)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return Intervention(
        directions={layer: directions[layer].to(dtype) for layer in layers},
        norms={layer: 5.0 + layer for layer in layers},
        coefficients=torch.as_tensor(coefficients),
        positions=positions,
    )


def steer(backend, intervention, mask=None, copies=1):
    mask = None if mask is None else mask.bool()
    return steered(backend.model, backend.blocks, intervention, prompt_mask=mask, copies=copies)


def steered_logits(backend, intervention, ids, mask, prompt_mask=None):
    with steer(backend, intervention, mask if prompt_mask is None else prompt_mask):
        return full_logits(backend.model, ids, mask)


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values()]


@contextlib.contextmanager
def left_as_found(backend):
    """The logits are bit-equal before and after, and no hook is left."""
    ids, mask = prompts()
    assert not hooks(backend.model)
    before = full_logits(backend.model, ids, mask)
    yield
    assert not hooks(backend.model)
    assert torch.equal(full_logits(backend.model, ids, mask), before)
