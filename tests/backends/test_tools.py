"""nnsight and TransformerLens give what transformers with hooks gives."""

import dataclasses
import functools

import pytest
import torch
from oracles.steering import full_logits
from steering_cases import (
    COEFFICIENTS,
    EVERY_SCOPE,
    NO_EOS,
    hooks,
    intervene,
    left_as_found,
    load,
    prompts,
)
from tiny import tiny_model
from tool_cases import EVERY_TOOL, FAMILIES, load_tool, loaded

from valueflow.backends.base import Backend, Intervention
from valueflow.backends.named import load_backend
from valueflow.errors import InvalidInput


def close(found, expected, mask=None):
    if mask is not None:
        found, expected = found[mask], expected[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@EVERY_TOOL
@FAMILIES
def test_activations_and_logits_are_those_of_hf(tool, arch):
    backend, reference = load_tool(tool, arch), load(arch)
    assert isinstance(backend, Backend) and backend.n_layers == 4
    for side in ("left", "right"):
        ids, mask = prompts(side)
        real = mask.bool()
        expected = reference.capture(ids, mask, [3, 0, 1])
        found = backend.capture(ids, mask, [3, 0, 1])
        assert list(found) == [0, 1, 3]
        for layer, hidden in found.items():
            close(hidden, expected[layer], real)
        close(full_logits(backend.model, ids, mask), full_logits(reference.model, ids, mask), real)


@EVERY_SCOPE
@EVERY_TOOL
@FAMILIES
def test_steered_tokens_and_scores_are_those_of_hf(tool, arch, positions):
    tokens, logits = run(load_tool(tool, arch), intervene(positions=positions))
    expected_tokens, expected_logits = run_hf(arch, positions)
    assert torch.equal(tokens, expected_tokens)
    close(logits, expected_logits)
    assert not torch.equal(tokens, run_hf(arch)[0])


@EVERY_SCOPE
@EVERY_TOOL
def test_components_are_held_and_norms_kept_as_in_hf(tool, positions):
    """One row projects out and clamps, one does nothing, one adds and keeps its length."""
    nan = float("nan")
    held = torch.tensor([[0.0, 1.5], [nan, nan], [nan, nan]])
    plain = intervene(torch.tensor([[0.0, 0.0], [0.0, 0.0], [-1.0, 2.5]]), positions)
    both = dataclasses.replace(plain, held=held, keep_norm=torch.tensor([False, False, True]))
    tokens, logits = run(load_tool(tool), both)
    expected_tokens, expected_logits = run(load(), both)
    assert torch.equal(tokens, expected_tokens)
    close(logits, expected_logits)
    unsteered = run_hf()[1]
    assert torch.equal(logits[1], run(load_tool(tool), None)[1][1])
    assert (logits[0] - unsteered[0]).abs().max() > 0.1
    assert (logits[2] - run(load(), plain)[1][2]).abs().max() > 0.01


def run(backend, intervention, given=None):
    """Generated tokens and the scores of every step, which show what tokens would round away."""
    kept, generate = [], backend.model.generate

    def keeping(**inputs):
        more = {"output_logits": True, "return_dict_in_generate": True, **NO_EOS}
        kept.append(generate(**inputs | more))
        return kept[0].sequences

    backend.model.generate = keeping
    try:
        tokens = backend.generate(*(given or prompts()), intervention)
    finally:
        del backend.model.generate
    return tokens, torch.stack(kept[0].logits, 1)


@functools.cache
def run_hf(arch="llama", positions=None):
    return run(load(arch), positions and intervene(positions=positions))


@EVERY_TOOL
@FAMILIES
def test_coefficient_zero_is_bit_equal(tool, arch):
    backend = load_tool(tool, arch)
    tokens, unsteered = run(backend, None)
    assert torch.equal(tokens, run_hf(arch)[0])
    assert torch.equal(run(backend, intervene(torch.zeros(3, 2)))[1], unsteered)
    steered = run(backend, intervene())[1]
    assert torch.equal(steered[1], unsteered[1])
    assert (steered[0] - unsteered[0]).abs().max() > 0.5


@EVERY_TOOL
def test_likelihoods_are_those_of_hf(tool):
    backend, reference, (ids, mask) = load_tool(tool), load(), prompts()
    scored = mask.bool()
    close(backend.token_nll(ids, mask, scored), reference.token_nll(ids, mask, scored))
    rows = torch.tensor([2, 0, 2, 1])
    new = torch.randint(3, 118, (4, 5), generator=torch.Generator().manual_seed(1))
    real = torch.arange(5) < torch.tensor([5, 3, 1, 4])[:, None]
    found = backend.continuation_nll(ids[rows], mask[rows], new, real)
    close(found, reference.continuation_nll(ids[rows], mask[rows], new, real))


# Cache, padding, copies


@EVERY_SCOPE
@EVERY_TOOL
def test_the_cache_does_not_change_the_tokens(tool, positions):
    backend, (ids, mask), intervention = load_tool(tool), prompts(), intervene(positions=positions)
    cached = backend.generate(ids, mask, intervention, use_cache=True, **NO_EOS)
    assert torch.equal(cached, backend.generate(ids, mask, intervention, use_cache=False, **NO_EOS))
    chunks = backend.generate(ids, mask, intervention, prefill_chunk_size=5, **NO_EOS)
    assert torch.equal(chunks, cached)


@EVERY_TOOL
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_a_row_generates_the_same_alone(tool, arch):
    backend, (ids, mask) = load_tool(tool, arch), prompts()
    together = backend.generate(ids, mask, intervene(), **NO_EOS)
    for row, real in enumerate(mask.bool()):
        own = slice(row, row + 1)
        one = intervene(COEFFICIENTS[own])
        alone = backend.generate(ids[own, real], mask[own, real], one, **NO_EOS)
        assert torch.equal(alone[0], together[row])


@EVERY_TOOL
def test_beams_carry_the_coefficients_of_their_row(tool):
    backend, (ids, mask), options = load_tool(tool), prompts(), {"num_beams": 3, **NO_EOS}
    found = backend.generate(ids, mask, intervene(positions="generated"), **options)
    expected = load().generate(ids, mask, intervene(positions="generated"), **options)
    assert torch.equal(found, expected)
    assert not torch.equal(found, backend.generate(ids, mask, **options))


@EVERY_TOOL
def test_rows_that_end_early_and_a_loop_of_unknown_length(tool):
    backend, reference, (ids, mask) = load_tool(tool), load(), prompts()
    free = reference.generate(ids, mask, intervene(), **NO_EOS)
    options = {"max_new_tokens": 5, "eos_token_id": int(free[0, 2]), "pad_token_id": 0}
    found = backend.generate(ids[:1], mask[:1], intervene(COEFFICIENTS[:1]), **options)
    assert found.tolist() == [free[0, : found.shape[1]].tolist()]
    assert found.shape[1] <= 3


# What is left behind


@EVERY_TOOL
def test_an_exception_in_the_midst_of_generation_leaves_no_trace(tool):
    backend, (ids, mask) = load_tool(tool), prompts()
    before = full_logits(backend.model, ids, mask)
    n_hooks, calls = len(hooks(backend.model)), []

    def fail_at_the_third_token(*_):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    handle = backend.blocks[3].register_forward_pre_hook(fail_at_the_third_token)
    with pytest.raises(RuntimeError, match="out of memory"):
        backend.generate(ids, mask, intervene(), **NO_EOS)
    handle.remove()
    assert len(hooks(backend.model)) == n_hooks
    assert torch.equal(full_logits(backend.model, ids, mask), before)
    steered = backend.generate(ids, mask, intervene(), **NO_EOS)
    assert torch.equal(steered, run_hf("llama", "all")[0])


@EVERY_TOOL
def test_capture_that_fails_leaves_no_trace(tool):
    backend, (ids, mask) = load_tool(tool), prompts()
    before = backend.capture(ids, mask, [2])[2]
    n_hooks = len(hooks(backend.model))
    with pytest.raises(IndexError):
        backend.capture(ids + 1000, mask, [0, 3])
    assert len(hooks(backend.model)) == n_hooks
    assert torch.equal(backend.capture(ids, mask, [2])[2], before)


@EVERY_TOOL
def test_the_model_itself_is_not_touched_and_shares_its_weights(tool):
    backend, reference = load_tool(tool, "llama"), load("llama")
    assert backend.model is not reference.model
    classes = {type(module).__module__.split(".")[0] for module in reference.model.modules()}
    assert classes == {"transformers", "torch"}
    assert not any("forward" in module.__dict__ for module in reference.model.modules())
    mine = {p.data_ptr() for p in backend.model.parameters()}
    assert mine == {p.data_ptr() for p in reference.model.parameters()}
    ids, mask = prompts()
    with left_as_found(reference):
        backend.generate(ids, mask, intervene(), **NO_EOS)


@EVERY_TOOL
def test_capture_runs_no_block_after_the_last(tool):
    backend, ran = load_tool(tool), []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(backend.blocks)
    ]
    backend.capture(*prompts(), [0, 1])
    for handle in handles:
        handle.remove()
    assert 2 not in ran and 3 not in ran


