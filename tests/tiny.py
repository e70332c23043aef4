"""Tiny random models and a tiny tokenizer, made in memory: what the tests run on.

`tiny_model("llama")` is a real transformers model of a real architecture with a few thousand random
weights; `tiny_tokenizer()` fits all of them (vocabulary of 128, BOS, EOS and PAD).
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
MAX_POSITIONS = 1024

# What differs from the common sizes, by model_type. "hidden" and "n_layers" stand for arguments.
_GLU = {"intermediate_size": 64, "num_key_value_heads": 2}
_PLAIN = {"intermediate_size": 64}
_SLIDING = {"sliding_window": 16, "head_dim": 8}
_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": _GLU,
    "mistral": _GLU | {"sliding_window": None},
    # As many experts as layers: the trap for a search by length.
    "mixtral": _GLU | {"num_local_experts": "n_layers", "num_experts_per_tok": 2},
    "qwen2": _GLU,
    "qwen3": _GLU | {"head_dim": 8},
    "gemma2": _GLU | _SLIDING | {"query_pre_attn_scalar": 8},
    "gemma3_text": _GLU | _SLIDING | {"query_pre_attn_scalar": 8},
    "phi": _PLAIN | {"partial_rotary_factor": 0.5},
    "phi3": _GLU,
    "gpt2": {"n_inner": 64},
    "gpt_neox": _PLAIN | {"rotary_pct": 0.5},
    "gpt_neo": _PLAIN | {"window_size": 16},
    "gptj": {"n_inner": 64, "rotary_dim": 4},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": "hidden"},
    "bloom": {},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "alibi": False},
    "mpt": {"expansion_ratio": 2},
    "olmo": _GLU,
    "olmo2": _GLU,
    "stablelm": _GLU,
}

ARCHITECTURES: tuple[str, ...] = tuple(name.removesuffix("_text") for name in _SETTINGS)
"""Names `tiny_model` takes; they are transformers' model types (`gemma3` is the text model)."""

CORE = ("llama", "mixtral", "gemma3", "gpt2", "gpt_neo", "bloom", "falcon")
"""One of each kind: rotary, experts, sliding windows, absolute, local, ALiBi, parallel branches."""


def each_architecture_with(names: str, choices: Sequence[Any]) -> pytest.MarkDecorator:
    """Tests by `arch` and `names`: the core with every choice, the others with one each in turn.

    What is left out of the product is marked slow, so that `make test-slow` runs it all.
    """
    cases = []
    for i, arch in enumerate(ARCHITECTURES):
        for j, choice in enumerate(choices):
            own = choice if isinstance(choice, tuple) else (choice,)
            dealt = arch in CORE or j == i % len(choices)
            marks = () if dealt else pytest.mark.slow
            cases.append(pytest.param(arch, *own, marks=marks))
    return pytest.mark.parametrize(f"arch,{names}", cases)


def tiny_config(arch: str, *, n_layers: int = 4, hidden: int = 32, vocab: int = 128) -> Any:
    """The configuration behind `tiny_model`; 4 attention heads, BOS, EOS and PAD set."""
    model_type = f"{arch}_text" if f"{arch}_text" in _SETTINGS else arch
    settings = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": n_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
    }
    given = {"n_layers": n_layers, "hidden": hidden}
    settings |= {
        k: given.get(v, v) if isinstance(v, str) else v for k, v in _SETTINGS[model_type].items()
    }
    if arch == "gpt_neo":
        kinds = ["global", "local"] * n_layers
        settings["attention_types"] = [[[kind], 1] for kind in kinds[:n_layers]]
    return AutoConfig.for_model(model_type, **settings)


def tiny_model(
    arch: str, *, seed: int = 0, n_layers: int = 4, hidden: int = 32, vocab: int = 128
) -> PreTrainedModel:
    """A random causal language model of architecture `arch`: fp32, CPU, eval mode, deterministic.

    Weights are drawn at 1/sqrt(fan-in), not transformers' 0.02: every block then changes the stream
    by about as much as the stream is large, so an intervention in a middle layer moves the logits.
    """
    config = tiny_config(arch, n_layers=n_layers, hidden=hidden, vocab=vocab)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(std=1 / math.sqrt(parameter.shape[-1]), generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1, generator=generator)
    return model.float().eval()


_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
_SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
_MERGES = ["th", "he", "in", "er", "an", "re", "on", "at", "en", "nd", "ou", "ing", "the", "and"]


@functools.cache
def _tokenizer_json(bos: bool) -> str:
    letters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *letters, *_MERGES])}
    merges = [("th", "e") if m == "the" else (m[:-1], m[-1]) for m in _MERGES]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(_SPECIAL)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
        )
    return tokenizer.to_str()


def tiny_tokenizer(*, bos: bool = True, chat: bool = False) -> PreTrainedTokenizerFast:
    """A fast BPE tokenizer of 118 entries for plain ASCII; decoding gives the encoded text back.

    Args:
        bos: Whether encoding with special tokens puts `<s>` in front.
        chat: Whether it has a chat template, which (as Llama's and Gemma's do) writes `<s>` itself.
    """
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(bos)),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=MAX_POSITIONS,
        chat_template=_CHAT_TEMPLATE if chat else None,
    )
