"""The anchors a text is ranked against, and the windows they share with it."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from valueflow.artifacts import write_file
from valueflow.errors import ArtifactError, InvalidInput
from valueflow.ranking.anchored import SCALE_RANGE
from valueflow.ranking.windows import bucketed_anchors
from valueflow.theories import get_value
from valueflow.typing import Item

if TYPE_CHECKING:
    from valueflow.vidb import Vidb

Sampling = Literal["bucket", "random", "fixed"]

FIFTHS = 5


@dataclass(frozen=True)
class Panel:
    """Graded texts of one value.

    Attributes:
        value: id of the value.
        items: the anchors.
        intensities: of the anchors, shape (anchors,), on [-10, 10].
        stderrs: of the intensities where known; they are no part of what a panel is.
        groups: the ladder of each anchor where known: texts on one scenario.
    """

    value: str
    items: tuple[Item, ...]
    intensities: NDArray[np.float64]
    stderrs: tuple[float, ...] | None = None
    groups: tuple[str, ...] | None = None

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

        "bucket" takes one anchor from each of `size` buckets of equal width, "random" any, "fixed"
        the same anchors for every window and text: those nearest to the buckets' centres.

        Raises:
            InvalidInput: the panel has fewer anchors than a window needs.
        """
        if len(self) < size:
            raise InvalidInput(f"{self.value}: windows need {size} anchors, panel has {len(self)}")
        if sampling == "fixed":
            return [self._nearest_centres(size)] * n_windows
        if sampling == "bucket":
            return [
                bucketed_anchors(self.intensities, size=size, rng=rng) for _ in range(n_windows)
            ]
        return [rng.choice(len(self), size, replace=False) for _ in range(n_windows)]

    def take(self, indices: Sequence[int]) -> "Panel":
        """The panel of those anchors alone."""
        kept = list(indices)
        return Panel(
            self.value,
            tuple(self.items[i] for i in kept),
            self.intensities[kept],
            stderrs=None if self.stderrs is None else tuple(self.stderrs[i] for i in kept),
            groups=None if self.groups is None else tuple(self.groups[i] for i in kept),
        )

    def coverage(self) -> tuple[int, ...]:
        """Anchors in each fifth of [-10, 10], lowest first."""
        return tuple(np.histogram(self.intensities, bins=FIFTHS, range=SCALE_RANGE)[0].tolist())

    def check_coverage(self, *, at_least: int = 1) -> None:
        """Pass if every fifth of the scale has anchors: between far ones nothing is measured well.

        Raises:
            InvalidInput: names the first fifth that has fewer than `at_least`.
        """
        for fifth, count in enumerate(self.coverage()):
            if count < at_least:
                low = SCALE_RANGE[0] + fifth * (SCALE_RANGE[1] - SCALE_RANGE[0]) / FIFTHS
                raise InvalidInput(
                    f"{self.value}: {count} anchors between {low:+.0f} and {low + 4:+.0f}, need "
                    f"{at_least} or more; add graded texts there or take more splits"
                )

    def _nearest_centres(self, size: int) -> NDArray[np.intp]:
        edges = np.linspace(self.intensities.min(), self.intensities.max(), size + 1)
        chosen: list[int] = []
        for centre in (edges[:-1] + edges[1:]) / 2:
            distance = np.abs(self.intensities - centre)
            distance[chosen] = np.inf
            chosen.append(int(distance.argmin()))
        return np.array(chosen, dtype=np.intp)


def save_panel(panel: Panel, path: str | Path) -> None:
    """Freeze a panel: JSON with its texts, intensities and hash; appears whole or not at all."""
    rows = [
        {"text": item.text, "context": item.context, "intensity": intensity}
        for item, intensity in zip(panel.items, panel.intensities.tolist(), strict=True)
    ]
    content = {"value": panel.value, "fingerprint": panel.fingerprint(), "anchors": rows}
    write_file(Path(path), (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def load_panel(path: str | Path) -> Panel:
    """The panel that `save_panel` froze.

    Raises:
        ArtifactError: no such file, no panel, or changed since it was frozen.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        anchors = content["anchors"]
        items = tuple(Item(a["text"], a["context"]) for a in anchors)
        intensities = np.array([a["intensity"] for a in anchors], dtype=np.float64)
        panel = Panel(get_value(content["value"]).id, items, intensities)
        frozen = content["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no frozen panel ({error})") from None
    if panel.fingerprint() != frozen:
        raise ArtifactError(f"{path}: changed since it was frozen as {frozen}; freeze it again")
    return panel


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
        frame = frame.loc[frame["register"].isin(registers)]
    if frame.empty:
        raise InvalidInput(f"the database has no texts of {value} in splits {splits}")
    items = tuple(Item(t, c) for t, c in zip(frame["text"], frame["context"], strict=True))
    return Panel(
        get_value(value).id,
        items,
        frame["intensity"].to_numpy(dtype=np.float64),
        stderrs=tuple(frame["stderr"].astype(float).tolist()),
        groups=tuple(frame["ladder"].astype(str).tolist()),
    )
