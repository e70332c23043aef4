from types import SimpleNamespace

import pytest
import torch
from tiny import ARCHITECTURES, tiny_config, tiny_model
from torch import nn

from valueflow.errors import LayerNotFound
from valueflow.models import decoder_blocks

PATHS = {
    "gpt2": "transformer.h",
    "gpt_neo": "transformer.h",
    "gptj": "transformer.h",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
    "mpt": "transformer.blocks",
    "gpt_neox": "gpt_neox.layers",
    "opt": "model.decoder.layers",
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_blocks_are_the_residual_stream_in_order(arch):
    model = tiny_model(arch, n_layers=3)
    path, blocks = decoder_blocks(model)
    assert path == PATHS.get(arch, "model.layers")
    seen = []

    def keep(_module, _args, output):
        seen.append(output[0] if isinstance(output, tuple) else output)

    handles = [block.register_forward_hook(keep) for block in blocks]
    with torch.no_grad():
        hidden = model(torch.tensor([[5, 6, 7]]), output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    # hidden_states[0] is the embedding; the last entry has the final norm applied on top.
    assert len(seen) == len(blocks) == 3
    for i in range(2):
        torch.testing.assert_close(seen[i], hidden[i + 1])
    assert not torch.allclose(hidden[1], hidden[2])


class Block(nn.Module):
    def __init__(self, width=4, experts=0):
        super().__init__()
        self.linear = nn.Linear(width, width)
        if experts:
            self.experts = nn.ModuleList(Expert(width, width) for _ in range(experts))

    def forward(self, x):
        x = x + self.linear(x)
        for expert in getattr(self, "experts", []):
            x = x + expert(x)
        return x


class Expert(nn.Linear):
    pass


class OtherBlock(Block):
    pass


class Model(nn.Module):
    """`text` and `other` stacks; `runs` names those that a forward pass over text goes through."""

    def __init__(self, runs, n_layers=4, **stacks):
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=n_layers)
        self.embed = nn.Embedding(8, 4)
        for name, stack in stacks.items():
            setattr(self, name, nn.ModuleList(stack))
        self.runs = runs

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for name in self.runs:
            for block in getattr(self, name):
                x = block(x)
        return x


def stack(n, kind=Block, **options):
    return [kind(**options) for _ in range(n)]


def test_as_many_experts_as_layers_are_not_taken_for_the_layers():
    model = Model(["layers"], layers=stack(4, experts=4))
    path, blocks = decoder_blocks(model)
    assert path == "layers"
    assert type(blocks[0]) is Block


@pytest.mark.parametrize("n_vision", [4, 7])
def test_a_vision_tower_is_passed_over(n_vision):
    # Both run, so that only the name tells them apart when they are equally long.
    model = Model(["vision_blocks", "layers"], vision_blocks=stack(n_vision), layers=stack(4))
    assert decoder_blocks(model)[0] == "layers"


def test_the_stack_that_text_runs_through_wins_a_tie():
    model = Model(["beta"], alpha=stack(4), beta=stack(4))
    assert decoder_blocks(model)[0] == "beta"
    # Asking left nothing behind.
    assert all(not block._forward_pre_hooks for block in [*model.alpha, *model.beta])


def test_two_stacks_that_both_run_are_refused_with_both_named():
    model = Model(["alpha", "beta"], alpha=stack(4), beta=stack(4, OtherBlock))
    with pytest.raises(LayerNotFound, match=r"alpha \(4 x Block\), beta \(4 x OtherBlock\)"):
        decoder_blocks(model)
    path, blocks = decoder_blocks(model, override="beta")
    assert path == "beta"
    assert blocks is model.beta


def test_a_hybrid_stack_of_two_classes_is_found():
    mixed = [kind() for kind in (Block, OtherBlock, Block, OtherBlock)]
    assert decoder_blocks(Model(["layers"], layers=mixed))[0] == "layers"
    # A list of one class is preferred only if there is one.
    assert decoder_blocks(Model(["plain"], layers=mixed, plain=stack(4)))[0] == "plain"


@pytest.mark.parametrize("name", ["encoder", "image_tower"])
def test_an_unlucky_name_does_not_hide_the_only_stack(name):
    assert decoder_blocks(Model([name], **{name: stack(4)}))[0] == name


def test_nothing_fits():
    with pytest.raises(
        LayerNotFound, match=r"has 4 decoder blocks, and no list.*rows \(3 x Block\)"
    ):
        decoder_blocks(Model(["rows"], rows=stack(3)))
    with pytest.raises(LayerNotFound, match="no ModuleList at all"):
        decoder_blocks(nn.Linear(2, 2))
    with pytest.raises(LayerNotFound, match=r"'h' is no list of blocks.*rows"):
        decoder_blocks(Model(["rows"], rows=stack(3)), override="h")


@pytest.mark.parametrize("vision_layers", [4, 6])
def test_llava_gives_its_language_model(vision_layers):
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=vision_layers,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    config = LlavaConfig(vision_config=vision, text_config=tiny_config("llama"))
    path, blocks = decoder_blocks(LlavaForConditionalGeneration(config).eval())
    assert "vision" not in path
    assert [type(block).__name__ for block in blocks] == ["LlamaDecoderLayer"] * 4
