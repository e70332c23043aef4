"""The tools on a packaged model: a few tokens, against transformers with hooks."""

import functools

import pytest
import torch
from tool_cases import EVERY_TOOL

from valueflow.backends.base import Intervention
from valueflow.backends.named import load_backend
from valueflow.models import encode, format_prompts, is_fetched, load

pytestmark = pytest.mark.weights
LAYER, NORM = 15, 100.0
PROMPTS = ["Who should lead?", "Give me three tips for a good two day trip to Rome, please."]


@functools.cache
def model():
    if not is_fetched("smollm2-135m-instruct"):
        pytest.skip("smollm2-135m-instruct is not in the cache: fetch it with `make models`")
    return load("smollm2-135m-instruct")


@EVERY_TOOL
def test_smollm2_gives_the_same_activations_and_steered_tokens(tool):
    loaded = model()
    reference, backend = load_backend("hf", loaded), load_backend(tool, loaded)
    encoded = encode(loaded.tokenizer, format_prompts(loaded.tokenizer, PROMPTS))
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    real = mask.bool()
    found, expected = (b.capture(ids, mask, [LAYER])[LAYER][real] for b in (backend, reference))
    # The first token is a sink, longer than all others; rounding goes with the length.
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 1e-4
    scores = [b.token_nll(ids, mask, real) for b in (backend, reference)]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=0)

    drawn = torch.randn(1, loaded.hidden_size, generator=torch.Generator().manual_seed(0))
    direction = {LAYER: drawn / drawn.norm()}
    steering = Intervention(direction, {LAYER: NORM}, torch.tensor([[0.8], [-0.8]]))
    options = {"max_new_tokens": 5, "min_new_tokens": 5}
    tokens = reference.generate(ids, mask, steering, **options)
    assert torch.equal(backend.generate(ids, mask, steering, **options), tokens)
    assert not torch.equal(reference.generate(ids, mask, **options), tokens)
