"""Which windows are to be ranked next: the first ones of a new text, and the most telling ones."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from valueflow.artifacts import write_file
from valueflow.errors import InvalidInput
from valueflow.ranking.windows import cross_windows, group_windows
from valueflow.vidb.schema import Ladder, RankingRecord, bounded_lines, window_of

if TYPE_CHECKING:
    from valueflow.vidb.store import Vidb

WINDOW_SIZE = 5


@dataclass(frozen=True)
class PlannedWindow:
    """A window that waits for its ranking.

    Attributes:
        window: id, unique within a value: `theory/value/w0001`.
        kind: as `RankingRecord.kind`.
        shown: text ids in the order to be shown.
    """

    window: str
    kind: str
    shown: tuple[str, ...]


def connected_windows(
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord] = (),
    *,
    size: int = WINDOW_SIZE,
    per_text: int = 5,
    repeat_share: float = 0.1,
    rng: np.random.Generator,
) -> list[PlannedWindow]:
    """What is missing so that every ladder is ranked and its texts are tied to the others.

    Each ladder that has none gets its own window; cross-ladder windows follow until each text is in
    `per_text` of them (so it meets (size - 1) * per_text texts of other ladders); then windows are
    shown again, in another order, until `repeat_share` of all windows are. Windows that tie their
    texts only to each other, not to most ladders, do not count. Values are planned one by one, in
    whatever order ladders and records come; with everything there, nothing is planned.

    Raises:
        InvalidInput: fewer ladders of a value than `size`, a share outside [0, 1].
    """
    if not 0 <= repeat_share <= 1:
        raise InvalidInput(f"repeat_share is a share, from 0 to 1; got {repeat_share}")
    planned: list[PlannedWindow] = []
    for value in sorted({ladder.value for ladder in ladders}):
        own = _of(value, ladders)
        known = [r for r in records if r.shown[0].startswith(f"{value}/")]
        planned += _connected(value, own, known, size, per_text, repeat_share, rng)
    return planned


def random_windows(
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord] = (),
    *,
    n: int,
    size: int = WINDOW_SIZE,
    rng: np.random.Generator,
) -> list[PlannedWindow]:
    """`n` windows per value of texts of different ladders, every set of ladders as likely.

    Raises:
        InvalidInput: fewer ladders of a value than `size`.
    """
    planned: list[PlannedWindow] = []
    for value in sorted({ladder.value for ladder in ladders}):
        own = _of(value, ladders)
        _check_ladders(value, len(own), size)
        shown = []
        for _ in range(n):
            chosen = rng.choice(len(own), size, replace=False)
            shown.append(
                [own[i].text_id(int(rng.integers(1, len(own[i].rungs) + 1))) for i in chosen]
            )
        planned += _numbered(value, [("cross", tuple(ids)) for ids in shown], _last(records, value))
    return planned


def adaptive_windows(
    vidb: "Vidb",
    records: Sequence[RankingRecord] = (),
    *,
    n: int,
    size: int = WINDOW_SIZE,
    rng: np.random.Generator,
) -> list[PlannedWindow]:
    """`n` windows per value where rankings tell most: large errors, and orders in doubt.

    A window is seeded by a text drawn with probability proportional to its squared standard error;
    the others are drawn among texts of other ladders by how open the order is: a pair with
    difference d and joint error s weighs s^2 exp(-d^2 / (2 (s^2 + 1))), so neighbours on the scale
    come first, and those that are well known last. Errors of texts that were drawn count less from
    then on, as if that window had been ranked.

    Raises:
        InvalidInput: fewer ladders of a value than `size`, or texts without a standard error.
    """
    planned: list[PlannedWindow] = []
    for value in vidb.values:
        frame = vidb.of(value).frame.sort_values("id")
        ids = frame["id"].tolist()
        ladders, groups = np.unique(frame["ladder"].to_numpy(dtype=object), return_inverse=True)
        _check_ladders(value, len(ladders), size)
        intensity = frame["intensity"].to_numpy(dtype=np.float64)
        variance = frame["stderr"].to_numpy(dtype=np.float64) ** 2
        if not (np.isfinite(variance) & (variance > 0)).all():
            raise InvalidInput(f"{value}: texts without standard errors; build from rankings first")
        met = np.maximum(frame["comparisons"].to_numpy(dtype=np.float64), 1.0)
        shown = []
        for _ in range(n):
            chosen = _doubtful(intensity, variance, groups, size, rng)
            variance[chosen] *= met[chosen] / (met[chosen] + size - 1)
            met[chosen] += size - 1
            shown.append(("cross", tuple(ids[i] for i in rng.permutation(chosen))))
        planned += _numbered(value, shown, _last(records, value))
    return planned


def write_plan(planned: Sequence[PlannedWindow], path: str | Path) -> None:
    """Write JSON lines; the file appears whole or not at all."""
    lines = [
        json.dumps({"window": p.window, "kind": p.kind, "shown": list(p.shown)}) for p in planned
    ]
    write_file(Path(path), "".join(f"{line}\n" for line in lines).encode())


def read_plan(path: str | Path) -> list[PlannedWindow]:
    """The windows that `write_plan` wrote, checked.

    Raises:
        InvalidInput: names file and line.
    """
    return [PlannedWindow(*window_of(where, row)) for where, row in bounded_lines(Path(path))]


def _connected(
    value: str,
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord],
    size: int,
    per_text: int,
    repeat_share: float,
    rng: np.random.Generator,
) -> list[PlannedWindow]:
    ids = [ladder.text_id(rung) for ladder in ladders for rung in range(1, len(ladder.rungs) + 1)]
    groups = [ladder.id for ladder in ladders for _ in ladder.rungs]
    ranked = {r.shown[0].rsplit("/", 1)[0] for r in records if r.kind == "ladder"}
    fresh = [i for i, group in enumerate(groups) if group not in ranked]
    shown = [
        ("ladder", tuple(ids[fresh[i]] for i in window))
        for window in group_windows([groups[i] for i in fresh], rng=rng)
    ]
    so_far = _so_far(ids, groups, records)
    if min(so_far) < per_text:
        _check_ladders(value, len(ladders), size)
        cross = cross_windows(groups, size=size, per_item=per_text, so_far=so_far, rng=rng)
        shown += [("cross", tuple(ids[i] for i in window)) for window in cross]
    planned = _numbered(value, shown, _last(records, value))
    return planned + _repeats(planned, records, repeat_share, rng)


def _so_far(
    ids: Sequence[str], groups: Sequence[str], records: Sequence[RankingRecord]
) -> list[int]:
    """Cross-ladder windows each text is in; 0 for those of ladders on an island."""
    position = {text_id: i for i, text_id in enumerate(ids)}
    windows = [
        [position[text_id] for text_id in r.shown if text_id in position]
        for r in records
        if r.kind == "cross"
    ]
    counts = np.bincount([i for w in windows for i in w], minlength=len(ids))
    names, ladder = np.unique(groups, return_inverse=True)
    # The rungs of a ladder are tied by its own window, ranked or planned, so ladders are the nodes.
    ties = np.array([(ladder[w[0]], ladder[i]) for w in windows for i in w], dtype=int)
    ones, shape = np.ones(len(ties)), (len(names), len(names))
    graph = coo_array((ones, ties.reshape(-1, 2).T), shape)
    island = connected_components(graph, directed=False)[1][ladder]
    return np.where(island == np.bincount(island).argmax(), counts, 0).tolist()


def _repeats(
    planned: Sequence[PlannedWindow],
    records: Sequence[RankingRecord],
    share: float,
    rng: np.random.Generator,
) -> list[PlannedWindow]:
    """Windows shown again, new ones and old ones alike, none of them twice."""
    again = {r.window for r in records if r.kind == "repeat"}
    once = {r.window: r.shown for r in records if r.kind in ("ladder", "cross")}
    once |= {p.window: p.shown for p in planned}
    left = sorted(window for window in once if window not in again)
    # 0.07 * 100 is a little more than 7, and 7 windows are enough.
    wanted = min(math.ceil(share * len(once) - 1e-9) - len(again), len(left))
    chosen = rng.choice(len(left), max(wanted, 0), replace=False)
    return [
        PlannedWindow(left[i], "repeat", _another_order(once[left[i]], rng)) for i in sorted(chosen)
    ]


def _another_order(shown: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    order = shown
    while order == shown:
        order = tuple(rng.permutation(shown).tolist())
    return order


def _doubtful(
    intensity: np.ndarray,
    variance: np.ndarray,
    groups: np.ndarray,
    size: int,
    rng: np.random.Generator,
) -> list[int]:
    chosen = [int(rng.choice(len(intensity), p=variance / variance.sum()))]
    while len(chosen) < size:
        joint = variance + variance[chosen[0]]
        gap = intensity - intensity[chosen[0]]
        weight = joint * np.exp(-(gap**2) / (2 * (joint + 1.0)))
        # Never 0 for a text that is allowed, or a small value could leave nobody to draw.
        weight = np.maximum(weight, 1e-12) * ~np.isin(groups, groups[chosen])
        chosen.append(int(rng.choice(len(weight), p=weight / weight.sum())))
    return chosen


def _numbered(
    value: str, shown: Sequence[tuple[str, tuple[str, ...]]], last: int
) -> list[PlannedWindow]:
    return [
        PlannedWindow(f"{value}/w{last + i:04d}", kind, ids)
        for i, (kind, ids) in enumerate(shown, start=1)
    ]


def _last(records: Sequence[RankingRecord], value: str) -> int:
    """The highest window number of a value so far; 0 before the first."""
    numbers = [r.window.rpartition("/w") for r in records if r.window.startswith(f"{value}/w")]
    return max((int(n) for _, _, n in numbers if n.isdecimal()), default=0)


def _of(value: str, ladders: Sequence[Ladder]) -> list[Ladder]:
    """The value's ladders, always in one order, so that a seed means the same for any input."""
    return sorted((lad for lad in ladders if lad.value == value), key=lambda lad: lad.id)


def _check_ladders(value: str, n_ladders: int, size: int) -> None:
    if size < 2:
        raise InvalidInput(f"a window shows two texts or more, got size {size}")
    if n_ladders < size:
        raise InvalidInput(
            f"{value}: windows of {size} texts of different ladders need {size} ladders or more, "
            f"got {n_ladders}"
        )
