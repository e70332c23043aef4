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

    Args:
        source: a folder, or the model's packaged name, or its hub id, of which the last part
            counts, in any case.

    Raises:
        UnknownName: no folder and no shipped probes of that name; lists near misses, and says
            how to train them.
        ArtifactError: no such folder, and names the shipped probes; another kind of artifact, an
            unknown schema, or damage.
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
    shipped, folder, text = shipped_probes(), Path(source), str(source)
    if text in shipped:
        return shipped[text]
    if folder.exists():
        return folder
    # What is written as a path is one: a folder that is lost must not become another's probes.
    is_path = text.startswith((".", "/", "~")) or len(folder.parts) > 2
    name = folder.name.lower()
    if name in shipped and not (is_path or isinstance(source, Path)):
        return shipped[name]
    train = (
        "(or train them with `valueflow probes train MODEL --all --out FOLDER`, and give that "
        "folder)"
    )
    if is_path or len(folder.parts) > 1:
        names = ", ".join(sorted(shipped)) or "no model"
        raise ArtifactError(
            f"{folder}: no card there, as there is no such folder; probes are shipped for {names} "
            f"{train}"
        )
    known = unknown_name("probes", text, shipped or ["none come with this copy"])
    raise UnknownName(f"{known} {train}")


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
