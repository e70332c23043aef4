"""Steering with forward hooks: exact where it should act, without a trace where it should not."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from oracles.steering import added_by_hand, full_logits, steered_by_hand
from steering_cases import (
    ARCHITECTURES_AND_SCOPES,
    COEFFICIENTS,
    EVERY_ARCHITECTURE,
    EVERY_SCOPE,
    NO_EOS,
    hooks,
    intervene,
    left_as_found,
    load,
    prompts,
    steer,
    steered_logits,
)
from tiny import each_architecture_with, tiny_model
from torch import nn

from valueflow.backends.base import Intervention
from valueflow.backends.hf import HFBackend, steered
from valueflow.errors import InvalidInput
from valueflow.models.layers import decoder_blocks


@EVERY_ARCHITECTURE
def test_coefficient_zero_is_bit_equal(arch):
    backend, (ids, mask) = load(arch), prompts()
    zero = intervene(torch.zeros(3, 2))
    unsteered = full_logits(backend.model, ids, mask)
    assert torch.equal(steered_logits(backend, zero, ids, mask), unsteered)
    tokens = backend.generate(ids, mask, zero, **NO_EOS)
    assert torch.equal(tokens, backend.generate(ids, mask, **NO_EOS))
    assert tokens.shape == (3, 5)


@EVERY_ARCHITECTURE
def test_rows_with_coefficient_zero_are_bit_equal_among_steered_ones(arch):
    backend, (ids, mask) = load(arch), prompts()
    unsteered = full_logits(backend.model, ids, mask)
    logits = steered_logits(backend, intervene(), ids, mask)
    if arch == "mixtral":
        # An expert multiplies the tokens routed to it, whoever's they are: steered or not, other
        # neighbours change how many, and so the last bits.
        torch.testing.assert_close(logits[1], unsteered[1], atol=2e-6, rtol=0)
    else:
        assert torch.equal(logits[1], unsteered[1])
    real = mask.bool()
    for row in (0, 2):
        assert (logits - unsteered)[row][real[row]].abs().max() > 0.5


# What is added, and where


@ARCHITECTURES_AND_SCOPES
def test_the_delta_arrives_at_the_tokens_in_scope_and_nowhere_else(arch, positions):
    backend, (ids, mask), intervention = load(arch), prompts(), intervene(positions=positions)
    prompt_mask = mask[:, :9]  # the last three tokens count as generated
    before = backend.capture(ids, mask, [1])[1]
    with steer(backend, intervention, prompt_mask):
        after = backend.capture(ids, mask, [1])[1]
    expected = added_by_hand(before, 1, intervention, prompt_mask)
    torch.testing.assert_close(after - before, expected, atol=1e-5, rtol=0)
    elsewhere = (expected == 0).all(-1)
    assert torch.equal(after[elsewhere], before[elsewhere])
    assert expected.norm(dim=-1).max() > 10


@ARCHITECTURES_AND_SCOPES
def test_steering_several_layers_equals_steering_by_hand(arch, positions):
    backend, (ids, mask), prompt_mask = load(arch), prompts(), prompts()[1][:, :9]
    intervention = intervene(positions=positions, layers=(0, 2, 3))
    with steered_by_hand(backend.blocks, intervention, prompt_mask):
        expected = full_logits(backend.model, ids, mask)
    logits = steered_logits(backend, intervention, ids, mask, prompt_mask)
    real = mask.bool()
    torch.testing.assert_close(logits[real], expected[real], atol=1e-5, rtol=0)


def test_the_delta_is_linear_in_the_coefficients():
    backend, (ids, mask) = load(), prompts()

    def added(coefficients):
        with steer(backend, intervene(coefficients), mask):
            return backend.capture(ids, mask, [1])[1] - unsteered

    unsteered = backend.capture(ids, mask, [1])[1]
    a, b = COEFFICIENTS, COEFFICIENTS.flip(0)
    combined = 0.5 * added(a) - 2 * added(b)
    torch.testing.assert_close(added(0.5 * a - 2 * b), combined, atol=3e-5, rtol=0)


def test_without_a_prompt_mask_every_token_is_in_scope():
    backend, (ids, mask) = load(), prompts()
    real = mask.bool()
    with steer(backend, intervene()):
        logits = full_logits(backend.model, ids, mask)
    expected = steered_logits(backend, intervene(), ids, mask)
    torch.testing.assert_close(logits[real], expected[real], atol=1e-5, rtol=0)


def test_one_row_serves_the_whole_batch():
    backend, (ids, mask) = load("gpt2"), prompts()
    one, three = intervene(COEFFICIENTS[:1]), intervene(COEFFICIENTS[:1].repeat(3, 1))
    expected = steered_logits(backend, three, ids, mask)
    logits = steered_logits(backend, one, ids, mask)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    options = {"num_beams": 2, **NO_EOS}
    tokens = backend.generate(ids, mask, one, **options)
    assert torch.equal(tokens, backend.generate(ids, mask, three, **options))
    assert not torch.equal(tokens, backend.generate(ids, mask, **options))


# Batches


@each_architecture_with("positions,side", list(product(["all", "last"], ["left", "right"])))
def test_a_row_does_not_depend_on_its_neighbours(arch, positions, side):
    backend, (ids, mask) = load(arch), prompts(side)
    together = steered_logits(backend, intervene(positions=positions), ids, mask)
    order = torch.tensor([2, 0, 1])
    shuffled = intervene(COEFFICIENTS[order], positions)
    permuted = steered_logits(backend, shuffled, ids[order], mask[order])
    for row, real in enumerate(mask.bool()):
        alone = steered_logits(
            backend,
            intervene(COEFFICIENTS[row : row + 1], positions),
            ids[row : row + 1, real],
            mask[row : row + 1, real],
        )[0]
        torch.testing.assert_close(together[row][real], alone, atol=1e-5, rtol=0)
        there = int((order == row).nonzero())
        torch.testing.assert_close(permuted[there][real], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "mixtral", "bloom"])
def test_a_row_generates_the_same_alone(arch):
    backend, (ids, mask) = load(arch), prompts()
    together = backend.generate(ids, mask, intervene(), **NO_EOS)
    for row, real in enumerate(mask.bool()):
        own = slice(row, row + 1)
        one = intervene(COEFFICIENTS[own])
        alone = backend.generate(ids[own, real], mask[own, real], one, **NO_EOS)
        assert torch.equal(alone[0], together[row])


# Nesting and repeated use


@EVERY_SCOPE
def test_contexts_add_up(positions):
    backend, (ids, mask) = load(), prompts()
    first, second = COEFFICIENTS, COEFFICIENTS.flip(0)
    prompt_mask = mask[:, :9]
    with steer(backend, intervene(first, positions), prompt_mask):
        outer = full_logits(backend.model, ids, mask)
        nested = steered_logits(backend, intervene(second, positions), ids, mask, prompt_mask)
        assert torch.equal(full_logits(backend.model, ids, mask), outer)
    both = intervene(first + second, positions)
    summed = steered_logits(backend, both, ids, mask, prompt_mask)
    torch.testing.assert_close(nested, summed, atol=2e-5, rtol=0)
    assert (nested - outer).abs().max() > 0.5


def test_nested_scopes_keep_their_own_places_in_generation():
    backend, (ids, mask) = load(), prompts()
    with steer(backend, intervene(positions="prompt"), mask):
        nested = backend.generate(ids, mask, intervene(positions="generated"), **NO_EOS)
    assert torch.equal(nested, backend.generate(ids, mask, intervene(), **NO_EOS))


def test_repeated_use_gives_the_same():
    backend, (ids, mask), intervention = load(), prompts(), intervene(positions="generated")
    with left_as_found(backend):
        first = backend.generate(ids, mask, intervention, **NO_EOS)
        backend.generate(ids, mask, intervene(), **NO_EOS)
        assert torch.equal(backend.generate(ids, mask, intervention, **NO_EOS), first)
    with steer(backend, intervention, mask):
        for _ in range(2):
            options = {"do_sample": False, **NO_EOS}
            ids_out = backend.model.generate(input_ids=ids, attention_mask=mask, **options)
            assert torch.equal(ids_out[:, ids.shape[1] :], first)


# Exceptions


@EVERY_ARCHITECTURE
def test_an_exception_inside_leaves_the_model_as_it_was(arch):
    backend = load(arch)
    with left_as_found(backend), pytest.raises(KeyboardInterrupt), steer(backend, intervene()):
        assert hooks(backend.model)
        raise KeyboardInterrupt


@EVERY_ARCHITECTURE
def test_an_exception_in_the_midst_of_generation_leaves_the_model_as_it_was(arch):
    backend, (ids, mask), calls = load(arch), prompts(), []

    def fail_at_the_third_token(*_):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")

    with left_as_found(backend):
        handle = backend.blocks[3].register_forward_pre_hook(fail_at_the_third_token)
        with pytest.raises(RuntimeError, match="out of memory"):
            backend.generate(ids, mask, intervene(), **NO_EOS)
        handle.remove()


@pytest.mark.parametrize(
    ("coefficients", "copies", "with_mask"),
    [
        (COEFFICIENTS, 1, True),
        (COEFFICIENTS, 1, False),
        (COEFFICIENTS[:2], 1, False),
        (COEFFICIENTS, 4, True),
        (COEFFICIENTS[:1], 1, True),
    ],
)
def test_a_batch_of_other_rows_is_refused_in_its_run(coefficients, copies, with_mask):
    backend, (ids, mask) = load(), prompts()
    given = mask if with_mask else None
    with (
        left_as_found(backend),
        pytest.raises(InvalidInput, match=r"set up for \d+ rows .* the batch has 6"),
        steer(backend, intervene(coefficients), given, copies),
    ):
        backend.model.generate(input_ids=ids, attention_mask=mask, num_beams=2, **NO_EOS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": (1, 2, 9)}, "one or more of 0..3"),
        ({"layers": ()}, "one or more of 0..3"),
        ({"coefficients": COEFFICIENTS[:2]}, "2 rows, the prompts 3"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_a_hook_is_set(changes, message):
    backend, (ids, mask) = load(), prompts()
    with left_as_found(backend), pytest.raises(InvalidInput, match=message):
        backend.generate(ids, mask, intervene(**changes), **NO_EOS)


def test_directions_of_another_size_are_refused():
    wrong = Intervention({1: torch.eye(2, 16)}, {1: 1.0}, COEFFICIENTS)
    with (
        left_as_found(load()),
        pytest.raises(InvalidInput, match="16 dimensions, .* stream 32"),
        steer(load(), wrong),
    ):
        pass


def test_blocks_of_another_model_are_refused():
    strangers = HFBackend(load().model, load("mistral").blocks)
    with (
        left_as_found(load("mistral")),
        pytest.raises(InvalidInput, match="not part of the LlamaForCausalLM"),
        steer(strangers, intervene()),
    ):
        pass


# Kinds of blocks and numbers


class Identity(nn.Module):
    """A block whose output is its input: an addition in place would change both."""

    def __init__(self, as_tuple):
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, hidden):
        return (hidden, "more") if self.as_tuple else hidden


class TwoBlocks(nn.Module):
    def __init__(self, as_tuple):
        super().__init__()
        self.config = SimpleNamespace(hidden_size=32)
        self.blocks = nn.ModuleList([Identity(as_tuple), Identity(as_tuple)])

    def forward(self, hidden):
        first = self.blocks[0](hidden)
        return first, self.blocks[1](first[0] if isinstance(first, tuple) else first)


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_block_that_returns_its_input_does_not_have_it_changed(as_tuple):
    model, hidden = TwoBlocks(as_tuple), torch.randn(3, 4, 32)
    kept = hidden.clone()
    with steered(model, model.blocks, intervene(layers=(1,))):
        first, second = model(hidden)
    added = added_by_hand(hidden, 1, intervene(layers=(1,)), torch.ones(3, 4).bool())
    if as_tuple:
        assert second[1] == "more"
        first, second = first[0], second[0]
    assert torch.equal(hidden, kept)
    assert torch.equal(first, kept)
    torch.testing.assert_close(second, kept + added)


def test_a_block_that_returns_something_else_is_named():
    model = TwoBlocks(as_tuple=False)
    model.blocks[0].forward = lambda hidden: {"hidden": hidden}
    with (
        pytest.raises(InvalidInput, match="a block returned dict"),
        steered(model, model.blocks, intervene(layers=(0,))),
    ):
        model(torch.randn(3, 4, 32))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_delta_takes_the_type_of_the_model(dtype):
    model = tiny_model("llama").to(dtype)
    backend, (ids, mask) = HFBackend(model, decoder_blocks(model)[1]), prompts()
    unsteered = backend.capture(ids, mask, [1])[1]
    with steer(backend, intervene(dtype=torch.float16), mask):
        after = backend.capture(ids, mask, [1])[1]
    assert after.dtype == unsteered.dtype == dtype
    assert torch.equal(after[1], unsteered[1])
    expected = added_by_hand(unsteered.float(), 1, intervene(), mask).to(dtype)
    torch.testing.assert_close(after - unsteered, expected, atol=0.1, rtol=0)
    zero = intervene(torch.zeros(3, 2))
    logits = full_logits(model, ids, mask)
    assert torch.equal(steered_logits(backend, zero, ids, mask), logits)
    tokens = backend.generate(ids, mask, intervene(), **NO_EOS)
    assert not torch.equal(tokens, backend.generate(ids, mask, **NO_EOS))
