"""Steering vectors on disk, and whether one fits a model."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from valueflow import artifacts
from valueflow.errors import ArtifactError, InvalidInput, StaleArtifact
from valueflow.models.loading import LoadedModel, ModelFingerprint, fingerprint
from valueflow.models.packaged import table
from valueflow.steering.vector import SteeringVector

KIND = "vector"


@runtime_checkable
class MadeForModel(Protocol):
    """What can fit a model or not: a `SteeringVector`, a `LinearProbe`."""

    @property
    def value(self) -> str:
        """What it is of, for messages."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Names the model it is for under "model"."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream it is for."""
        ...

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it is for, ascending."""
        ...


def save_vector(vector: SteeringVector, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write `vector.safetensors` and `vector.json`; the folder appears complete or not at all.

    Raises:
        InvalidInput: provenance that is no plain JSON.
        ArtifactError: the folder holds something that may not be replaced.
    """
    tensors = {f"layer.{layer}": vector.directions[layer] for layer in vector.layers}
    metadata = {
        "value": vector.value,
        "norms": {str(layer): vector.norms[layer] for layer in vector.layers},
        "provenance": dict(vector.provenance),
    }
    artifacts.save(folder, KIND, tensors, metadata, overwrite=overwrite)


def load_vector(folder: str | Path) -> SteeringVector:
    """A vector written by `save_vector`, bit for bit, on the CPU.

    Raises:
        ArtifactError: nothing there, another kind of artifact, an unknown schema, or damage.
    """
    tensors, metadata = artifacts.load(folder, KIND)
    try:
        return SteeringVector(
            metadata["value"],
            {int(name.removeprefix("layer.")): tensor for name, tensor in tensors.items()},
            {int(layer): norm for layer, norm in metadata["norms"].items()},
            metadata["provenance"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, InvalidInput) as error:
        raise ArtifactError(f"{folder}: no steering vector in it: {error!r}") from None


def vector_hash(vector: SteeringVector) -> str:
    """Hash of what a vector adds at coefficient 1, layer by layer, in fp32."""
    digest = hashlib.sha256()
    for layer in vector.layers:
        digest.update(f"{layer} {vector.norms[layer]!r} ".encode())
        digest.update(vector.directions[layer].float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def check_fits(
    vector: MadeForModel, loaded: LoadedModel, *, here: ModelFingerprint | None = None
) -> None:
    """Refuse a vector or probe on a model it was not made for, as the model is now.

    Args:
        vector: what was made for a model.
        loaded: the model; what was changed since `load`, in place, counts as well.
        here: its fingerprint as it is now, where many vectors are checked; None takes it.

    Raises:
        StaleArtifact: names what differs (hidden size, layers, or the fingerprint of model,
            tokenizer or chat template), or that the vector does not say what it was made for.
    """
    made_for = vector.provenance.get("model")
    if not isinstance(made_for, dict):
        raise StaleArtifact(f"{vector.value} does not say which model it is for; derive it again")
    here = here or fingerprint(loaded.model, loaded.tokenizer)
    differing = [name for name, found in asdict(here).items() if made_for.get(name) != found]
    if vector.hidden_size != loaded.hidden_size:
        differing.append("hidden_size")
    if vector.layers[-1] >= loaded.n_layers:
        differing.append("layers")
    if differing:
        raise StaleArtifact(f"{vector.value} was made for {_misfit(made_for, loaded, differing)}")


def changed_since_load(loaded: LoadedModel, made_for: Mapping[str, Any], field: str) -> bool:
    """Whether a field of the fingerprint that no longer fits did fit when the model was loaded."""
    return getattr(loaded.fingerprint, field, None) == made_for.get(field, "")


def _misfit(made_for: Mapping[str, Any], loaded: LoadedModel, differing: list[str]) -> str:
    """For which model, how the one at hand differs from it, and the way out."""
    name, fields = made_for.get("name"), ", ".join(differing)
    if all(changed_since_load(loaded, made_for, field) for field in differing):
        return (
            f"{name!r}, from which {loaded.name!r} now differs in {fields}: that was changed after "
            "the model was loaded; undo it, or load the model again"
        )
    if differing == ["model"] and _same_name(str(name), loaded.name):
        dtype = next(loaded.model.parameters()).dtype
        known = table().get(str(name).rpartition("/")[2].lower())
        usual = "" if known is None else f", usually {known.dtype},"
        return (
            f"{name!r}, which differs from {loaded.name!r} in model, that is in weights or dtype "
            f"({dtype} here); load the model with the dtype= that it was made with{usual} or "
            "derive it again for this model"
        )
    mend = "derive it again for this model"
    return f"{name!r}, which differs from {loaded.name!r} in {fields}; {mend}"


def _same_name(one: str, other: str) -> bool:
    """Whether two names may be of one model: packaged names are hub ids' last part, lower case."""
    last = [name.rstrip("/").rpartition("/")[2].lower() for name in (one, other)]
    return last[0] == last[1]
