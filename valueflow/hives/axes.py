"""The last step of a value encoder: where a sentence embedding stands on the axis of each value."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.hives.projection import Features, SpaceModule
from valueflow.registry import unknown_name

SCORE_SCALE = 10.0
"""Cosines are small; scores of this many times a product are steep enough for a logistic loss."""


class ValueAxes(SpaceModule):
    """A sentence-transformers module that adds `value_scores` to the features and changes nothing.

    score = 10 * (unit-length embedding . axis of the value), larger for stronger support.

    Args:
        values: ids.
        width: of the embeddings.
    """

    config_keys: list[str] = ["values", "width"]
    config_file_name = "config.json"

    def __init__(self, values: Sequence[str], width: int) -> None:
        super().__init__()
        self.values = list(values)
        self.width = width
        self.axes = torch.nn.Parameter(torch.zeros(len(self.values), width))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # see Features
        self, features: Features, **_: Any
    ) -> Features:
        """Adds scores of shape (texts, values), fp32."""
        embeddings = features["sentence_embedding"]
        with torch.autocast(embeddings.device.type, enabled=False):
            unit = torch.nn.functional.normalize(embeddings.float(), dim=1)
            features["value_scores"] = SCORE_SCALE * unit @ self.axes.float().T
        return features

    def of(self, value: str) -> Float[Tensor, " width"]:
        """The axis of one value by its id; raises UnknownName if there is none."""
        if value not in self.values:
            raise unknown_name("value of the space", value, self.values)
        return self.axes[self.values.index(value)]
