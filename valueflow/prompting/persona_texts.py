"""Instructions made of what somebody has said: graded texts near a wanted intensity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valueflow.errors import InvalidInput
from valueflow.judges.prompting import defused
from valueflow.prompting.instruct import Place, ValuePrompt, check_level
from valueflow.prompting.wording import get_wording
from valueflow.theories import get_value
from valueflow.vidb import Vidb

SPLIT = "steer"
"""The only part of the database that may speak to a model; the others grade and judge."""

STEP = 4.0
"""Intensity points between two levels: five bins of equal width make up the scale."""

LONG = ("answer",)
"""Registers of texts that are long; used where the others are too few."""


@dataclass(frozen=True)
class Said:
    """A graded text, with the question it answers, if any."""

    text: str
    asked: str | None
    intensity: float


def said_at(
    vidb: Vidb, value: str, level: int, *, n_texts: int = 3, seed: int | Sequence[int]
) -> tuple[Said, ...]:
    """Texts of the steering split that stand for a level, drawn with a seed.

    Drawn are texts within half a step of the level's intensity (`STEP` times the level), short ones
    first and from different ladders first. Where there are too few, those of the same side that
    are nearest to it fill up.

    Raises:
        UnknownName: the database has no such value.
        InvalidInput: no level; too few texts on that side.
    """
    value_id = get_value(value).id
    check_level(value_id, level)
    if n_texts < 1:
        raise InvalidInput(f"n_texts: expected 1 or more, got {n_texts}")
    if level == 0:
        return ()
    frame: Any = vidb.of(value_id, SPLIT).frame
    side = frame[np.sign(frame["intensity"]) == np.sign(level)]
    if len(side) < n_texts:
        raise InvalidInput(
            f"{value_id}: expected {n_texts} texts or more on that side of the scale in the split "
            f"{SPLIT!r}, the database has {len(side)}"
        )
    rng = np.random.default_rng(seed)
    every = list(side.itertuples())
    rows = [every[i] for i in rng.permutation(len(every))]
    off = [abs(row.intensity - STEP * level) for row in rows]
    taken: dict[Any, int] = {}
    order: list[tuple[Any, ...]] = []
    for i, row in enumerate(rows):
        inside = off[i] <= STEP / 2
        repeated = taken.get(row.ladder, 0)
        taken[row.ladder] = repeated + int(inside)
        # Outside the bin nearness decides, inside it chance.
        order.append((not inside, row.register in LONG, repeated, 0.0 if inside else off[i], i))
    return tuple(_said(rows[key[-1]]) for key in sorted(order)[:n_texts])


def text_prompt(
    vidb: Vidb,
    levels: Mapping[str, int],
    *,
    n_texts: int = 3,
    seed: int | Sequence[int],
    wording: str = "said",
    place: Place = "system",
) -> ValuePrompt:
    """The instruction to reply as a person who has said certain texts.

    Args:
        vidb: the graded texts.
        levels: id or name of a value -> level; the texts of several values are mixed.
        n_texts: of each value.
        seed: of the draw, and of the order of the texts.
        wording: one of `wordings("texts")`.
        place: as in `ValuePrompt`.

    Returns:
        A prompt without text where all levels are 0, or none is given.

    Raises:
        UnknownName, InvalidInput: as `said_at`; a value twice, under two names.
    """
    own = get_wording(wording, "texts")
    ids = [get_value(name).id for name in levels]
    if len(set(ids)) < len(ids):
        raise InvalidInput(f"a value has two levels, under two names: {', '.join(ids)}; give one")
    asked = tuple(zip(ids, levels.values(), strict=True))
    found = [
        text
        for value, level in asked
        for text in said_at(vidb, value, level, n_texts=n_texts, seed=seed)
    ]
    if not found:
        return ValuePrompt(place=place)
    mixed = [found[i] for i in np.random.default_rng(seed).permutation(len(found))]
    lines = "\n".join(
        own.fill(
            own.line if text.asked is None else own.answered,
            {"said": text.text, "asked": text.asked or ""},
        )
        for text in mixed
    )
    told = tuple((value, level) for value, level in asked if level)
    return ValuePrompt(own.fill(own.one, {"lines": lines}), place, own.name, told)


def _said(row: Any) -> Said:
    asked = _line(row.context) if isinstance(row.context, str) and row.context.strip() else None
    return Said(_line(row.text), asked, float(row.intensity))


def _line(text: str) -> str:
    """On one line, and no marker of a chat format in it: the texts may be anybody's."""
    return defused(" ".join(text.split()))
