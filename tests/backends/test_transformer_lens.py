"""What is particular to TransformerLens: the user's own bridge, and what it cannot do."""

import functools

import pytest
import torch
from oracles.steering import added_by_hand, generated_by_hand
from steering_cases import NO_EOS, hooks, intervene, load, prompts
from tiny import tiny_config, tiny_model, tiny_tokenizer
from tool_cases import load_tool, loaded
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM

from valueflow.backends.named import load_backend
from valueflow.backends.transformer_lens import (
    TransformerLensBackend,
    bridged,
    residual,
    steered,
)
from valueflow.errors import InvalidInput
from valueflow.steering.vector import SteeringVector
from valueflow.steering.vector import intervention as combined


@functools.cache
def own_bridge():
    """Booted as a user does it, over a model of its own."""
    return bridged(tiny_model("llama"), tiny_tokenizer())


def test_a_bridge_of_the_users_own_is_steered_as_hf():
    backend, (ids, mask) = TransformerLensBackend(own_bridge()), prompts()
    found = backend.generate(ids, mask, intervene(positions="generated"), **NO_EOS)
    expected = load().generate(ids, mask, intervene(positions="generated"), **NO_EOS)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("positions", ["all", "generated", "last"])
def test_the_generate_of_the_bridge_itself_is_steered(positions):
    (ids, mask), intervention = prompts(), intervene(positions=positions)
    reference = load()
    expected = generated_by_hand(
        reference.model, reference.blocks, intervention, ids, mask, n_tokens=5, banned=[]
    )
    options = {"do_sample": False, "stop_at_eos": False, "verbose": False, "max_new_tokens": 5}
    n_hooks = len(hooks(own_bridge().original_model))
    with steered(own_bridge(), intervention, prompt_mask=mask.bool()):
        found = own_bridge().generate(ids, attention_mask=mask, **options)
    assert torch.equal(found[:, ids.shape[1] :], expected)
    assert len(hooks(own_bridge().original_model)) == n_hooks
    unsteered = own_bridge().generate(ids, attention_mask=mask, **options)
    assert not torch.equal(found, unsteered)


def test_a_cache_taken_while_steered_holds_the_addition():
    bridge, (ids, mask), intervention = own_bridge(), prompts(), intervene(layers=(1,))
    name = "blocks.1.hook_resid_post"
    with torch.no_grad():
        _, before = bridge.run_with_cache(ids, attention_mask=mask, names_filter=[residual(1)])
        with steered(bridge, intervention, prompt_mask=mask.bool()):
            _, after = bridge.run_with_cache(ids, attention_mask=mask, names_filter=[residual(1)])
    expected = added_by_hand(before[residual(1)], 1, intervention, mask.bool())
    torch.testing.assert_close(
        after[residual(1)] - before[residual(1)], expected, atol=1e-5, rtol=0
    )
    assert bridge.hook_dict[name] is bridge.hook_dict[residual(1)]


def test_a_hook_that_adds_a_vector_by_hand_does_what_the_backend_does():
    """The snippet of docs/backends.md."""
    bridge, (ids, mask) = own_bridge(), prompts()
    drawn = torch.randn(32, generator=torch.Generator().manual_seed(2))
    vector = SteeringVector("v", {1: drawn / drawn.norm()}, {1: 6.0}, {})
    coefficient = 1.5

    def steer(hidden, hook):
        return hidden + coefficient * vector.norms[1] * vector.directions[1]

    with torch.no_grad():
        logits = bridge.run_with_hooks(
            ids, attention_mask=mask, fwd_hooks=[("blocks.1.hook_resid_post", steer)]
        )
        with steered(bridge, combined([vector], [[coefficient]])):
            expected = bridge(ids, attention_mask=mask)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_an_exception_under_steering_removes_the_hooks():
    model = own_bridge().original_model
    n_hooks = len(hooks(model))
    with pytest.raises(KeyboardInterrupt), steered(own_bridge(), intervene()):
        assert len(hooks(model)) > n_hooks
        raise KeyboardInterrupt
    assert len(hooks(model)) == n_hooks
    with (
        pytest.raises(InvalidInput, match="needs prompt_mask"),
        steered(own_bridge(), intervene(positions="last")),
    ):
        pass
    assert len(hooks(model)) == n_hooks


def test_text_is_cut_as_by_the_tokenizer_that_was_given():
    tokenizer = tiny_tokenizer(bos=False)
    bridge = bridged(tiny_model("llama"), tokenizer)
    text = "the rain and the garden"
    assert bridge.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert "add_bos_token" not in tokenizer.init_kwargs
    assert tokenizer.padding_side == "left"


def test_processed_weights_are_refused():
    bridge = bridged(tiny_model("gpt2"), tiny_tokenizer())
    bridge.enable_compatibility_mode(disable_warnings=True)
    with pytest.raises(InvalidInput, match="folded and centred"):
        TransformerLensBackend(bridge)


def test_what_is_no_bridge_is_refused():
    with pytest.raises(InvalidInput, match="expected a TransformerBridge, got LlamaForCausalLM"):
        TransformerLensBackend(load().model)


def test_an_architecture_without_adapter_is_named():
    settings = {
        "vocab_size": 128,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    config = AutoConfig.for_model("persimmon", **settings)
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(InvalidInput, match=r"no adapter for PersimmonForCausalLM .* 'persimmon'"):
        load_backend("transformer_lens", loaded(model))


def test_an_architecture_that_is_known_by_its_class_alone_is_found():
    """A configuration that was never saved does not name the class."""
    assert tiny_config("gemma3").architectures is None
    backend = load_tool("transformer_lens", "gemma3")
    assert isinstance(backend.bridge, TransformerBridge)
    assert load("gemma3").model.config.architectures is None
