"""How positive a text sounds, whatever it speaks of: pairs of sentences, and a measure from them.

The pairs say the same of everyday things (soup, printers, the weather) in a good and in a bad tone.
No value of the theories is at stake in them, so a vector that moves this measure moves tone.
"""

import json
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput


class TonePair(NamedTuple):
    """The same said in two tones, as answers to one question."""

    question: str
    positive: str
    negative: str


@runtime_checkable
class Embeds(Protocol):
    """What turns texts into vectors of length 1, such as `valueflow.hives.encoder.Encoder`."""

    def embed(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """One row per text."""
        ...


def load_tone_pairs() -> list[TonePair]:
    """The shipped pairs."""
    text = (resources.files(__name__) / "pairs.jsonl").read_text(encoding="utf-8")
    return [TonePair(**json.loads(line)) for line in text.splitlines() if line.strip()]


class Tone:
    """Sentiment without a lexicon: where an embedding lies between bad and good tone.

    0 is half way between the pairs' negative and positive sentences, -1 and +1 are their means.

    Args:
        encoder: a frozen one; a space trained on values would read values into tone.
        pairs: None for those shipped.

    Attributes:
        accuracy: share of sentences on their side of 0, every pair judged by the others alone.
        in_order: share of pairs whose positive sentence scores above the negative one, likewise.
    """

    def __init__(self, encoder: Embeds, pairs: Sequence[TonePair] | None = None) -> None:
        pairs = load_tone_pairs() if pairs is None else list(pairs)
        if len(pairs) < 2:
            raise InvalidInput(f"tone needs two or more pairs of sentences, got {len(pairs)}")
        self.encoder = encoder
        rows = _rows(encoder, [p.positive for p in pairs] + [p.negative for p in pairs])
        high, low = rows[: len(pairs)], rows[len(pairs) :]
        self._axis, self._middle = _axis(high, low)
        scored = np.array([_left_out(high, low, i) for i in range(len(pairs))])
        self.accuracy = float(((scored[:, 0] > 0).mean() + (scored[:, 1] < 0).mean()) / 2)
        self.in_order = float((scored[:, 0] > scored[:, 1]).mean())

    def score(self, texts: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Tone of each text; about -1 to 1, unbounded."""
        return (_rows(self.encoder, texts) - self._middle) @ self._axis


def _rows(encoder: Embeds, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
    return np.asarray(encoder.embed(texts), dtype=np.float64)


def _axis(
    high: Float[np.ndarray, "pairs width"], low: Float[np.ndarray, "pairs width"]
) -> tuple[Float[np.ndarray, " width"], Float[np.ndarray, " width"]]:
    """The direction scaled so that the two means are 2 apart, and the point between them."""
    difference = high.mean(axis=0) - low.mean(axis=0)
    square = difference @ difference
    if square == 0:
        raise InvalidInput("the two tones have the same embeddings; use another encoder")
    return 2 * difference / square, (high.mean(axis=0) + low.mean(axis=0)) / 2


def _left_out(
    high: Float[np.ndarray, "pairs width"], low: Float[np.ndarray, "pairs width"], i: int
) -> tuple[float, float]:
    rest = np.arange(len(high)) != i
    axis, middle = _axis(high[rest], low[rest])
    return float((high[i] - middle) @ axis), float((low[i] - middle) @ axis)
