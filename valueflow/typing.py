"""Words shared by several modules, as types; no heavy import."""

from collections.abc import Sequence
from typing import NamedTuple

Ranking = tuple[int, ...]
"""Item indices, most supportive first: a permutation of what was shown, or of some of it."""

Rankings = Sequence[Ranking]


class Item(NamedTuple):
    """One text to be judged, with the question it answers, if any."""

    text: str
    context: str | None = None


Window = tuple[Item, ...]
"""K items shown to a judge together, in the order shown."""
