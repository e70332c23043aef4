"""Encoders of texts that remember what they have read."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives.store import EmbeddingStore
from valueflow.theories import Value

MAX_TOKENS = 96

_WEIGHTS = resources.files("valueflow") / "hives" / "weights"

SHIPPED = {name: _WEIGHTS / name for name in ("hives", "hives-small")}
"""The trained spaces of the package by name."""


class Encoder:
    """Sentence embeddings, cached by content.

    Args:
        encoder: a loaded `SentenceTransformer` whose first module is a transformers model.
        name: for reports.
        batch_size: texts per forward pass; longest first, so that little is padding.
        store: where embeddings outlive the process; None for nowhere.
    """

    def __init__(
        self,
        encoder: Any,
        *,
        name: str,
        batch_size: int = 32,
        store: EmbeddingStore | None = None,
    ) -> None:
        self.encoder = encoder
        self.store = store
        self.name = name
        self.batch_size = batch_size
        self._known: dict[str, np.ndarray] = {}

    @property
    def width(self) -> int:
        """Size of an embedding."""
        return int(self.encoder.get_embedding_dimension())

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """Unit-length embeddings, fp32; an empty text is read as a full stop.

        Texts are cut where the encoder says (`max_seq_length`).
        """
        return self._read(texts)[:, : self.width]

    def score(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Where texts stand between what opposes a value and what supports it.

        Only the order and the ratios of differences within one value mean anything. Raises
        InvalidInput for a value without "supports" and "opposes" (not a steered one).
        """
        return self.embed(texts) @ prototype(self, value)

    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer and the cut; the name does not count."""
        from valueflow.models import fingerprint

        found = fingerprint(self.encoder[0].auto_model, self.encoder.tokenizer)
        read = repr((found.model, found.tokenizer, self.encoder.max_seq_length))
        return hashlib.sha256(read.encode()).hexdigest()[:16]

    def _read(self, texts: Sequence[str]) -> Float[np.ndarray, "texts columns"]:
        """What the encoder makes of each text, the embedding first."""
        new = sorted({t for t in texts if t not in self._known}, key=len, reverse=True)
        if new and self.store is not None:
            self._known.update(self.store.known(new))
            new = [text for text in new if text not in self._known]
        if new:
            rows = self._encode([text if text.strip() else "." for text in new])
            found = dict(zip(new, rows, strict=True))
            self._known.update(found)
            if self.store is not None:
                self.store.add(found)
        if not texts:
            return np.zeros((0, self._columns), dtype=np.float32)
        return np.stack([self._known[t] for t in texts])

    @property
    def _columns(self) -> int:
        return self.width

    def _encode(self, texts: list[str]) -> np.ndarray:
        rows = self.encoder.encode(
            texts,
            batch_size=self.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return np.asarray(rows, dtype=np.float32)


class ValueEncoder(Encoder):
    """An encoder with the axes of values (`valueflow.hives.build`)."""

    def fingerprint(self) -> str:
        """Hash of the weights, the tokenizer, the cut, the axes, and the hidden layer if any."""
        from valueflow.hives.build import axes_of, projection_of

        digest = hashlib.sha256(super().fingerprint().encode())
        digest.update(repr(axes_of(self.encoder).values).encode())
        for module in (axes_of(self.encoder), projection_of(self.encoder)):
            for tensor in [] if module is None else module.state_dict().values():
                digest.update(tensor.float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def values(self) -> tuple[str, ...]:
        """Ids of the values that have an axis."""
        from valueflow.hives.build import axes_of

        return tuple(axes_of(self.encoder).values)

    def scores(self, texts: Sequence[str]) -> Float[np.ndarray, "texts values"]:
        """Where each text stands on the axis of each value; only the order within one counts."""
        return self._read(texts)[:, self.width :]

    def score(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Where texts stand on a value's axis; of a value without one, as any encoder says."""
        if value.id not in self.values:
            return super().score(value, texts)
        return self.scores(texts)[:, self.values.index(value.id)]

    @property
    def _columns(self) -> int:
        return self.width + len(self.values)

    def _encode(self, texts: list[str]) -> np.ndarray:
        import torch
        from sentence_transformers.util import batch_to_device

        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), self.batch_size):
                features = self.encoder.preprocess(texts[start : start + self.batch_size])
                found = self.encoder(batch_to_device(features, self.encoder.device))
                unit = torch.nn.functional.normalize(found["sentence_embedding"].float(), dim=1)
                rows.append(torch.cat([unit, found["value_scores"].float()], dim=1).cpu())
        return torch.cat(rows).numpy()


def prototype(encoder: Encoder, value: Value) -> Float[np.ndarray, " width"]:
    """Embedding of what supports a value minus that of what opposes it.

    Raises:
        InvalidInput: the value does not say what supports and opposes it (not a steered one).
    """
    if not value.supports or not value.opposes:
        raise InvalidInput(f"{value.id} has no 'supports' and 'opposes' texts; use a steered value")
    supports, opposes = encoder.embed([value.supports, value.opposes])
    return supports - opposes


def load_frozen_encoder(source: str = "all-mpnet-base-v2") -> Encoder:
    """A base encoder by packaged name, hub id or folder (see `valueflow.models.load_encoder`)."""
    from valueflow.models import load_encoder

    model = load_encoder(source)
    model.max_seq_length = MAX_TOKENS
    encoder = Encoder(model, name=source)
    encoder.store = _store_of(encoder)
    return encoder


def load_value_encoder(folder: str | Path | None = None) -> ValueEncoder:
    """A trained space: a shipped one by name ("hives" if None), or one in a folder.

    Raises:
        ArtifactError: missing, damaged, or made on another base.
    """
    from valueflow.hives.build import load_trained

    name = "hives" if folder is None else str(folder)
    with trained_folder(name) as place:
        model = load_trained(place)
    encoder = ValueEncoder(model, name=name)
    encoder.store = _store_of(encoder)
    return encoder


@contextmanager
def trained_folder(name: str) -> Iterator[Path]:
    """The folder of a trained space, that of a shipped one by its name."""
    if name not in SHIPPED:
        yield Path(name)
        return
    with resources.as_file(SHIPPED[name]) as shipped:
        yield shipped


def _store_of(encoder: Encoder) -> EmbeddingStore:
    from valueflow.models.sources import home

    return EmbeddingStore(home() / "embeddings" / f"{encoder.fingerprint()}.safetensors")
