"""Control vectors of other tools as steering vectors: GGUF and safetensors, never pickle."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact
from valueflow.models.loading import LoadedModel
from valueflow.steering.interchange import gguf_file
from valueflow.steering.store import check_fits
from valueflow.steering.vector import SteeringVector
from valueflow.theories import get_value

_LAYER = re.compile(r"(?:(?:layers?|direction|layer_activations)[._])?(0|[1-9]\d{0,4})")
_PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
# How the containers of torch.save begin: a zip archive, or a pickle of protocol 2 or later.
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, eq=False)
class ControlVector:
    """What a file adds to the residual stream at scale 1.

    Attributes:
        additions: per layer (0 = output of block 0), fp64; those that add nothing are left out.
        about: where it comes from: format, name and sha256 of the file, hint of the model.
        ours: what `export_gguf` wrote beside it: value, norms, provenance, coefficient. Empty for
            files of other tools.
    """

    additions: Mapping[int, Float[Tensor, " hidden"]]
    about: Mapping[str, Any]
    ours: Mapping[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it acts at, ascending."""
        return tuple(sorted(self.additions))

    def check_size(self, loaded: LoadedModel) -> None:
        """Refuse a file of another hidden size, or of more layers, than a model has.

        Raises:
            StaleArtifact: names both sizes.
        """
        hidden = next(iter(self.additions.values())).shape[0]
        if hidden != loaded.hidden_size:
            raise StaleArtifact(
                f"{self.about['file']} has hidden size {hidden}, {loaded.name} has "
                f"{loaded.hidden_size}: it is for another model"
            )
        if self.layers[-1] >= loaded.n_layers:
            raise StaleArtifact(
                f"{self.about['file']} acts at layer {self.layers[-1]}, {loaded.name} has "
                f"0..{loaded.n_layers - 1}: it is for another model"
            )


def read_control_vector(path: str | Path) -> ControlVector:
    """What a GGUF control vector or a safetensors file adds.

    Keys of a safetensors file are layers: `{i}`, `layer.{i}`, `layers.{i}`, `direction.{i}` or
    `layer_activations.{i}` (also with an underscore), counted from 0. Nothing is unpickled.

    Raises:
        ArtifactError: no such file, another format, damage, another architecture, names that are
            no layers, sizes that differ, numbers that are not finite, nothing but zeros.
    """
    path = Path(path)
    start = _start(path)
    is_gguf = start.startswith(gguf_file.MAGIC)
    # The length of a safetensors header, its first 8 bytes, can look like the start of a pickle.
    is_safetensors = start[8:] == b"{"
    suspect = path.suffix.lower() in _PICKLES or start.startswith(_PICKLE_STARTS)
    if suspect and not (is_gguf or is_safetensors):
        raise ArtifactError(
            f"{path}: a pickle can run code when it is loaded, so it is not; where you trust it, "
            "load it with the tool that made it and save {str(layer): tensor} with "
            "safetensors.torch.save_file"
        )
    fields: Mapping[str, gguf_file.Field] = {}
    if is_gguf:
        arrays, fields = gguf_file.read(path)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    else:
        tensors = _safetensors(path)
    about = {
        "format": "gguf" if is_gguf else "safetensors",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "hint": fields.get("controlvector.model_hint"),
    }
    additions = _additions(path, tensors)
    return ControlVector(additions, about, _ours(path, fields, list(additions)))


def value_of(control: ControlVector, value: str | None = None) -> str:
    """The value that a file steers: what a file of ours says, else what is given.

    Args:
        control: see `read_control_vector`.
        value: id or unambiguous name; None for what the file says.

    Raises:
        InvalidInput: neither says it, or the file says another one.
        UnknownName: no theory has the value given; lists near misses.
    """
    file, own = control.about["file"], control.ours.get("value")
    if value is None or value == own:
        if own:
            return own
        raise InvalidInput(f"{file} does not say which value it steers; give one, such as power")
    given = get_value(value).id
    if own and given != own:
        raise InvalidInput(
            f"{file} says that it steers {own}, but the value given is {given}; leave the value "
            "out, or give the file of the other"
        )
    return given


