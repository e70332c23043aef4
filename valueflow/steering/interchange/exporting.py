"""A steering vector as a GGUF control vector for llama.cpp and repeng."""

import json
import math
from pathlib import Path

import torch

from valueflow.errors import ArtifactError, InvalidInput
from valueflow.steering.interchange import gguf_file
from valueflow.steering.vector import SteeringVector


def export_gguf(
    vector: SteeringVector,
    path: str | Path,
    *,
    coefficient: float | int = 1.0,
    model_hint: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write what a steering vector adds at a coefficient as a GGUF control vector.

    The file holds `coefficient * norms[layer] * directions[layer]` in fp32, layer i as
    `direction.{i}` (`valueflow.steering.interchange` says why): scale 1 in llama.cpp and repeng is
    this coefficient here, and scale s is s times it. It acts on all tokens there. Value, norms,
    coefficient and provenance are in the file as well, for `import_vector`.

    Args:
        vector: of any layers but 0, which llama.cpp cannot steer.
        path: the file; its folder is made.
        coefficient: what scale 1 stands for; negative ones turn the vector round.
        model_hint: what the file says it is for, which no reader enforces: llama.cpp writes the
            architecture there ("llama"), repeng the model type. None for the model's name.
        overwrite: replace a file.

    Raises:
        InvalidInput: layer 0, a coefficient that is 0 or not finite, an addition beyond fp32.
        ArtifactError: the file exists.
    """
    path, coefficient = Path(path), float(coefficient)
    if not math.isfinite(coefficient) or coefficient == 0:
        raise InvalidInput(f"coefficient {coefficient}: expected a number other than 0")
    if 0 in vector.layers:
        raise InvalidInput(
            f"{vector.value} acts at layer 0, which control vectors of llama.cpp do not reach; "
            "derive it at another layer"
        )
    tensors = {}
    for layer in vector.layers:
        scale = coefficient * vector.norms[layer]
        addition = (scale * vector.directions[layer].detach().cpu().double()).to(torch.float32)
        if not bool(addition.isfinite().all()):
            raise InvalidInput(f"layer {layer}: {scale:g} times its direction is beyond fp32")
        tensors[f"direction.{layer}"] = addition.numpy()
    if path.exists() and not overwrite:
        raise ArtifactError(f"{path} exists; choose another name or use overwrite=True")
    model = vector.provenance.get("model")
    named = model.get("name") if isinstance(model, dict) else None
    about = {
        "value": vector.value,
        "norms": {str(layer): vector.norms[layer] for layer in vector.layers},
        "provenance": dict(vector.provenance),
    }
    fields: dict[str, gguf_file.Field] = {
        "controlvector.model_hint": model_hint or named or "unknown",
        "controlvector.layer_count": len(tensors),
        "valueflow.coefficient": coefficient,
        "valueflow.vector": json.dumps(about, allow_nan=False),
    }
    gguf_file.write(path, tensors, fields)
