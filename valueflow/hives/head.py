"""The trained part of the default judge: a low-rank product of text and value features."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow import artifacts


@dataclass(frozen=True)
class Head:
    """score = (P z) . tanh(Q v + q) / sqrt(rank) + prototype_weight * u.

    z is the text's features, standardised; v the value's features, standardised; u the
    standardised product of the text's final embedding with the value's "supports" minus "opposes".

    Attributes:
        text_mean, text_sd: shape (features,).
        value_mean, value_sd: shape (value_features,).
        P: text projection, (rank, features).
        Q: value projection, (rank, value_features).
        q: its bias, (rank,).
        prototype: mean and standard deviation of the raw product, and its weight.
    """

    text_mean: Float[np.ndarray, " features"]
    text_sd: Float[np.ndarray, " features"]
    value_mean: Float[np.ndarray, " value_features"]
    value_sd: Float[np.ndarray, " value_features"]
    P: Float[np.ndarray, "rank features"]
    Q: Float[np.ndarray, "rank value_features"]
    q: Float[np.ndarray, " rank"]
    prototype: Float[np.ndarray, " three"]

    def score(
        self,
        texts: Float[np.ndarray, "texts features"],
        value: Float[np.ndarray, " value_features"],
    ) -> Float[np.ndarray, " texts"]:
        """Higher for texts that support the value more; only the order means anything."""
        width = len(value) // 2
        gate = np.tanh(self.Q @ ((value - self.value_mean) / self.value_sd) + self.q)
        learned = ((texts - self.text_mean) / self.text_sd) @ (self.P.T @ gate)
        mean, sd, weight = self.prototype
        product = texts[:, -width:] @ value[:width]
        return learned / np.sqrt(len(self.q)) + weight * (product - mean) / sd

    def fingerprint(self) -> str:
        """Hash of all weights."""
        digest = hashlib.sha256()
        for name, array in sorted(asdict(self).items()):
            digest.update(name.encode() + np.ascontiguousarray(array, np.float32).tobytes())
        return digest.hexdigest()[:16]


def save_head(head: Head, folder: str | Path, card: dict[str, Any]) -> None:
    """Write the weights with the card that says how they were made."""
    import torch

    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array, np.float32))
        for name, array in asdict(head).items()
    }
    artifacts.save(folder, "hives-head", tensors, card, overwrite=True)


def load_head(folder: str | Path) -> Head:
    """The head saved in a folder.

    Raises:
        ArtifactError: missing, damaged or of another kind.
    """
    tensors, _ = artifacts.load(folder, "hives-head")
    return Head(**{name: tensor.numpy() for name, tensor in tensors.items()})
