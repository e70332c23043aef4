"""Every backend beside `hf`, around tiny models."""

import functools
from types import SimpleNamespace

import pytest
from steering_cases import load
from tiny import tiny_tokenizer

from valueflow.backends.named import load_backend
from valueflow.models.layers import decoder_blocks

TOOLS = ("nnsight", "transformer_lens")
EVERY_TOOL = pytest.mark.parametrize("tool", TOOLS)
FAMILIES = pytest.mark.parametrize("arch", ["gpt2", "llama", "qwen2", "gemma2", "gemma3"])


def loaded(model):
    blocks = decoder_blocks(model)[1]
    return SimpleNamespace(model=model, tokenizer=tiny_tokenizer(), blocks=blocks)


@functools.cache
def load_tool(tool, arch="llama"):
    """The tool around the weights of `steering_cases.load(arch)`; name the architecture in both."""
    return load_backend(tool, loaded(load(arch).model))
