"""From a GGUF file to an ordinary transformers model and tokenizer.

transformers reads GGUF, but what it gives back is marked as quantised and refuses to be saved, and
some pre-tokenizers that GGUF files name are replaced by GPT-2's. Both are mended here.
"""

from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

# Pre-tokenizers that cut off every digit before GPT-2's rule applies (llama.cpp, llama-vocab.cpp).
# transformers knows no rule for them and uses GPT-2's alone, which splits "  1" in another place.
_SINGLE_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})


def read_gguf(path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Any]:
    """The model and tokenizer of a GGUF file, for use in memory.

    Args:
        path: The file; its architecture must be one that transformers can read.
        dtype: Of the weights; values are dequantised in fp32 first.

    Returns:
        The dequantised model in eval mode (transformers will not save it), and its tokenizer with
        the chat template of the file.
    """
    folder, name = str(path.parent), path.name
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    if _pre_tokenizer_name(path) in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return model.eval(), tokenizer


def convert_gguf(path: Path, folder: Path, *, dtype: torch.dtype, tied: bool) -> None:
    """Write a GGUF file's model to `folder`: safetensors, configuration and tokenizer files.

    Args:
        path: The GGUF file.
        folder: Where to; made if missing.
        dtype: Of the stored weights.
        tied: The original model has one matrix for input and output embeddings. llama.cpp may keep
            two copies of it, the output one at higher precision; that one is then used for both.
    """
    read, tokenizer = read_gguf(path, dtype=dtype)
    state, config = read.state_dict(), read.config
    if tied and not config.tie_word_embeddings:
        state["model.embed_tokens.weight"] = state["lm_head.weight"]
        config.tie_word_embeddings = True
    config.__dict__.pop("quantization_config", None)
    # On the meta device the fresh model costs no memory: it takes over the tensors that were read.
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(config, dtype=dtype)
    fresh.load_state_dict(state, assign=True)
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _pre_tokenizer_name(path: Path) -> str | None:
    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.pre")
    return None if field is None else field.contents()
