"""A frozen sentence encoder, read at several depths.

The final sentence embedding says what a text is about and little about where it stands. On ladders
of six values, whose rungs share their topic, its best linear read-out ordered 64% of pairs; the
mean-pooled states of the middle blocks 79%. So both are features.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

MIDDLE_LAYERS = (4, 6, 8)
"""Hidden states read besides the final embedding (1 = after the first block, as transformers)."""

MAX_TOKENS = 160


class FrozenEncoder:
    """Features of texts from a sentence-transformers model, cached by content.

    Args:
        encoder: a loaded `SentenceTransformer` whose first module is a transformers model.
        name: for reports.
        batch_size: texts per forward pass; longest first, so that little is padding.
    """

    def __init__(self, encoder: Any, *, name: str, batch_size: int = 32) -> None:
        self.encoder = encoder
        self.name = name
        self.batch_size = batch_size
        self._known: dict[str, np.ndarray] = {}

    @property
    def width(self) -> int:
        """Size of the final embedding; each of `MIDDLE_LAYERS` adds as many features to it."""
        return int(self.encoder[0].auto_model.config.hidden_size)

    def features(self, texts: Sequence[str]) -> Float[np.ndarray, "texts features"]:
        """Mean-pooled middle states, then the unit-length final embedding; fp32.

        Texts are cut after `MAX_TOKENS` tokens. An empty text is read as a full stop.
        """
        new = sorted({t for t in texts if t not in self._known}, key=len, reverse=True)
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            for text, row in zip(batch, self._forward(batch), strict=True):
                self._known[text] = row
        if not texts:
            return np.zeros((0, self.width * (len(MIDDLE_LAYERS) + 1)), dtype=np.float32)
        return np.stack([self._known[t] for t in texts])

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """The final, unit-length sentence embeddings alone."""
        return self.features(texts)[:, -self.width :]

    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer and what is read; the name does not count."""
        from valueflow.models import fingerprint

        found = fingerprint(self.encoder[0].auto_model, self.encoder.tokenizer)
        read = repr((found.model, found.tokenizer, MIDDLE_LAYERS, MAX_TOKENS))
        return hashlib.sha256(read.encode()).hexdigest()[:16]

    def _forward(self, batch: Sequence[str]) -> np.ndarray:
        import torch

        tokens = self.encoder.tokenizer(
            [text if text.strip() else "." for text in batch],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self.encoder.device)
        with torch.inference_mode():
            model = self.encoder[0].auto_model
            states = model(**tokens, output_hidden_states=True).hidden_states
            weights = tokens["attention_mask"][:, :, None].to(states[0].dtype)
            chosen = [states[layer] for layer in MIDDLE_LAYERS] + [states[-1]]
            pooled = [(s * weights).sum(1) / weights.sum(1) for s in chosen]
            pooled[-1] = torch.nn.functional.normalize(pooled[-1], dim=1)
        return torch.cat(pooled, dim=1).float().cpu().numpy()


def load_frozen_encoder(source: str = "all-mpnet-base-v2") -> FrozenEncoder:
    """A frozen encoder by packaged name, hub id or folder (see `valueflow.models.load_encoder`)."""
    from valueflow.models import load_encoder

    return FrozenEncoder(load_encoder(source), name=source)