def steering_vector(
    control: ControlVector,
    value: str | None = None,
    *,
    norms: Mapping[int, float] | None = None,
    loaded: LoadedModel | None = None,
) -> SteeringVector:
    """A steering vector with unit directions, in fp64, out of what a file adds.

    Without `norms`, the length of the file's addition at each layer is the norm, so a coefficient
    here is the scale of llama.cpp. With the model's typical norms a coefficient is what it is for
    derived vectors; provenance says under "file_coefficients" which one adds what the file does,
    at each layer. Files of `export_gguf` get their own norms and direction lengths back.

    Args:
        control: see `read_control_vector`.
        value: id or unambiguous name of the value; None for what a file of ours says, which
            another value than the file's own does not replace.
        norms: typical residual norms (`valueflow.steering.typical_norms`) for every layer of the
            file; None for the file's own.
        loaded: the model it is for, which the vector is then tied to; None leaves that open
            unless the file says it, and `check_fits` will refuse the vector.

    Raises:
        InvalidInput: no value, or another than a file of ours says; a layer without a norm, a norm
            that is not positive.
        UnknownName: a value that no theory has; lists near misses.
        StaleArtifact: the model has another size, or is not the one that a file of ours is for.
    """
    name = value_of(control, value)
    lengths = {layer: float(a.norm()) for layer, a in control.additions.items()}
    ours = control.ours if norms is None else {}
    missing = [] if norms is None else [layer for layer in lengths if layer not in norms]
    if missing:
        raise InvalidInput(f"{control.about['file']} acts at layers {missing}, which have no norm")
    used = {i: float((norms or ours.get("norms") or lengths)[i]) for i in lengths}
    scale = {i: ours["coefficient"] * used[i] if ours else lengths[i] for i in lengths}
    directions = {i: addition / scale[i] for i, addition in control.additions.items()}
    provenance = {
        "operation": "imported",
        **control.about,
        "norms": "file" if norms is None else "given",
        "file_coefficients": {str(i): scale[i] / used[i] for i in lengths},
    }
    if control.ours:
        provenance["of"] = control.ours["provenance"]
        if "model" in control.ours["provenance"]:
            provenance["model"] = control.ours["provenance"]["model"]
    if loaded is not None:
        control.check_size(loaded)
        provenance.setdefault("model", {"name": loaded.name, **asdict(loaded.fingerprint)})
    vector = SteeringVector(name, directions, used, provenance)
    if loaded is not None:
        check_fits(vector, loaded)
    return vector


def import_vector(
    path: str | Path,
    value: str | None = None,
    *,
    norms: Mapping[int, float] | None = None,
    loaded: LoadedModel | None = None,
) -> SteeringVector:
    """`steering_vector` of `read_control_vector`, with their arguments and errors."""
    return steering_vector(read_control_vector(path), value, norms=norms, loaded=loaded)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(9)
    except IsADirectoryError:
        raise ArtifactError(f"{path} is a folder; expected a .gguf or .safetensors file") from None
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from None


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            _check_names(path, names)
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path}: neither a GGUF nor a safetensors file, or damaged: {error}"
        ) from None


def _check_names(path: Path, names: list[str]) -> None:
    strange = [name for name in names if not _LAYER.fullmatch(name)]
    if strange or not names:
        found = f"found {', '.join(map(repr, strange[:3]))}" if strange else "the file holds none"
        raise ArtifactError(
            f"{path}: expected tensors named after layers ('layer.12'), {found:.200}"
        )


def _additions(path: Path, tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    _check_names(path, list(tensors))
    additions: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        layer = int(name[re.search(r"\d+$", name).start() :])  # type: ignore[union-attr]
        if layer in additions:
            raise ArtifactError(f"{path}: layer {layer} is there twice, also as {name!r}")
        if not tensor.is_floating_point() or tensor.numel() != max(tensor.shape, default=0):
            raise ArtifactError(
                f"{path}: {name!r} is {tensor.dtype} {tuple(tensor.shape)}, "
                "expected floating-point numbers of shape (hidden,)"
            )
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: {name!r} holds numbers that are not finite")
        additions[layer] = tensor.reshape(-1).double()
    sizes = sorted({len(addition) for addition in additions.values()})
    if len(sizes) > 1:
        raise ArtifactError(f"{path}: layers have sizes {sizes}, expected one hidden size")
    acting = {layer: additions[layer] for layer in sorted(additions) if additions[layer].any()}
    if not acting:
        raise ArtifactError(f"{path}: it adds nothing: every direction is zero")
    return acting


def _ours(path: Path, fields: Mapping[str, gguf_file.Field], layers: list[int]) -> dict[str, Any]:
    """What `export_gguf` wrote about the vector, or nothing."""
    if "valueflow.vector" not in fields:
        return {}
    try:
        about = json.loads(str(fields["valueflow.vector"]))
        found = {
            "value": str(about["value"]),
            "norms": {int(layer): float(norm) for layer, norm in about["norms"].items()},
            "provenance": dict(about["provenance"]),
            "coefficient": float(fields["valueflow.coefficient"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: what it says of its vector is damaged: {error!r}") from None
    numbers = [found["coefficient"], *found["norms"].values()]
    if not all(map(math.isfinite, numbers)) or 0 in numbers or min(numbers[1:], default=0) <= 0:
        raise ArtifactError(
            f"{path}: its coefficient or a norm is no number to scale by: {numbers}"
        )
    if not set(layers) <= set(found["norms"]):
        raise ArtifactError(f"{path}: it has layers {layers}, norms for {sorted(found['norms'])}")
    return found
