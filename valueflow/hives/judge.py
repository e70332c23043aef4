"""Judges that score each text of a window on its own and order by score.

Deterministic and free of position bias; equal scores keep the order shown. The score never
leaves the judge.
"""

import hashlib
from collections.abc import Sequence
from importlib import resources

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives.encoder import FrozenEncoder, load_frozen_encoder
from valueflow.hives.head import Head, load_head
from valueflow.judges.base import Judge, Verdict
from valueflow.theories import Value
from valueflow.typing import Window

SHIPPED_HEAD = resources.files("valueflow") / "hives" / "weights"


class _ScoringJudge:
    """Orders windows by a score per (value, text)."""

    name = "scoring"

    def __init__(self, encoder: FrozenEncoder) -> None:
        self.encoder = encoder

    def rank(self, value: Value, windows: Sequence[Window]) -> list[Verdict]:
        """Indices by falling score; the encoder sees each distinct text once."""
        texts = sorted({item.text for window in windows for item in window})
        scores = dict(zip(texts, self._scores(value, texts), strict=True))
        return [
            tuple(sorted(range(len(window)), key=lambda i, w=window: -scores[w[i].text]))
            for window in windows
        ]

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        raise NotImplementedError


class HivesJudge(_ScoringJudge):
    """A frozen encoder with a small head trained on VIDB's judge split; the default judge.

    Args:
        encoder: the encoder that the head was trained on.
        head: see `valueflow.hives.train`.
    """

    name = "hives"

    def __init__(self, encoder: FrozenEncoder, head: Head) -> None:
        super().__init__(encoder)
        self.head = head

    def fingerprint(self) -> str:
        """Hash of encoder and head."""
        return _hash(self.name, self.encoder.fingerprint(), self.head.fingerprint())

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        value_vector = value_features(self.encoder, value)
        return self.head.score(self.encoder.features(texts), value_vector)


class PrototypeJudge(_ScoringJudge):
    """The same frozen encoder, untrained: nearer to "supports" or to "opposes"?

    It has seen no graded text at all, so it confirms (or not) what a trained judge says.
    """

    name = "prototype"

    def fingerprint(self) -> str:
        """Hash of the encoder."""
        return _hash(self.name, self.encoder.fingerprint())

    def _scores(self, value: Value, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        width = self.encoder.width
        contrast = value_features(self.encoder, value)[:width]
        return self.encoder.embed(texts) @ contrast


def value_features(encoder: FrozenEncoder, value: Value) -> Float[np.ndarray, " twice_width"]:
    """Embedding of "supports" minus that of "opposes", then that of the definition.

    Raises:
        InvalidInput: the value says nothing of what supports and opposes it (not a steered one).
    """
    if not value.supports or not value.opposes:
        raise InvalidInput(f"{value.id} has no 'supports' and 'opposes' texts; use a steered value")
    supports, opposes, definition = encoder.embed([value.supports, value.opposes, value.definition])
    return np.concatenate([supports - opposes, definition])


def load_hives_judge(encoder: FrozenEncoder | None = None) -> Judge:
    """The default judge with the head that is shipped; all-mpnet-base-v2 is loaded if not given."""
    with resources.as_file(SHIPPED_HEAD) as folder:
        head = load_head(folder)
    return HivesJudge(encoder or load_frozen_encoder(), head)


def load_prototype_judge(encoder: FrozenEncoder | None = None) -> Judge:
    """The untrained judge on all-mpnet-base-v2, or on the encoder given."""
    return PrototypeJudge(encoder or load_frozen_encoder())


def _hash(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