# What is refused


@EVERY_TOOL
def test_what_does_not_fit_is_refused(tool):
    backend, (ids, mask) = load_tool(tool), prompts()
    with pytest.raises(InvalidInput, match="one or more of 0..3"):
        backend.capture(ids, mask, [4])
    with pytest.raises(InvalidInput, match="one or more of 0..3"):
        backend.generate(ids, mask, intervene(layers=(1, 9)), **NO_EOS)
    with pytest.raises(InvalidInput, match="2 rows, the prompts 3"):
        backend.generate(ids, mask, intervene(COEFFICIENTS[:2]), **NO_EOS)
    wrong = Intervention({1: torch.eye(2, 16)}, {1: 1.0}, COEFFICIENTS)
    with pytest.raises(InvalidInput, match="16 dimensions"):
        backend.generate(ids, mask, wrong, **NO_EOS)


@EVERY_TOOL
def test_bfloat16_rows_of_coefficient_zero_stay(tool):
    backend = load_backend(tool, loaded(tiny_model("llama").to(torch.bfloat16)))
    unsteered, steered = run(backend, None)[1], run(backend, intervene())[1]
    assert torch.equal(steered[1], unsteered[1])
    assert not torch.equal(steered[0], unsteered[0])


@EVERY_TOOL
def test_decoding_is_greedy_whatever_the_model_came_with(tool, monkeypatch):
    backend, (ids, mask) = load_tool(tool), prompts()
    expected = load().generate(ids, mask, intervene(), **NO_EOS)
    own = {"num_beams": 3, "no_repeat_ngram_size": 1, "return_dict_in_generate": True}
    for name, value in own.items():
        monkeypatch.setattr(backend.model.generation_config, name, value)
    assert torch.equal(backend.generate(ids, mask, intervene(), **NO_EOS), expected)
