"""Judges that score each text of a window on its own and order by score.

The trained one reads a text with the question that it answers, if the window has it.
Deterministic and free of position bias; equal scores keep the order shown. The score never
leaves the judge.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from valueflow.hives.encoder import (
    SHIPPED,
    Encoder,
    ValueEncoder,
    load_frozen_encoder,
    load_value_encoder,
    prototype,
)
from valueflow.hives.questions import as_read
from valueflow.judges.base import Judge, Verdict
from valueflow.theories import Value
from valueflow.typing import Item, Window


class _ScoringJudge:
    """Orders windows by a score per (value, text)."""

    name = "scoring"

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def fingerprint(self) -> str:
        """Hash of the judge's kind, how it puts text and question together, and its encoder."""
        return _hash(self.name, self._read(Item("text", "question")), self.encoder.fingerprint())

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        """Indices by falling score; the encoder sees each distinct text once."""
        read = [[self._read(item) for item in window] for window in windows]
        texts = sorted({text for window in read for text in window})
        scores = dict(zip(texts, self._scores(value, texts), strict=True))
        return [
            tuple(sorted(range(len(window)), key=lambda i, w=window: -scores[w[i]]))
            for window in read
        ]

    def read_ahead(self, items: Sequence[Item]) -> None:
        """Have the encoder read texts that will be ranked soon: all at once is quicker."""
        self.encoder.embed([self._read(item) for item in items])

    def _read(self, item: Item) -> str:
        return item.text

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        raise NotImplementedError


class HivesJudge(_ScoringJudge):
    """Orders texts along the value's axis in a trained space; the default judge.

    Its name is that of the shipped space, "hives" for any other.

    Args:
        encoder: see `valueflow.hives.encoder.load_value_encoder`.
    """

    def __init__(self, encoder: ValueEncoder) -> None:
        super().__init__(encoder)
        self.name = encoder.name if encoder.name in SHIPPED else "hives"

    def _read(self, item: Item) -> str:
        return as_read(*item)

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        return self.encoder.score(value, texts)


class PrototypeJudge(_ScoringJudge):
    """An untrained encoder: nearer to "supports" or to "opposes"?

    It has seen no graded text at all, so it confirms (or not) what a trained judge says.
    """

    name = "prototype"

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        return self.encoder.embed(texts) @ prototype(self.encoder, value)


def load_hives_judge(encoder: ValueEncoder | str | None = None) -> Judge:
    """The default judge: on the shipped space, on one in a folder, or on the encoder given."""
    if encoder is None or isinstance(encoder, str):
        encoder = load_value_encoder(encoder)
    return HivesJudge(encoder)


def load_small_judge() -> Judge:
    """The judge on the small shipped space: several times as fast, and less often right."""
    return load_hives_judge("hives-small")


def load_prototype_judge(encoder: Encoder | None = None) -> Judge:
    """The untrained judge on all-mpnet-base-v2, or on the encoder given."""
    return PrototypeJudge(encoder or load_frozen_encoder())


def _hash(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
