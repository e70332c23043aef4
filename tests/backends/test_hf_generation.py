"""Steered generation: each row its own coefficients, each token its own place."""

import functools

import pytest
import torch
from oracles.steering import generated_by_hand, position_options
from steering_cases import (
    ARCHITECTURES_AND_SCOPES,
    COEFFICIENTS,
    EVERY_SCOPE,
    NO_EOS,
    intervene,
    load,
    prompts,
    steer,
    steered_logits,
)
from tiny import EOS
from torch import nn
from transformers import CompileConfig, DynamicCache, GenerationConfig, WatermarkingConfig

from valueflow.backends.hf import HFBackend

# KV cache


@ARCHITECTURES_AND_SCOPES
def test_cached_generation_equals_uncached_and_by_hand(arch, positions):
    backend, (ids, mask), intervention = load(arch), prompts(), intervene(positions=positions)
    cached = backend.generate(ids, mask, intervention, use_cache=True, **NO_EOS)
    unsteered = backend.generate(ids, mask, **NO_EOS)
    assert not torch.equal(cached, unsteered), "too weak an effect to show a wrong position"
    assert torch.equal(cached[1], unsteered[1])
    if positions == "generated":
        # The first new token is read off the last prompt token, which is out of scope.
        assert torch.equal(cached[:, 0], unsteered[:, 0])
    uncached = backend.generate(ids, mask, intervention, use_cache=False, **NO_EOS)
    assert torch.equal(cached, uncached)
    by_hand = generated_by_hand(
        backend.model, backend.blocks, intervention, ids, mask, n_tokens=5, banned=EOS
    )
    assert torch.equal(cached, by_hand)


@ARCHITECTURES_AND_SCOPES
def test_logits_step_by_step_equal_those_of_one_pass(arch, positions):
    backend, (ids, mask), intervention = load(arch), prompts(), intervene(positions=positions)
    model, prompt_mask = backend.model, mask[:, :8]
    steps, cache = [], DynamicCache(config=model.config)
    places = position_options(model, mask).get("position_ids")
    with torch.no_grad(), steer(backend, intervention, prompt_mask):
        # A chunk within the prompt, one across its end, then single tokens.
        for start, end in ((0, 5), (5, 10), (10, 11), (11, 12)):
            options = {} if places is None else {"position_ids": places[:, start:end]}
            steps += model(
                input_ids=ids[:, start:end],
                attention_mask=mask[:, :end],
                past_key_values=cache,
                use_cache=True,
                **options,
            ).logits.unbind(1)
    expected = steered_logits(backend, intervention, ids, mask, prompt_mask)
    real = mask.bool()
    torch.testing.assert_close(torch.stack(steps, 1)[real], expected[real], atol=1e-5, rtol=0)


@EVERY_SCOPE
def test_a_static_cache_and_a_prompt_in_chunks_give_the_same_tokens(positions):
    backend, (ids, mask), intervention = load(), prompts(), intervene(positions=positions)
    expected = backend.generate(ids, mask, intervention, **NO_EOS)
    static = backend.generate(ids, mask, intervention, cache_implementation="static", **NO_EOS)
    assert torch.equal(static, expected)
    chunks = backend.generate(ids, mask, intervention, prefill_chunk_size=5, **NO_EOS)
    assert torch.equal(chunks, expected)


def test_steps_are_not_compiled_as_compiled_steps_run_without_hooks():
    backend, (ids, mask) = load(), prompts()
    compiling = CompileConfig(backend="eager")
    compiling._compile_all_devices = True  # as transformers does by itself on a GPU
    options = {"cache_implementation": "static", "compile_config": compiling, **NO_EOS}
    assert torch.equal(
        backend.generate(ids, mask, **options), backend.generate(ids, mask, **NO_EOS)
    )
    expected = backend.generate(ids, mask, intervene(), **NO_EOS)
    assert torch.equal(backend.generate(ids, mask, intervene(), **options), expected)
    config = GenerationConfig(**options)
    in_config = backend.generate(ids, mask, intervene(), generation_config=config)
    assert torch.equal(in_config, expected)
    assert not config.disable_compile


@pytest.mark.parametrize("positions", ["generated", "prompt"])
def test_a_cache_given_by_position_is_seen(positions):
    backend, (ids, mask), intervention = load(), prompts(), intervene(positions=positions)
    decoder, places = backend.model.model, position_options(backend.model, mask)["position_ids"]
    cache = DynamicCache(config=backend.model.config)
    with torch.no_grad(), steer(backend, intervention, mask[:, :10]):
        decoder(ids[:, :10], mask[:, :10], places[:, :10], cache)
        last = decoder(ids[:, 10:], mask, places[:, 10:], cache).last_hidden_state
        expected = decoder(ids, mask, places, None).last_hidden_state[:, 10:]
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=0)


class Wrapper(nn.Module):
    """Like an adapter library: its `generate` goes straight to the model inside."""

    def __init__(self, model):
        super().__init__()
        self.base_model, self.config = model, model.config

    def forward(self, *args, **kwargs):
        return self.base_model(*args, **kwargs)

    def generate(self, **kwargs):
        return self.base_model.generate(**kwargs)

    def get_input_embeddings(self):
        return self.base_model.get_input_embeddings()


@EVERY_SCOPE
def test_a_wrapped_model_is_steered_as_the_model_inside(positions):
    backend, (ids, mask), intervention = load(), prompts(), intervene(positions=positions)
    wrapped = HFBackend(Wrapper(backend.model), backend.blocks)
    tokens = wrapped.generate(ids, mask, intervention, **NO_EOS)
    assert torch.equal(tokens, backend.generate(ids, mask, intervention, **NO_EOS))


