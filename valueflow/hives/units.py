"""Batches of whole ladders: what differs within one is the value alone, so it stays together.

A unit is a ladder or a question pair, or up to five texts of one value that have neither. Texts of
which only the touched values are known come in batches of their own.
"""

from collections.abc import Iterator

import numpy as np

from valueflow.hives.batches import AnchorBatches, anchor_batches
from valueflow.hives.labels import Labels, labels_for
from valueflow.hives.texts import UNIT, TrainingTexts


class UnitBatches:
    """Made by `unit_batches`; an epoch depends on the generator given there and on its number.

    Attributes:
        batch_size: texts of a batch of full units; batches may have fewer.
    """

    drop_last = False

    def __init__(
        self, units: list[list[int]], tree: AnchorBatches, touching: list[list[int]], seed: int
    ) -> None:
        self.batch_size = tree.batch_size * UNIT
        self._units = units
        self._tree = tree
        self._touching = touching
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        per = self.batch_size
        return len(self._tree) + sum(-(-len(rows) // per) for rows in self._touching)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self._epoch = epoch
        self._tree.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        batches = [[row for unit in batch for row in self._units[unit]] for batch in self._tree]
        for rows in self._touching:
            dealt = rng.permutation(rows).tolist()
            batches += [
                dealt[start : start + self.batch_size]
                for start in range(0, len(dealt), self.batch_size)
            ]
        return (batches[i] for i in rng.permutation(len(batches)))


def unit_batches(
    texts: TrainingTexts, *, n_units: int, n_same: int = 2, rng: np.random.Generator
) -> UnitBatches:
    """Batches of one theory each, built around a unit: units of its value, of siblings, of others.

    As `anchor_batches` deals texts, with the same exceptions, so this deals units.

    Args:
        texts: batches are indices into them.
        n_units: per batch.
        n_same: units of the first one's value.
        rng: drawn from here alone.

    Raises:
        InvalidInput: what `anchor_batches` refuses.
    """
    units = _units(texts, rng)
    labels = _unit_labels(texts, units)
    tree = anchor_batches(labels, batch_size=n_units, n_positives=n_same, rng=rng)
    asked: dict[tuple[str, ...], list[int]] = {}
    for row, values in enumerate(texts.asked):
        if values:
            asked.setdefault(values, []).append(row)
    return UnitBatches(units, tree, list(asked.values()), int(rng.integers(2**63)))


def _units(texts: TrainingTexts, rng: np.random.Generator) -> list[list[int]]:
    by_scene: dict[str, list[int]] = {}
    alone: dict[str, list[int]] = {}
    for row, scene in enumerate(texts.scenes):
        if texts.asked[row]:
            continue
        if scene is None:
            alone.setdefault(texts.labels.values[row], []).append(row)
        else:
            by_scene.setdefault(scene, []).append(row)
    units = list(by_scene.values())
    for rows in alone.values():
        dealt = rng.permutation(rows).tolist()
        units += [dealt[start : start + UNIT] for start in range(0, len(dealt), UNIT)]
    return units


def _unit_labels(texts: TrainingTexts, units: list[list[int]]) -> Labels:
    values = [texts.labels.values[unit[0]] for unit in units]
    return labels_for(values, [0] * len(units))
