"""A planted world for the choice of layers: one layer's direction moves what the judge reads."""

import functools

import torch
from planted_loop import ASKED, evaluator, marked_direction
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.sweep import Decoding
from valueflow.models import load
from valueflow.steering.vector import SteeringVector

GOOD = 3
PROMPTS = ASKED[:14]
DECODING = Decoding(max_new_tokens=16)

__all__ = ["DECODING", "GOOD", "PROMPTS", "evaluator", "loaded", "vector"]


@functools.cache
def loaded():
    return load((tiny_model("llama", hidden=64), tiny_tokenizer(chat=True)))


@functools.cache
def vector():
    """At the last layer it moves marked letters against others; at the rest it is noise."""
    generator = torch.Generator().manual_seed(8)
    drawn = {i: torch.randn(64, generator=generator) for i in range(GOOD)}
    directions = {i: d / d.norm() for i, d in drawn.items()} | {GOOD: marked_direction(loaded())}
    return SteeringVector("svt/power", directions, dict.fromkeys(directions, 8.0), {})
