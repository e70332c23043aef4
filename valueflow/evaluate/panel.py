"""The anchors a text is ranked against, and the windows they share with it."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput
from valueflow.ranking.windows import bucketed_anchors
from valueflow.theories import get_value
from valueflow.typing import Item

if TYPE_CHECKING:
    from valueflow.vidb import Vidb

Sampling = Literal["bucket", "random"]


@dataclass(frozen=True)
class Panel:
    """Graded texts of one value.

    Attributes:
        value: id of the value.
        items: the anchors.
        intensities: of the anchors, shape (anchors,), on [-10, 10].
    """

    value: str
    items: tuple[Item, ...]
    intensities: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> str:
        """Hash of value, anchors and intensities, whatever their order; scores carry it."""
        # Sorted as text: items with and without context do not compare.
        rows = sorted(
            f"{item.text}\x1f{item.context or ''}\x1f{intensity:.4f}\x1e"
            for item, intensity in zip(self.items, self.intensities, strict=True)
        )
        return hashlib.sha256("".join([self.value, *rows]).encode()).hexdigest()[:16]

    def draw(
        self, n_windows: int, size: int, *, sampling: Sampling, rng: np.random.Generator
    ) -> list[NDArray[np.intp]]:
        """Anchor indices of `n_windows` windows, `size` anchors each.

        "bucket" takes one anchor from each of `size` buckets of equal width, "random" any.

        Raises:
            InvalidInput: the panel has fewer anchors than a window needs.
        """
        if len(self) < size:
            raise InvalidInput(f"{self.value}: windows need {size} anchors, panel has {len(self)}")
        if sampling == "bucket":
            return [
                bucketed_anchors(self.intensities, size=size, rng=rng) for _ in range(n_windows)
            ]
        return [rng.choice(len(self), size, replace=False) for _ in range(n_windows)]


def panel_from_vidb(
    vidb: "Vidb", value: str, *splits: str, registers: Collection[str] | None = None
) -> Panel:
    """The texts of the value in those splits as anchors, of all registers or of some.

    Raises:
        UnknownName: as `Vidb.of`.
        InvalidInput: those splits hold no text of the value in those registers.
    """
    frame = vidb.of(value, *splits).frame
    if registers is not None:
        frame = frame[frame["register"].isin(registers)]
    if frame.empty:
        raise InvalidInput(f"the database has no texts of {value} in splits {splits}")
    items = tuple(Item(t, c) for t, c in zip(frame["text"], frame["context"], strict=True))
    return Panel(get_value(value).id, items, frame["intensity"].to_numpy(dtype=np.float64))
