"""Reading a model: the residual stream, and how likely a text is."""

import pytest
import torch
from oracles.steering import full_logits, position_options
from steering_cases import (
    EVERY_ARCHITECTURE,
    NO_EOS,
    intervene,
    left_as_found,
    load,
    prompts,
)
from tiny import tiny_model

from valueflow.backends.hf import HFBackend, capture
from valueflow.errors import InvalidInput
from valueflow.models.layers import decoder_blocks

# Capture


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_capture_equals_the_hidden_states_of_transformers(arch):
    model = tiny_model(arch)  # a fresh one, as transformers leaves hooks of its own behind
    backend, (ids, mask) = HFBackend(model, decoder_blocks(model)[1]), prompts()
    taken = backend.capture(ids, mask, range(4))
    options = {"output_hidden_states": True, **position_options(model, mask)}
    with torch.no_grad():
        states = model(input_ids=ids, attention_mask=mask, **options).hidden_states
    for layer in range(3):
        assert torch.equal(taken[layer], states[layer + 1])
    norm = model.model.norm if arch == "llama" else model.transformer.ln_f
    with torch.no_grad():
        assert torch.equal(norm(taken[3]), states[4])


@EVERY_ARCHITECTURE
def test_capture_equals_one_layer_at_a_time_and_leaves_no_hook(arch):
    backend, (ids, mask) = load(arch), prompts()
    with left_as_found(backend):
        taken = backend.capture(ids, mask, [3, 0, 1, 1])
        assert list(taken) == [0, 1, 3]
        for layer, hidden in taken.items():
            assert hidden.shape == (*ids.shape, 32)
            assert torch.equal(hidden, backend.capture(ids, mask, [layer])[layer])
    assert (taken[1] - taken[0]).abs().max() > 0.1


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gpt_neo", "mpt"])
def test_capture_stops_after_the_last_layer_it_needs(arch):
    backend, (ids, mask), ran = load(arch), prompts(), []
    watched = dict(enumerate(backend.blocks)) | {"head": backend.model.get_output_embeddings()}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in watched.items()
    ]
    backend.capture(ids, mask, [0, 2])
    assert ran == [0, 1, 2]
    full_logits(backend.model, ids, mask)
    assert ran == [0, 1, 2, 0, 1, 2, 3, "head"]
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("layers", [[], [4], [-1, 0]])
def test_capture_refuses_layers_the_model_lacks(layers):
    with left_as_found(load()), pytest.raises(InvalidInput, match="expected one or more of 0..3"):
        load().capture(*prompts(), layers)


def test_capture_that_fails_leaves_no_hook():
    backend, (ids, mask) = load(), prompts()
    with left_as_found(backend), pytest.raises(IndexError):
        backend.capture(ids + 1000, mask, [0, 3])


@EVERY_ARCHITECTURE
def test_capture_does_not_depend_on_padding(arch):
    backend = load(arch)
    (left, left_mask), (right, right_mask) = prompts("left"), prompts("right")
    from_left = backend.capture(left, left_mask, [0, 3])
    from_right = backend.capture(right, right_mask, [0, 3])
    for layer in (0, 3):
        for row in range(3):
            a = from_left[layer][row][left_mask[row].bool()]
            b = from_right[layer][row][right_mask[row].bool()]
            own = left[row : row + 1, left_mask[row].bool()]
            alone = capture(backend.model, backend.blocks, own, torch.ones_like(own), [layer])
            torch.testing.assert_close(a, alone[layer][0], atol=1e-5, rtol=0)
            torch.testing.assert_close(b, alone[layer][0], atol=1e-5, rtol=0)


def test_results_can_be_used_in_training():
    backend, (ids, mask) = load(), prompts()
    tensors = [
        backend.token_nll(ids, mask, mask.bool()),
        backend.generate(ids, mask, intervene(), **NO_EOS),
        backend.capture(ids, mask, [1])[1],
    ]
    assert not any(tensor.is_inference() for tensor in tensors)
