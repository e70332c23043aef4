"""Where an answer ends in a format without end-of-turn tokens."""

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from valueflow.models.chat import PLAIN

NEXT_TURN = "\n" + PLAIN.partition("{")[0].strip()
"""With this a model that knows the plain format by its prompt alone goes on to ask itself."""


def cut_turn(text: str) -> str:
    """A plain answer up to where the next question begins."""
    return text.partition(NEXT_TURN)[0]


def until_next_turn(
    tokenizer: Any, ids: Int[Tensor, "rows new"], real: Bool[Tensor, "rows new"]
) -> Bool[Tensor, "rows new"]:
    """The tokens of `real` up to and with those that spell out that a new question begins.

    They stand for the end-of-turn token that such a model does not have.
    """
    kept = real.clone()
    for row, (tokens, own) in enumerate(zip(ids, real, strict=True)):
        length = int(own.sum())
        if NEXT_TURN in tokenizer.decode(tokens[:length], skip_special_tokens=True):
            kept[row, _end(tokenizer, tokens, length) :] = False
    return kept


def _end(tokenizer: Any, tokens: Int[Tensor, " new"], length: int) -> int:
    """The fewest tokens from the start whose text has the next turn's opening in it."""
    low, high = 0, length
    while high - low > 1:
        middle = (low + high) // 2
        opened = NEXT_TURN in tokenizer.decode(tokens[:middle], skip_special_tokens=True)
        low, high = (low, middle) if opened else (middle, high)
    return high
