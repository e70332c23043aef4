"""Linear probes on disk: a folder with the weights of all values and a card that says how good."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import valueflow
from valueflow import artifacts
from valueflow.errors import ArtifactError, InvalidInput, UnknownName
from valueflow.registry import unknown_name
from valueflow.steering.probes import LinearProbe, Readout
from valueflow.steering.separation import AUC

KIND = "card"
"""Files are `card.json` and `card.safetensors`."""
CONTENT = "linear probes"


def save_probes(
    probes: Mapping[str, LinearProbe], folder: str | Path, *, overwrite: bool = False
) -> None:
    """Write probes of one model, all of the same layers: fp16 weights, one tensor per layer.

    Raises:
        InvalidInput: no probes, or of different layers or provenance.
        ArtifactError: the folder holds something that may not be replaced.
    """
    every = list(probes.values())
    if not every:
        raise InvalidInput("expected one probe or more to save, got none")
    first = every[0]
    if any(p.layers != first.layers or p.provenance != first.provenance for p in every):
        raise InvalidInput("expected probes that were trained together: same layers, same origin")
    tensors = {
        f"layer.{layer}": torch.stack([p.readouts[layer].direction for p in every]).half()
        for layer in first.layers
    }
    metadata = {
        "content": CONTENT,
        "values": [probe.value for probe in every],
        "readouts": {
            probe.value: {str(k): _card(readout) for k, readout in probe.readouts.items()}
            for probe in every
        },
        "provenance": dict(first.provenance),
    }
    artifacts.save(folder, KIND, tensors, metadata, overwrite=overwrite)


def load_probes(source: str | Path) -> dict[str, LinearProbe]:
    """Probes by value, from a folder or by the name of a model that probes are shipped for.

    They are for one model: `valueflow.steering.check_fits` refuses any other.

    Raises:
        UnknownName: no folder and no shipped probes of that name; lists near misses, and says
            how to train them.
        ArtifactError: another kind of artifact, an unknown schema, or damage.
    """
    folder = _folder_of(source)
    tensors, metadata = artifacts.load(folder, KIND)
    if metadata.get("content") != CONTENT:
        raise ArtifactError(f"{folder}: expected {CONTENT}, found {metadata.get('content')!r}")
    try:
        return {
            value: LinearProbe(
                value,
                {
                    int(layer): _readout(card, tensors[f"layer.{layer}"][row])
                    for layer, card in metadata["readouts"][value].items()
                },
                metadata["provenance"],
            )
            for row, value in enumerate(metadata["values"])
        }
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ArtifactError(f"{folder}: no probes in it: {error!r}") from None


def shipped_probes() -> dict[str, Path]:
    """Folders of the probes that come with this copy of valueflow, by the name of the model."""
    package = Path(valueflow.__file__).parent
    # Beside the package in a checkout, inside it when installed.
    cards = [p for root in (package.parent, package) for p in root.glob(f"probes/*/{KIND}.json")]
    return {card.parent.name: card.parent for card in cards}


def _folder_of(source: str | Path) -> Path:
    shipped = shipped_probes()
    if str(source) in shipped:
        return shipped[str(source)]
    folder = Path(source)
    if not folder.exists() and len(folder.parts) == 1:
        known = unknown_name("probes", str(source), shipped or ["none come with this copy"])
        raise UnknownName(
            f"{known} (or train them with `valueflow probes train MODEL --all --out FOLDER`, and "
            "give that folder)"
        )
    return folder


def _card(readout: Readout) -> dict[str, Any]:
    return {
        "scale": readout.scale,
        "offset": readout.offset,
        "validation": asdict(readout.validation),
        "test": asdict(readout.test),
        "placebos": list(readout.placebos),
    }


def _readout(card: Mapping[str, Any], direction: Tensor) -> Readout:
    return Readout(
        direction.float(),
        card["scale"],
        card["offset"],
        AUC(**card["validation"]),
        AUC(**card["test"]),
        tuple(card["placebos"]),
    )
