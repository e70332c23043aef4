"""Which texts are seen together: batches as lists of indices, for a torch `DataLoader`.

Both kinds can be its `batch_sampler` (and that of sentence-transformers): iterables of index lists
with a fixed length and `set_epoch`. What an epoch holds depends on the generator given at the
start and on the epoch's number alone; iterating twice without `set_epoch` repeats the epoch.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput
from valueflow.hives.labels import Labels
from valueflow.theories import get_theory


class AnchorBatches:
    """Made by `anchor_batches`."""

    drop_last = False

    def __init__(self, labels: Labels, batch_size: int, n_positives: int, seed: int) -> None:
        self.batch_size = batch_size
        self.n_positives = n_positives
        self._seed = seed
        self._epoch = 0
        theories = np.array(labels.theories)
        self._pools = [
            _Pool(labels, np.flatnonzero(theories == t)) for t in dict.fromkeys(theories)
        ]

    def __len__(self) -> int:
        return sum(-(-len(pool.rows) // self.batch_size) for pool in self._pools)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        batches = [
            batch
            for pool in self._pools
            for batch in pool.epoch(self.batch_size, self.n_positives, rng)
        ]
        return (batches[i] for i in rng.permutation(len(batches)))


def anchor_batches(
    labels: Labels, *, batch_size: int, n_positives: int = 4, rng: np.random.Generator
) -> AnchorBatches:
    """Batches of one theory each, built around an anchor text.

    A batch is the anchor, up to `n_positives` texts of its value and direction, then negatives:
    half of them hard where there are enough (as many of its value in another direction as of
    sibling values), the others any texts of the theory.

    An epoch deals every text once. Exceptions, so that batches are full and anchors have a
    positive: a theory's last batch is filled with texts already seen; an anchor whose mates were
    all dealt is given one of them again, in place of a text that waits for a later epoch. A theory
    of fewer texts than `batch_size` gives one batch of them all. No text is twice in a batch.

    Args:
        labels: of all texts that may be seen; batches are indices into them.
        batch_size: texts per batch.
        n_positives: of the anchor.
        rng: drawn from once, here.

    Raises:
        InvalidInput: no texts, fewer than 2 per batch, or no room in it for the positives.
    """
    if not len(labels):
        raise InvalidInput("expected labels of at least one text, got none")
    if not 1 <= n_positives < batch_size:
        raise InvalidInput(
            "expected 1 or more positives and a larger batch_size, got "
            f"n_positives={n_positives}, batch_size={batch_size}"
        )
    return AnchorBatches(labels, batch_size, n_positives, int(rng.integers(2**63)))


@runtime_checkable
class TreeBatches(Protocol):
    """Batches whose texts are compared by where their values stand in the tree."""

    batch_size: int

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[int]]: ...
    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""


class MixedBatches:
    """Made by `with_pairs`.

    Attributes:
        sizes: rows of the three parts, in order: hierarchical (at most), instances, anchors.
    """

    drop_last = False

    def __init__(self, tree: TreeBatches, groups: tuple[list, list], pairs: int, seed: int) -> None:
        self.sizes = (tree.batch_size, 2 * pairs, 2 * pairs)
        self.batch_size = sum(self.sizes)
        self._tree = tree
        self._groups = groups
        self._pairs = pairs
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return len(self._tree)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self._epoch = epoch
        self._tree.set_epoch(epoch)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        instances, anchors = (_pair_rows(groups, self._pairs, rng) for groups in self._groups)
        for tree, instance, anchor in zip(self._tree, instances, anchors, strict=False):
            yield tree + instance + anchor


def with_pairs(
    tree: TreeBatches,
    labels: Labels,
    instances: Sequence[int],
    anchors: Sequence[int],
    *,
    pairs: int,
    rng: np.random.Generator,
) -> MixedBatches:
    """Batches of stage 2: those of `tree`, each followed by pairs of instances and of anchors.

    `sizes` of the result says where the parts end. Each pair of a batch is of another group: two
    texts of one personal value in the second part, two of one concept from two theories in the
    third; all groups come up equally often, to within one. A text may be in several parts. The
    epoch is that of the first part.

    Args:
        tree: the first part.
        labels: of all texts.
        instances: per text the group of its personal value, negative for none. Groups of one text
            are left out.
        anchors: per text the group of its concept, negative for none; support and opposition of a
            concept are two groups. Groups within one theory are left out.
        pairs: of each kind and batch.
        rng: drawn from once, here.

    Raises:
        InvalidInput: lengths that differ, fewer than `pairs` groups that can give a pair.
    """
    if not len(labels) == len(instances) == len(anchors):
        raise InvalidInput(
            f"expected an instance and an anchor group per text, got {len(labels)} texts, "
            f"{len(instances)} instances, {len(anchors)} anchors"
        )
    theories = labels.theories
    alone = tuple(str(row) for row in range(len(theories)))
    groups = (
        _groups("instances", instances, alone, pairs),
        _groups("anchors", anchors, theories, pairs),
    )
    return MixedBatches(tree, groups, pairs, int(rng.integers(2**63)))


class _Pool:
    """The texts of one theory."""

    def __init__(self, labels: Labels, rows: NDArray[np.intp]) -> None:
        self.rows = rows
        names = [labels.values[row] for row in rows]
        known = sorted(set(names))
        theory = get_theory(names[0].partition("/")[0])
        self.values = np.array([known.index(name) for name in names])
        self.directions = labels.directions.numpy()[rows]
        siblings = [theory.siblings(name) for name in known]
        self.siblings = np.array([[name in near for name in known] for near in siblings])
        self.groups = self.values * 3 + self.directions + 1

    def epoch(
        self, batch_size: int, n_positives: int, rng: np.random.Generator
    ) -> Iterator[list[int]]:
        unseen = np.ones(len(self.rows), dtype=bool)
        size = min(batch_size, len(self.rows))
        for _ in range(-(-len(self.rows) // batch_size)):
            batch = self._batch(unseen, size, n_positives, rng)
            unseen[batch] = False
            yield self.rows[batch].tolist()

    def _batch(
        self, unseen: NDArray[np.bool_], size: int, n_positives: int, rng: np.random.Generator
    ) -> list[int]:
        waiting = np.bincount(self.groups[unseen], minlength=self.groups.max() + 1)
        batch = _Draft(size, len(self.rows), rng)
        if not batch.draw(unseen & (waiting[self.groups] > 1), 1):
            batch.draw(unseen, 1)
        anchor = batch.chosen[0]
        mates = self.groups == self.groups[anchor]
        if not batch.draw(unseen & mates, n_positives):
            batch.draw(mates, 1)
        hard = (size - len(batch.chosen)) // 2
        batch.draw(unseen & (self.values == self.values[anchor]) & ~mates, (hard + 1) // 2)
        batch.draw(unseen & self.siblings[self.values[anchor], self.values], hard // 2)
        for wanted in (unseen & ~mates, unseen, ~mates, mates):
            batch.draw(wanted, size)
        return batch.chosen


class _Draft:
    """A batch in the making: at most `size` of `n` texts, none twice."""

    def __init__(self, size: int, n: int, rng: np.random.Generator) -> None:
        self.chosen: list[int] = []
        self._size = size
        self._free = np.ones(n, dtype=bool)
        self._rng = rng

    def draw(self, wanted: NDArray[np.bool_], count: int) -> int:
        """Add up to `count` of the texts wanted, as far as there is room; says how many."""
        room = min(count, self._size - len(self.chosen))
        drawn = self._rng.permutation(np.flatnonzero(wanted & self._free))[:room]
        self._free[drawn] = False
        self.chosen.extend(drawn.tolist())
        return len(drawn)


def _groups(
    what: str, ids: Sequence[int], kinds: Sequence[str], pairs: int
) -> list[dict[str, list[int]]]:
    """Rows of each group by kind, for groups of two or more kinds."""
    found: dict[int, dict[str, list[int]]] = {}
    for row, (group, kind) in enumerate(zip(ids, kinds, strict=True)):
        if group >= 0:
            found.setdefault(group, {}).setdefault(kind, []).append(row)
    usable = [by_kind for by_kind in found.values() if len(by_kind) > 1]
    if len(usable) < pairs:
        raise InvalidInput(
            f"{what}: a batch needs {pairs} groups that can give a pair, got {len(usable)}; "
            "take smaller batches or add groups"
        )
    return usable


def _pair_rows(
    groups: list[dict[str, list[int]]], pairs: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    times = np.zeros(len(groups), dtype=int)
    while True:
        # Least used first, ties by chance.
        chosen = np.lexsort((rng.random(len(groups)), times))[:pairs]
        times[chosen] += 1
        rows: list[int] = []
        for group in chosen:
            kinds = list(groups[group].values())
            for kind in rng.permutation(len(kinds))[:2]:
                rows.append(int(rng.choice(kinds[kind])))
        yield rows