# Beams and samples


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gpt_neo"])
@EVERY_SCOPE
def test_beams_carry_the_coefficients_of_their_row(arch, positions):
    backend, (ids, mask), options = load(arch), prompts(), {"num_beams": 3, **NO_EOS}
    together = backend.generate(ids, mask, intervene(positions=positions), **options)
    assert not torch.equal(together, backend.generate(ids, mask, **options))
    for row, real in enumerate(mask.bool()):
        own = slice(row, row + 1)
        one = intervene(COEFFICIENTS[own], positions)
        alone = backend.generate(ids[own, real], mask[own, real], one, **options)
        assert torch.equal(alone[0], together[row])


def sampled(backend, ids, mask, intervention, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        options = {"do_sample": True, **NO_EOS, **options}
        return backend.generate(ids, mask, intervention, **options)


def test_returned_samples_follow_their_row():
    backend, (ids, mask) = load(), prompts()
    together = sampled(backend, ids, mask, intervene(), num_return_sequences=4)
    assert together.shape == (12, 5)
    by_row = intervene(COEFFICIENTS.repeat_interleave(4, dim=0))
    repeated = [t.repeat_interleave(4, dim=0) for t in (ids, mask)]
    assert torch.equal(together, sampled(backend, *repeated, by_row))
    unsteered = sampled(backend, ids, mask, None, num_return_sequences=4)
    same = (together == unsteered).all(1).view(3, 4).sum(1)
    assert same.tolist() == [0, 4, 0]


def test_samples_are_given_by_the_seed():
    backend, (ids, mask) = load(), prompts()
    first = sampled(backend, ids, mask, intervene(), seed=1)
    assert torch.equal(first, sampled(backend, ids, mask, intervene(), seed=1))
    assert not torch.equal(first, sampled(backend, ids, mask, intervene(), seed=2))


def test_decoding_is_greedy_even_if_the_model_came_with_sampling(monkeypatch):
    backend, (ids, mask) = load(), prompts()
    greedy = backend.generate(ids, mask, intervene(), **NO_EOS)
    monkeypatch.setattr(backend.model.generation_config, "do_sample", True)
    assert torch.equal(backend.generate(ids, mask, intervene(), **NO_EOS), greedy)


OWN = {
    "num_beams": 3,
    "num_return_sequences": 2,
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "min_length": 40,
    "min_new_tokens": 5,
    "max_time": 0.0,
    "stop_strings": ["a"],
    "bad_words_ids": [[i] for i in range(3, 100)],
    "suppress_tokens": list(range(3, 100)),
    "begin_suppress_tokens": list(range(3, 100)),
    "sequence_bias": [[[7], 100.0]],
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "exponential_decay_length_penalty": (0, 50.0),
    "guidance_scale": 3.0,
    "watermarking_config": WatermarkingConfig(bias=50.0),
    "token_healing": True,
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "force_words_ids": [[7]],
    "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 1,
    "return_dict_in_generate": True,
    "num_beam_groups": 3,
}


@pytest.mark.parametrize("name", OWN)
def test_decoding_is_greedy_whatever_the_model_came_with(name, monkeypatch):
    backend, (ids, mask) = load(), prompts()
    run = functools.partial(backend.generate, ids, mask, max_new_tokens=5)
    expected = run(intervene()), run()
    own = backend.model.generation_config
    monkeypatch.setattr(own, name, OWN[name])
    if name in ("num_return_sequences", "num_beam_groups"):
        monkeypatch.setattr(own, "num_beams", 3)
    for tokens, greedy in zip((run(intervene()), run()), expected, strict=True):
        assert torch.equal(tokens, greedy)


@pytest.mark.parametrize("name", ["num_beams", "repetition_penalty", "no_repeat_ngram_size"])
def test_what_is_asked_for_is_done(name):
    backend, (ids, mask) = load(), prompts()
    run = functools.partial(backend.generate, ids, mask, intervene(), **NO_EOS)
    expected = run(generation_config=GenerationConfig(**{name: OWN[name]}, **NO_EOS))
    assert torch.equal(run(**{name: OWN[name]}), expected)
    assert not torch.equal(run(), expected)


def test_what_a_given_configuration_leaves_open_is_greedy_too(monkeypatch):
    backend, (ids, mask) = load(), prompts()
    greedy = backend.generate(ids, mask, intervene(), **NO_EOS)
    for name in ("num_beams", "num_return_sequences", "no_repeat_ngram_size", "do_sample"):
        monkeypatch.setattr(backend.model.generation_config, name, OWN.get(name, True))
    config = GenerationConfig(return_dict_in_generate=True, **NO_EOS)
    tokens = backend.generate(ids, mask, intervene(), generation_config=config)
    assert torch.equal(tokens, greedy)
    assert config.num_beams is None and config.return_dict_in_generate
    told = backend.generate(ids, mask, intervene(), return_dict_in_generate=True, **NO_EOS)
    assert torch.equal(told, greedy)


def test_copies_are_found_in_a_generation_config():
    backend, (ids, mask) = load(), prompts()
    config = GenerationConfig(num_beams=2, num_return_sequences=2, **NO_EOS)
    tokens = backend.generate(ids, mask, intervene(), generation_config=config)
    options = {"num_beams": 2, "num_return_sequences": 2, **NO_EOS}
    assert torch.equal(tokens, backend.generate(ids, mask, intervene(), **options))
    sampling = GenerationConfig(do_sample=True, **NO_EOS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = backend.generate(ids, mask, intervene(), generation_config=sampling)
    assert torch.equal(drawn, sampled(backend, ids, mask, intervene()))
