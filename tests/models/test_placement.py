"""Models whose weights are elsewhere: offloaded, mapped to devices, quantised, compiled."""

import copy
import functools

import pytest
import torch
from accelerate import cpu_offload, dispatch_model
from oracles.steering import full_logits
from steering_cases import hooks
from tiny import tiny_model, tiny_tokenizer

from valueflow.backends.hf import steered
from valueflow.dose.sweep import Decoding, sweep
from valueflow.errors import InvalidInput
from valueflow.models import decoder_blocks, load
from valueflow.models.loading import fingerprint
from valueflow.steering.activations import typical_norms
from valueflow.steering.vector import SteeringVector, intervention

PROMPTS = ["Hi", "What should the two of them do about the garden?"]
CELLS = [{}, {"v": 0.8}, {"v": -0.8}]
DECODING = Decoding(max_new_tokens=6)


@functools.cache
def model():
    return tiny_model("llama")


def vector():
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(32, generator=generator)
    directions = {layer: direction / direction.norm() for layer in (1, 2)}
    return SteeringVector("v", directions, {1: 6.0, 2: 6.0}, {})


def answers(changed):
    loaded = load((changed, tiny_tokenizer(chat=True)))
    return sweep(loaded, {"v": vector()}, CELLS, PROMPTS, decoding=DECODING)


@functools.cache
def expected():
    grid = answers(model())
    assert len(set(grid.texts)) == 3
    return grid


def offloaded():
    changed = copy.deepcopy(model())
    return cpu_offload(changed, execution_device="cpu")


def mapped(folder):
    """Half of the blocks on disk."""
    names = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    names |= {f"model.layers.{i}": "disk" if i in (1, 3) else "cpu" for i in range(4)}
    names["lm_head"] = "disk"
    changed = copy.deepcopy(model())
    return dispatch_model(changed, names, main_device="cpu", offload_dir=str(folder))


@pytest.mark.parametrize("kind", ["offloaded", "mapped"])
def test_a_model_whose_weights_are_elsewhere_is_steered_alike(kind, tmp_path):
    changed = offloaded() if kind == "offloaded" else mapped(tmp_path)
    assert any(p.device.type == "meta" for p in changed.parameters())
    loaded = load((changed, tiny_tokenizer(chat=True)))
    assert loaded.device == torch.device("cpu")
    grid = answers(changed)
    assert grid.texts == expected().texts
    assert torch.allclose(torch.tensor(grid.nll), torch.tensor(expected().nll), atol=1e-4)
    own = typical_norms(load((model(), tiny_tokenizer(chat=True))), PROMPTS, [1, 3])
    assert typical_norms(loaded, PROMPTS, [1, 3]) == pytest.approx(own)
    # What was fetched for a moment is gone again.
    assert any(p.device.type == "meta" for p in changed.parameters())


@pytest.mark.parametrize("kind", ["offloaded", "mapped"])
def test_the_fingerprint_is_that_of_the_weights_wherever_they_are(kind, tmp_path):
    changed = offloaded() if kind == "offloaded" else mapped(tmp_path)
    tokenizer = tiny_tokenizer()
    assert fingerprint(changed, tokenizer) == fingerprint(model(), tokenizer)
    other = tiny_model("llama", seed=1)
    assert fingerprint(other, tokenizer) != fingerprint(model(), tokenizer)


def test_weights_that_are_nowhere_are_refused():
    base = model()
    with torch.device("meta"):
        empty = type(base)(base.config)
    with pytest.raises(InvalidInput, match="has no values"):
        load((empty, tiny_tokenizer()))


def shift(changed, base):
    """What steering does to the logits of a few tokens."""
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.ones_like(ids)
    plan = intervention([vector()], [[0.8]])
    with steered(changed, decoder_blocks(base)[1], plan):
        after = full_logits(changed, ids, mask)
    return after - full_logits(changed, ids, mask)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_weights_are_steered_by_the_same_vector():
    """int8 linear layers; hooks add to what a block returns and never see its weights."""
    changed = torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(model()), {torch.nn.Linear}, dtype=torch.qint8
    )
    ours, theirs = shift(model(), model()), shift(changed, changed)
    assert torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.97
    tokenizer = tiny_tokenizer()
    assert fingerprint(changed, tokenizer).model != fingerprint(model(), tokenizer).model


@pytest.mark.parametrize("kind", ["wrapped", "in place", "around"])
def test_a_compiled_model_is_steered_although_its_graph_has_no_hooks(kind):
    base = copy.deepcopy(model())
    ids = torch.arange(3, 15).view(2, 6)
    mask = torch.ones_like(ids)
    if kind == "in place":
        base.compile(backend="eager")
        compiled = base
    else:
        compiled = torch.compile(base, backend="eager")
    before = full_logits(compiled, ids, mask)  # compiled here, without hooks
    plan = intervention([vector()], [[0.8]])
    known = base if kind == "around" else compiled
    with steered(known, decoder_blocks(base)[1], plan):
        after = full_logits(compiled, ids, mask)
    assert torch.allclose(after - before, shift(model(), model()), atol=1e-4)
    assert torch.equal(full_logits(compiled, ids, mask), before)
    assert not hooks(base)
    torch._dynamo.reset()


@pytest.mark.slow
def test_answers_of_a_compiled_model_are_those_of_the_model():
    compiled = torch.compile(copy.deepcopy(model()), backend="eager")
    grid = answers(compiled)
    assert grid.texts == expected().texts
    tokenizer = tiny_tokenizer()
    assert fingerprint(compiled, tokenizer) == fingerprint(model(), tokenizer)
    torch._dynamo.reset()
