"""What is particular to nnsight: the user's own model and traces, source that has to be read."""

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import nnsight
import pytest
import torch
from oracles.steering import added_by_hand
from steering_cases import NO_EOS, intervene, load, prompts
from tiny import tiny_model, tiny_tokenizer
from torch import nn

from valueflow.backends.nnsight import NNsightBackend
from valueflow.errors import InvalidInput
from valueflow.models.layers import decoder_blocks
from valueflow.steering.vector import SteeringVector, intervention

HERE = Path(__file__).parents[1]


@pytest.mark.parametrize("wrap", ["NNsight", "TransformersModel"])
def test_a_model_that_is_wrapped_already_is_steered_as_hf(wrap):
    model, (ids, mask) = tiny_model("llama"), prompts()
    blocks = decoder_blocks(model)[1]
    if wrap == "NNsight":
        wrapped = nnsight.NNsight(model)
    else:
        wrapped = nnsight.TransformersModel(model, tokenizer=tiny_tokenizer())
    backend = NNsightBackend(wrapped, blocks)
    found = backend.generate(ids, mask, intervene(positions="generated"), **NO_EOS)
    expected = load().generate(ids, mask, intervene(positions="generated"), **NO_EOS)
    assert torch.equal(found, expected)
    # Both wrappings of the one model still work, side by side.
    with wrapped.trace(input_ids=ids, attention_mask=mask):
        hidden = wrapped.model.layers[1].output.save()
    real = mask.bool()
    torch.testing.assert_close(
        backend.capture(ids, mask, [1])[1][real], hidden[real], atol=1e-5, rtol=0
    )


def by_hand(model, ids, mask, push):
    with model.generate(do_sample=False, **NO_EOS) as tracer:
        with tracer.invoke(input_ids=ids, attention_mask=mask):
            for _ in tracer.iter[:]:
                block = model.model.layers[1]
                block.output = block.output + push
        with tracer.invoke():
            tokens = tracer.result.save()
    return tokens


def test_a_trace_that_adds_a_vector_by_hand_does_what_the_backend_does():
    """The snippet of docs/backends.md."""
    hf_model, (ids, mask) = tiny_model("llama"), prompts()
    drawn = torch.randn(32, generator=torch.Generator().manual_seed(2))
    vector = SteeringVector("v", {1: drawn / drawn.norm()}, {1: 6.0}, {})
    model = nnsight.TransformersModel(hf_model, tokenizer=tiny_tokenizer())
    push = 1.5 * vector.norms[1] * vector.directions[1]
    with pytest.warns(UserWarning, match="open .* loop ends this way by design"):
        tokens = by_hand(model, ids, mask, push)
    expected = load().generate(ids, mask, intervention([vector], [[1.5]] * 3), **NO_EOS)
    assert torch.equal(tokens[:, ids.shape[1] :], expected)


def test_no_warning_reaches_the_user():
    backend, (ids, mask) = NNsightBackend(*whole(tiny_model("llama"))), prompts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.generate(ids, mask, intervene(), **NO_EOS)
        backend.capture(ids, mask, [0, 2])


def whole(model):
    return model, decoder_blocks(model)[1]


class Block(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, hidden):
        return self.wrap(hidden)


class Odd(nn.Module):
    """Two blocks, run in the order given, each returning what `wrap` makes of its input."""

    def __init__(self, order, wrap):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=32)
        self.blocks, self.order = nn.ModuleList([Block(wrap), Block(wrap)]), order

    def forward(self, hidden, past_key_values=None):
        for i in self.order:
            hidden = self.blocks[i](hidden)
        return hidden

    def generate(self, input_ids, attention_mask, **_):
        for _ in range(3):
            self(torch.zeros(*input_ids.shape, 32))
        return input_ids


def test_a_block_that_returns_something_else_is_named():
    model, (ids, mask) = Odd((0,), lambda hidden: {"hidden": hidden}), prompts()
    backend = NNsightBackend(model, model.blocks)
    with pytest.raises(InvalidInput, match="a block returned dict"):
        backend.generate(ids, mask, intervene(layers=(0,)))


def test_blocks_that_run_in_order_are_steered_in_every_call():
    seen = []
    model, (ids, mask) = Odd((0, 1), lambda hidden: seen.append(hidden) or hidden + 1), prompts()
    NNsightBackend(model, model.blocks).generate(ids, mask, intervene(layers=(0,)))
    assert len(seen) == 6
    expected = added_by_hand(torch.zeros(3, 12, 32), 0, intervene(layers=(0,)), mask.bool()) + 1
    for entering_the_second in seen[1::2]:
        torch.testing.assert_close(entering_the_second, expected, atol=1e-5, rtol=0)


def test_blocks_that_run_out_of_order_are_an_error_and_not_unsteered_text():
    model, (ids, mask) = Odd((1, 0), lambda hidden: hidden + 1), prompts()
    backend = NNsightBackend(model, model.blocks)
    with pytest.raises(InvalidInput, match=r"[1-3] of 3 calls of the Odd did not run"):
        backend.generate(ids, mask, intervene(layers=(0, 1)))


@pytest.mark.slow
def test_it_runs_from_the_command_line_where_source_is_a_string():
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from oracles.steering import added_by_hand
from steering_cases import NO_EOS, intervene, load, prompts
from tool_cases import load_tool
tokens = [b.generate(*prompts(), intervene(), **NO_EOS) for b in (load_tool("nnsight"), load())]
assert tokens[0].equal(tokens[1])
print(load_tool("nnsight").capture(*prompts(), [1])[1].shape)
"""
    command = [sys.executable, "-c", code, str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "torch.Size([3, 12, 32])" in done.stdout
