"""Where texts stand in the theories' trees, as the losses need it; knows no model and no text.

What two values share of a tree is said in `valueflow.theories.levels`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.theories import get_value
from valueflow.theories.levels import paths_of, shared_levels

MAX_INTENSITY = 10.0


@dataclass(frozen=True, eq=False)
class Labels:
    """What is known of n texts; made by `labels_for`.

    The matrices are computed when first asked for. They stay on the CPU; the losses move them.

    Attributes:
        values: id of each text's value: a steered value, a facet below it or a group above it.
        directions: +1 supports the value, -1 opposes it, 0 neither.
        intensities: on [-10, 10], NaN where unknown. The losses do not read them.
    """

    values: tuple[str, ...]
    directions: Int[Tensor, " n"]
    intensities: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int]) -> "Labels":
        """The labels of some texts, in the order of `rows`; raises IndexError out of range."""
        index = torch.tensor(list(rows), dtype=torch.long)
        values = tuple(self.values[row] for row in rows)
        return Labels(values, self.directions[index], self.intensities[index])

    @property
    def theories(self) -> tuple[str, ...]:
        """Id of each text's theory."""
        return tuple(value.partition("/")[0] for value in self.values)

    @property
    def paths(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """Per text every path, from the node below the theory down to the value, both included."""
        return tuple(paths_of(value) for value in self.values)

    @cached_property
    def depth(self) -> int:
        """Levels of the deepest text: 1 where all theories are flat (duty), 0 without texts."""
        return max((len(path) for paths in self.paths for path in paths), default=0)

    @cached_property
    def shared_levels(self) -> Int[Tensor, "n n"]:
        """How many levels two texts share, 0 for texts of different theories; symmetric.

        The diagonal is the number of levels of the text's own value.
        """
        return self._pairwise(lambda a, b: max(shared_levels(a, b), 0), torch.long)

    @cached_property
    def same_value(self) -> Bool[Tensor, "n n"]:
        """Whether two texts have the very same value; a value and its facet are not the same."""
        return self._pairwise(lambda a, b: a == b, torch.bool)

    @cached_property
    def same_theory(self) -> Bool[Tensor, "n n"]:
        """Whether two texts belong to one theory."""
        return self._pairwise(lambda a, b: a.split("/")[0] == b.split("/")[0], torch.bool)

    @cached_property
    def same_direction(self) -> Bool[Tensor, "n n"]:
        """Whether two texts have equal direction; two of direction 0 have."""
        return self.directions[:, None] == self.directions[None, :]

    @cached_property
    def opposite_direction(self) -> Bool[Tensor, "n n"]:
        """Whether one of two texts supports and the other opposes; direction 0 is no opposite."""
        return self.directions[:, None] * self.directions[None, :] == -1

    def _pairwise(self, function, dtype: torch.dtype) -> Tensor:
        # Texts are many and values few: one table of the values, then look-ups.
        known = sorted(set(self.values))
        table = torch.tensor([[function(a, b) for b in known] for a in known], dtype=dtype)
        place = {value: i for i, value in enumerate(known)}
        rows = torch.tensor([place[value] for value in self.values], dtype=torch.long)
        table = table.reshape(len(known), len(known))
        return table[rows[:, None], rows[None, :]]


def labels_for(
    values: Sequence[str],
    directions: Sequence[int],
    intensities: Sequence[float] | None = None,
) -> Labels:
    """Labels of n texts from the names of their values.

    Args:
        values: id, short id, name or alias (see `valueflow.theories.get_value`).
        directions: +1, -1 or 0 per text. Not derived from the intensities: a text's direction is
            often known where its intensity is not, and a weak text has a direction too.
        intensities: on [-10, 10], NaN for unknown; None where none is known.

    Raises:
        UnknownName: a value that no theory has; lists near misses.
        InvalidInput: lengths that differ, a direction other than +1, -1, 0, an intensity off the
            scale, a name that several theories have.
    """
    intensities = [float("nan")] * len(values) if intensities is None else intensities
    if not len(values) == len(directions) == len(intensities):
        raise InvalidInput(
            "expected one value, direction and intensity per text, got "
            f"{len(values)} values, {len(directions)} directions, {len(intensities)} intensities"
        )
    for row, direction in enumerate(directions):
        if direction not in (-1, 0, 1):
            raise InvalidInput(f"text {row}: direction must be +1, -1 or 0, got {direction!r}")
    for row, intensity in enumerate(intensities):
        if abs(intensity) > MAX_INTENSITY:
            raise InvalidInput(
                f"text {row}: intensity must be in [-10, 10] or NaN, got {intensity}; "
                "map it to the scale first"
            )
    return Labels(
        tuple(_known(name) for name in values),
        torch.tensor([int(direction) for direction in directions], dtype=torch.long),
        torch.tensor([float(intensity) for intensity in intensities], dtype=torch.float32),
    )


@cache
def _known(name: str) -> str:
    return get_value(name).id
