"""Which items are shown together; knows nothing of texts, judges or values."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput


def cross_windows(
    groups: Sequence[Hashable],
    *,
    size: int = 5,
    per_item: int,
    so_far: Sequence[int] | None = None,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """Windows of items from different groups, each item in at least `per_item` of them.

    Args:
        groups: the group of each item; a window never holds two items of one group.
        size: items per window.
        per_item: windows each item is in, at least; a few items meet one more so that every
            window is full.
        so_far: such windows that each item is in already; None for none. Where some have enough,
            each new window holds one of those, so that new items are tied to the old ones.
        rng: decides who meets whom and the order shown.

    Raises:
        InvalidInput: fewer groups than `size`, or not one count per item in `so_far`.

    Notes:
        Items with the fewest windows so far go first, random among equals; where groups are of one
        size and nothing was shown before, the counts differ by two at most. With per_item >= 2 the
        graph of who met whom is connected in practice; `valueflow.ranking.fit` tells when it is
        not.
    """
    if len(set(groups)) < size:
        raise InvalidInput(
            f"windows of {size} from different groups need at least {size} groups, "
            f"got {len(set(groups))}"
        )
    counts = np.zeros(len(groups), dtype=int) if so_far is None else np.array(so_far, dtype=int)
    if len(counts) != len(groups):
        raise InvalidInput(f"expected a count for each of {len(groups)} items, got {len(counts)}")
    enough = counts >= per_item
    windows = []
    while counts.min() < per_item:
        order = np.lexsort((rng.random(len(groups)), counts))
        neediest = groups[order[0]]
        tie = next((i for i in order if enough[i] and groups[i] != neediest), order[0])
        chosen: list[int] = []
        taken: set[Hashable] = set()
        for item in (order[0], tie, *order):
            if groups[item] not in taken:
                chosen.append(int(item))
                taken.add(groups[item])
            if len(chosen) == size:
                break
        counts[chosen] += 1
        windows.append(tuple(int(i) for i in rng.permutation(chosen)))
    return windows


def group_windows(groups: Sequence[Hashable], *, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """One window per group, holding all its items in a random order; groups as first met."""
    members: dict[Hashable, list[int]] = {}
    for item, group in enumerate(groups):
        members.setdefault(group, []).append(item)
    return [tuple(int(i) for i in rng.permutation(items)) for items in members.values()]


def bucketed_anchors(
    intensities: NDArray[np.float64], *, size: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """One anchor from each of `size` buckets of equal width over the anchors' range.

    For an empty bucket the free anchor nearest its centre is taken, after all others had their pick
    (VALUEFLOW, arXiv 2602.03160, uses equal-width buckets and fills empty ones at random). Anchors
    are distinct, and in the order of their buckets.

    Raises:
        InvalidInput: fewer anchors than `size`.
    """
    if len(intensities) < size:
        raise InvalidInput(f"a window needs {size} anchors, the panel has {len(intensities)}")
    edges = np.linspace(intensities.min(), intensities.max(), size + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    bucket = np.clip(np.searchsorted(edges, intensities, side="right") - 1, 0, size - 1)
    held = np.bincount(bucket, minlength=size)
    free = np.ones(len(intensities), dtype=bool)
    chosen = np.empty(size, dtype=np.intp)
    for slot in np.argsort(held == 0, kind="stable"):  # empty ones last, or they would rob others
        candidates = np.flatnonzero(free & (bucket == slot))
        if len(candidates) == 0:
            left = np.flatnonzero(free)
            distance = np.abs(intensities[left] - centres[slot])
            candidates = left[distance == distance.min()]
        chosen[slot] = rng.choice(candidates)
        free[chosen[slot]] = False
    return chosen
