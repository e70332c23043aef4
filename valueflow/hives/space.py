"""Labelled texts in an embedding space, for what measures its geometry against the trees.

What two values share of a tree is said in `valueflow.theories.levels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int

from valueflow.errors import InvalidInput
from valueflow.theories import get_theory, get_value
from valueflow.theories.levels import levels_of, shared_levels
from valueflow.vidb import Vidb
from valueflow.vidb.quality import Embed

NEUTRAL = 2.0
"""A text of VIDB with an intensity below it, in magnitude, neither supports nor opposes."""


@dataclass(frozen=True)
class LabelledSpace:
    """Embedded texts, the value each speaks of, and which way.

    Made by `labelled_space` and `vidb_space`, which check what they get.

    Attributes:
        embeddings: unit-length rows.
        values: id of each text's value.
        directions: 1 for a text that supports its value, -1 for one that opposes it.
        ladders: what each text shares its topic with; texts of one ladder are never compared.
    """

    embeddings: Float[np.ndarray, "texts width"]
    values: tuple[str, ...]
    directions: Int[np.ndarray, " texts"]
    ladders: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Ids of the values that occur, sorted."""
        return tuple(sorted(set(self.values)))

    @property
    def theories(self) -> tuple[str, ...]:
        """Ids of the theories that occur, sorted."""
        return tuple(sorted({get_value(name).theory for name in self.names}))

    @cached_property
    def codes(self) -> Int[np.ndarray, " texts"]:
        """Each text's value as an index into `names`."""
        return np.searchsorted(np.array(self.names), np.array(self.values))

    @cached_property
    def ladder_codes(self) -> Int[np.ndarray, " texts"]:
        """Each text's ladder as a number."""
        return np.unique(np.array(self.ladders), return_inverse=True)[1]

    @cached_property
    def shared(self) -> Int[np.ndarray, "values values"]:
        """Levels that two of `names` share; -1 for values of different theories."""
        return np.array([[shared_levels(a, b) for b in self.names] for a in self.names])

    def of(self, theory: str) -> "LabelledSpace":
        """The texts of one theory; raises InvalidInput if there are none."""
        wanted = get_theory(theory).id
        rows = [i for i, value in enumerate(self.values) if get_value(value).theory == wanted]
        if not rows:
            raise InvalidInput(f"no text of theory {wanted!r}, only of {', '.join(self.theories)}")
        return LabelledSpace(
            self.embeddings[rows],
            tuple(self.values[i] for i in rows),
            self.directions[rows],
            tuple(self.ladders[i] for i in rows),
        )


def level_members(names: Sequence[str], level: int) -> Bool[np.ndarray, "values nodes"]:
    """Which nodes of a level (from 1) each value lies under; a row of False where it ends above."""
    at = [levels[level - 1] if len(levels) >= level else () for levels in map(levels_of, names)]
    nodes = sorted({node for own in at for node in own})
    return np.array([[node in own for node in nodes] for own in at], dtype=bool).reshape(
        len(at), len(nodes)
    )


def labelled_space(
    embeddings: Float[np.ndarray, "rows width"],
    values: Sequence[str],
    directions: Sequence[int],
    ladders: Sequence[str] | None = None,
) -> LabelledSpace:
    """A space from its parts; embeddings are scaled to unit length.

    Args:
        embeddings: one row per text.
        values: names of values, any nodes of the theories.
        directions: 1 (supports) or -1 (opposes); leave neutral texts out.
        ladders: None where every text stands alone.

    Raises:
        InvalidInput: no texts, lengths that differ, a direction that is neither, a ladder with
            texts of several values, what `unit_rows` refuses.
        UnknownName: a value that no theory has.
    """
    ids = tuple(get_value(value).id for value in values)
    alone = tuple(f"text {i}" for i in range(len(ids)))
    groups = alone if ladders is None else tuple(map(str, ladders))
    lengths = (len(embeddings), len(ids), len(directions), len(groups))
    if len(set(lengths)) > 1 or not ids:
        raise InvalidInput(
            "expected one embedding, value, direction and ladder for each of one or more texts, "
            f"got {', '.join(map(str, lengths))}"
        )
    signs = np.asarray(directions)
    if not np.isin(signs, (-1, 1)).all():
        raise InvalidInput("directions are 1 (supports) or -1 (opposes); leave neutral texts out")
    value_of = dict(zip(groups, ids, strict=True))
    mixed = [g for g, value in zip(groups, ids, strict=True) if value_of[g] != value]
    if mixed:
        raise InvalidInput(f"ladder {mixed[0]!r} has texts of several values; a ladder has one")
    return LabelledSpace(unit_rows(embeddings), ids, signs.astype(np.int64), groups)


def vidb_space(vidb: Vidb, embed: Embed, *, neutral: float = NEUTRAL) -> LabelledSpace:
    """The texts of a database that lean one way: intensity at least `neutral` in magnitude."""
    frame = vidb.frame.loc[vidb.frame["intensity"].abs() >= neutral]
    if frame.empty:
        raise InvalidInput(f"no text of the database has an intensity of {neutral:g} or more")
    signs = np.where(frame["intensity"] > 0, 1, -1).tolist()
    return labelled_space(
        embed(frame["text"].tolist()), frame["value"].tolist(), signs, frame["ladder"].tolist()
    )


def unit_rows(embeddings: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows width"]:
    """Rows scaled to unit length, float64.

    Raises:
        InvalidInput: a row that is zero or has a number that is not finite.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if len(bad):
        raise InvalidInput(f"embedding {bad[0]} is zero or not finite; check the encoder's output")
    return rows / length[:, None]
