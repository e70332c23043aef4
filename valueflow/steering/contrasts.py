"""Graded texts as a model's own answers: what a direction is learned from.

All texts of one ladder answer one scenario, so what differs between them is how far they support
the value. Whatever differs between ladders is no signal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from valueflow.errors import InvalidInput

POLE = 2.0
"""A text counts as supporting above this intensity, as opposing below minus this."""

NEUTRAL_QUESTIONS: Mapping[str, str] = MappingProxyType(
    {
        "statement": "Tell me about yourself.",
        "post": "What's on your mind?",
        "rule": "Can you give me a rule of thumb?",
    }
)
"""What a text without a question of its own is made to answer, by register."""


@runtime_checkable
class GradedTexts(Protocol):
    """What is needed of a value intensity database; `valueflow.vidb.Vidb` is one."""

    @property
    def frame(self) -> Any:
        """One row per text: id, value, ladder, register, context, text, intensity."""
        ...

    def of(self, value: str, *splits: str) -> "GradedTexts":
        """The texts of one value and of the given splits."""
        ...

    def fingerprint(self) -> str:
        """Hash of the content."""
        ...


@dataclass(frozen=True)
class Contrast:
    """One graded text as the answer to a question.

    Attributes:
        text_id: id of the text in the database.
        ladder: id of the scenario it shares with the texts it is compared with.
        question: what the user asks.
        text: what the assistant answers.
        intensity: [-10, 10], support of the value.
    """

    text_id: str
    ladder: str
    question: str
    text: str
    intensity: float


def contrasts(vidb: GradedTexts, value: str, *, split: str = "steer") -> list[Contrast]:
    """Every graded text of a value and split as an answer, in the order of the database.

    The question is the ladder's own, or for registers that have none `NEUTRAL_QUESTIONS`.

    Raises:
        UnknownName: no such value or split, or the database has no texts of the value.
        InvalidInput: no texts in the split.
    """
    frame = vidb.of(value, split).frame
    if len(frame) == 0:
        raise InvalidInput(f"the database has no texts of {value} in the split {split!r}")
    return [
        Contrast(row.id, row.ladder, _question(row), row.text, float(row.intensity))
        for row in frame.itertuples()
    ]


def pairs(contrasts: Sequence[Contrast], *, threshold: float = POLE) -> list[tuple[int, int]]:
    """Index pairs (supporting, opposing) within each ladder, every combination once.

    Supporting is an intensity above `threshold`, opposing one below `-threshold`; texts in between
    are in no pair, and a ladder without both has none.
    """
    found = []
    for rows in _by_ladder(contrasts):
        high = [i for i in rows if contrasts[i].intensity > threshold]
        low = [i for i in rows if contrasts[i].intensity < -threshold]
        found += product(high, low)
    return found


def shuffled(contrasts: Sequence[Contrast], *, rng: np.random.Generator) -> list[Contrast]:
    """The label-shuffled placebo: the same texts, intensities permuted within each ladder.

    A direction learned from it has seen the same texts, scenarios and intensities; what it does to
    a model is due to something else than the value. Only for estimators that heed which text is
    which: `pca` finds the same axis in shuffled differences, with a sign by chance.
    """
    result = list(contrasts)
    for rows in _by_ladder(contrasts):
        for row, source in zip(rows, rng.permutation(rows), strict=True):
            result[row] = replace(contrasts[row], intensity=contrasts[source].intensity)
    return result


def _question(row: Any) -> str:
    # pandas may hold a missing context as None or NaN.
    if isinstance(row.context, str) and row.context.strip():
        return row.context
    if row.register not in NEUTRAL_QUESTIONS:
        raise InvalidInput(
            f"text {row.id}: register {row.register!r} needs a question in 'context'; without one "
            f"there are {', '.join(NEUTRAL_QUESTIONS)}"
        )
    return NEUTRAL_QUESTIONS[row.register]


def _by_ladder(contrasts: Sequence[Contrast]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for index, contrast in enumerate(contrasts):
        groups.setdefault(contrast.ladder, []).append(index)
    return list(groups.values())
