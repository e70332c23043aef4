"""From an encoder's sentence embedding to the value space, and how to train that step quickly.

Text encoders keep what a text is about in directions that many values share; a layer that is not
linear can untangle them, and costs nothing beside the encoder. It is trained on embeddings that
are computed once and remembered, so dozens of passes over the texts take minutes.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from sentence_transformers.base.modules import InputModule, Module
from torch import Tensor, nn

from valueflow.errors import InvalidInput

Features = MutableMapping[str, Any]
"""What modules hand on: sentence-transformers says a dict, but gives a BatchEncoding, no dict."""


class SpaceModule(Module):
    """A module that keeps its configuration and its weights beside each other."""

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write configuration and weights, as sentence-transformers asks of its modules."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    # sentence-transformers gives the options by name only, though it would let them go by place.
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, model_name_or_path: str, subfolder: str = "", **options: Any
    ) -> Any:
        """Read what `save` wrote."""
        return load_module(cls, model_name_or_path, subfolder, options)


class Projection(SpaceModule):
    """A sentence-transformers module: standardise, one hidden layer, unit length.

    Args:
        in_width: of the encoder's embeddings.
        hidden: width of the hidden layer.
        width: of the value space.
        dropout: share of inputs left out in training.
    """

    config_keys: list[str] = ["in_width", "hidden", "width", "dropout"]
    config_file_name = "config.json"

    def __init__(self, in_width: int, hidden: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.in_width, self.hidden, self.width, self.dropout = in_width, hidden, width, dropout
        self.register_buffer("mean", torch.zeros(in_width))
        self.register_buffer("scale", torch.ones(in_width))
        self.net = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(in_width, hidden), nn.GELU(), nn.Linear(hidden, width)
        )

    def standardise_as(self, embeddings: Float[Tensor, "texts in_width"]) -> None:
        """Take mean and standard deviation of each input from some texts."""
        self.mean = embeddings.mean(dim=0)
        self.scale = embeddings.std(dim=0, correction=0).clamp_min(1e-4)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # see Features
        self, features: Features, **_: Any
    ) -> Features:
        """Replaces `sentence_embedding`, (texts, in_width), by (texts, width) at unit length."""
        unit = nn.functional.normalize(features["sentence_embedding"].float(), dim=1)
        space = self.net((unit - self.mean) / self.scale)
        features["sentence_embedding"] = nn.functional.normalize(space, dim=1)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the value space."""
        return self.width


class Remembered(InputModule):
    """In an encoder's place: gives the embedding of each text that was computed before.

    Args:
        texts: the only ones it knows.
        embeddings: one row each.
    """

    save_in_root = False
    config_file_name = "config.json"

    def __init__(
        self, texts: Sequence[str] = (), embeddings: Float[Tensor, "texts width"] | None = None
    ) -> None:
        super().__init__()
        self._rows = {text: row for row, text in enumerate(texts)}
        self._table = torch.zeros(0, 0) if embeddings is None else embeddings
        self.max_seq_length = None

    # sentence-transformers means inputs of any kind, images among them; here are only texts.
    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, inputs: Sequence[str], **_: Any
    ) -> dict[str, Any]:
        """Row numbers of the texts; raises InvalidInput for a text it does not know."""
        unknown = [text for text in inputs if text not in self._rows]
        if unknown:
            raise InvalidInput(f"no embedding was computed for {unknown[0][:60]!r}")
        # The trainer finds the features of a column by this name.
        return {"input_ids": torch.tensor([[self._rows[text]] for text in inputs])}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]  # see Features
        self, features: Features, **_: Any
    ) -> Features:
        """Adds `sentence_embedding`."""
        features["sentence_embedding"] = self._table[features["input_ids"][:, 0]]
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        return self._table.shape[1]

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Writes no embeddings: a checkpoint of what is trained on them needs none."""
        self.save_config(output_path)


def load_module(kind: Any, place: str, subfolder: str, options: dict[str, Any]) -> Any:
    """A module from its configuration and weights in a checkpoint or model folder."""
    names = ("token", "cache_folder", "revision", "local_files_only")
    hub = {name: options[name] for name in names if name in options}
    module = kind(**kind.load_config(place, subfolder=subfolder, **hub))
    kind.load_torch_weights(place, subfolder=subfolder, model=module, **hub)
    return module
