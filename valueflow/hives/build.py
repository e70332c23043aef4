"""An encoder with a value space on top, and how it is kept and found again.

The modules in order: the encoder with its adapter; the axes, which score its embedding; and, if
there is one, the projection from that embedding to the space.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from valueflow import artifacts
from valueflow.errors import ArtifactError, InvalidInput
from valueflow.hives.axes import ValueAxes
from valueflow.hives.projection import Projection, Remembered
from valueflow.models import fingerprint, load_encoder
from valueflow.models.layers import decoder_blocks
from valueflow.theories import get_value, steered_values

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

KIND = "hives-encoder"
_AXES = "axes"
_ADAPTER, _PROJECTION = "adapter.", "projection."

AXES_STD = 0.05


def build(
    base: "str | SentenceTransformer",
    *,
    rank: int,
    upper_blocks: int | None,
    max_tokens: int,
    seed: int,
) -> "SentenceTransformer":
    """A base encoder with an adapter that changes nothing yet, and axes of all steered values.

    An axis begins as the embedding of the value's "supports" minus that of its "opposes", at unit
    length. Only adapter and axes are trained. A base that is given loaded is changed in place.

    Raises:
        InvalidInput: more upper blocks than the base has, or none.
    """
    from peft import LoraConfig

    model: Any = load_encoder(base)
    model.max_seq_length = max_tokens
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # drawing random numbers took a CPU half of its time; weights decay
    if _fused(model):
        # Fused attention takes a CPU four times as long backwards, half of a step of a small model.
        _inner(model).set_attn_implementation("eager")  # type: ignore[operator]
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=_linears(model, upper_blocks)
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model.add_adapter(config)
    _add_axes(model, [value.id for value in steered_values()])
    with torch.no_grad():
        for row, value in enumerate(steered_values()):
            sides = model.encode([value.supports, value.opposes], convert_to_tensor=True)
            axis = torch.nn.functional.normalize(sides[0] - sides[1], dim=0)
            axes_of(model).axes[row] = axis
    return model


def axes_of(model: "SentenceTransformer") -> ValueAxes:
    """The axes of an encoder; raises InvalidInput if it has none."""
    for module in model:
        if isinstance(module, ValueAxes):
            return module
    raise InvalidInput("this encoder has no value axes; train it or load a trained one")


def projection_of(model: "SentenceTransformer") -> Projection | None:
    """The hidden layer of a value space, if it has one."""
    return next((module for module in model if isinstance(module, Projection)), None)


def save_encoder(
    model: "SentenceTransformer", folder: str | Path, *, base: str, card: dict[str, Any]
) -> None:
    """Write adapter and axes in half precision, and the card; the base is named, not copied.

    Raises ArtifactError if the folder holds something else.
    """
    from peft import get_peft_model_state_dict

    inner: Any = _inner(model)
    config = inner.peft_config["default"]
    adapter = get_peft_model_state_dict(inner)
    tensors = {_ADAPTER + name: tensor.half().cpu() for name, tensor in adapter.items()}
    tensors[_AXES] = axes_of(model).axes.detach().half().cpu()
    projection = projection_of(model)
    if projection is not None:
        state = projection.state_dict()
        tensors |= {_PROJECTION + name: tensor.half().cpu() for name, tensor in state.items()}
    metadata = {
        "base": base,
        "base_fingerprint": _base_fingerprint(base),
        "max_tokens": model.max_seq_length,
        "lora": {
            "r": config.r,
            "alpha": config.lora_alpha,
            "modules": sorted(config.target_modules),
        },
        "projection": None if projection is None else projection.get_config_dict(),
        "values": axes_of(model).values,
        "card": card,
    }
    artifacts.save(folder, KIND, tensors, metadata, overwrite=True)


def remembered_space(
    texts: Sequence[str],
    embeddings: Float[Tensor, "texts in_width"],
    *,
    hidden: int,
    width: int,
    dropout: float,
    seed: int,
) -> "SentenceTransformer":
    """A model whose encoder is a table: what comes after it, a projection and axes, can be trained.

    Axes start at random, small.
    """
    from sentence_transformers import SentenceTransformer

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        projection = Projection(embeddings.shape[1], hidden, width, dropout)
        axes = ValueAxes([value.id for value in steered_values()], width)
        torch.nn.init.normal_(axes.axes, std=AXES_STD)
    projection.standardise_as(torch.nn.functional.normalize(embeddings, dim=1))
    modules: Any = [Remembered(texts, embeddings), projection, axes]
    return SentenceTransformer(modules=modules, device="cpu")


def put_space(model: "SentenceTransformer", space: "SentenceTransformer") -> Any:
    """The encoder with the projection that was trained on its embeddings, behind its own axes.

    The axes that helped to train the projection are left behind: on steered answers those on the
    encoder's own embedding agreed better with readers.
    """
    model.append(space[1])
    return model


def load_trained(
    folder: str | Path, *, base: Any = None, merge: bool = True
) -> "SentenceTransformer":
    """The encoder saved in a folder, ready to encode.

    Args:
        folder: what `save_encoder` wrote.
        base: a fresh copy of the base, which is changed in place; loaded if not given.
        merge: add the adapter to the weights; if not it stays apart and can be trained further.

    Raises:
        ArtifactError: missing, damaged, of another kind, or made on another base.
    """
    from peft import LoraConfig, set_peft_model_state_dict

    tensors, metadata = artifacts.load(folder, KIND)
    model: Any = load_encoder(metadata["base"] if base is None else base)
    found = fingerprint(model[0].auto_model, model.tokenizer).model
    if found != metadata["base_fingerprint"]:
        raise ArtifactError(
            f"{folder}: made on {metadata['base']} {metadata['base_fingerprint']}, this is {found}"
        )
    lora = metadata["lora"]
    config = LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=lora["modules"])
    with torch.random.fork_rng(devices=[]):  # an adapter starts at random, and is overwritten here
        model.add_adapter(config)
    inner: Any = _inner(model)
    outcome = set_peft_model_state_dict(inner, _part(tensors, _ADAPTER))
    if outcome.unexpected_keys:
        raise ArtifactError(f"{folder}: weights that the base has no place for: "
                            f"{', '.join(outcome.unexpected_keys[:3])}")  # fmt: skip
    if merge:
        _merge(inner)
    _add_axes(model, metadata["values"])
    axes_of(model).axes.data.copy_(tensors[_AXES].float())
    _add_projection(model, metadata["projection"], tensors)
    model.max_seq_length = metadata["max_tokens"]
    return model.eval()


def card_of(folder: str | Path) -> dict[str, Any]:
    """The card of a trained encoder: data, licences, steps, metrics, seed."""
    _, metadata = artifacts.load(folder, KIND)
    return metadata["card"]


def _add_axes(model: Any, values: Sequence[str]) -> None:
    known = [get_value(value).id for value in values]
    model.append(ValueAxes(known, model.get_embedding_dimension()).to(model.device))


def _add_projection(model: Any, config: dict[str, Any] | None, tensors: dict[str, Tensor]) -> None:
    if config is not None:
        projection = Projection(**config)
        projection.load_state_dict(_part(tensors, _PROJECTION))
        model.append(projection.to(model.device))


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}


def _linears(model: Any, upper_blocks: int | None) -> list[str]:
    path, blocks = decoder_blocks(_inner(model))
    upper = len(blocks) if upper_blocks is None else upper_blocks
    if not 1 <= upper <= len(blocks):
        raise InvalidInput(f"upper_blocks must be 1 to {len(blocks)} for this base, got {upper}")
    return [
        f"{path}.{number}.{name}"
        for number in range(len(blocks) - upper, len(blocks))
        for name, module in blocks[number].named_modules()
        if isinstance(module, torch.nn.Linear)
    ]


def _merge(inner: Any) -> None:
    """Add the adapter to the weights and take its modules out."""
    from peft.tuners.lora import LoraLayer

    for path, layer in list(inner.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, name = path.rpartition(".")
            setattr(inner.get_submodule(parent), name, layer.get_base_layer())
    inner._hf_peft_config_loaded = False
    inner.__dict__.pop("peft_config", None)


def _fused(model: Any) -> bool:
    on_cpu = model.device.type == "cpu"
    return on_cpu and getattr(_inner(model).config, "_attn_implementation", None) == "sdpa"


def _inner(model: Any) -> torch.nn.Module:
    return model[0].auto_model


def _base_fingerprint(base: str) -> str:
    fresh: Any = load_encoder(base)
    return fingerprint(_inner(fresh), fresh.tokenizer).model
