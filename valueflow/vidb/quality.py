"""How good a database is, by value: what `valueflow vidb check` prints and insists on."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.vidb.build import build
from valueflow.vidb.schema import N_RUNGS, Ladder, RankingRecord
from valueflow.vidb.store import Vidb

if TYPE_CHECKING:
    import pandas as pd

Embed = Callable[[Sequence[str]], Float[np.ndarray, "texts width"]]
"""Unit-length embeddings of texts."""

MIN_SHARE = 0.12
MIN_HELD_OUT = 0.95
MAX_COSINE = 0.95
MAX_ZERO = 1.0
MIN_SIGNS = 0.95


@dataclass(frozen=True)
class ValueQuality:
    """What one value's texts and rankings are worth.

    Attributes:
        value: id.
        texts: number of texts.
        ladders: number of ladders.
        shares: of the texts in each fifth of [-10, 10], lowest first.
        zero: mean intensity of the middle rungs; the median is 0 by construction.
        signs: share of rungs 1, 2 below 0 and 4, 5 above.
        stderr: median standard error.
        retest: share of pairs that windows shown again order alike; of windows that another ranker
            ranked again where there are any, else of all; NaN without any.
        retest_pairs: their number.
        other_reader: whether those windows were ranked again by another ranker.
        first_first: share of windows whose first-shown text was ranked first; an unbiased reader
            has 1 / size.
        order_bias: by how many standard errors that differs from chance.
        held_out: share of a ladder's pairs that cross-ladder windows alone order as written; NaN
            where those do not tie all texts together, or no ladder is in the splits.
        near_duplicates: pairs of texts of different ladders with a cosine above `MAX_COSINE`; None
            where nothing was embedded.
    """

    value: str
    texts: int
    ladders: int
    shares: tuple[float, ...]
    zero: float
    signs: float
    stderr: float
    retest: float
    retest_pairs: int
    other_reader: bool
    first_first: float
    order_bias: float
    held_out: float
    near_duplicates: tuple[tuple[str, str], ...] | None

    @property
    def problems(self) -> tuple[str, ...]:
        """What falls short, in words; empty if nothing does."""
        found = []
        if min(self.shares) < MIN_SHARE:
            found.append(f"only {min(self.shares):.0%} of the texts in one fifth of the scale")
        if abs(self.zero) > MAX_ZERO:
            found.append(f"middle rungs are at {self.zero:+.1f} on average, not near 0")
        if self.signs < MIN_SIGNS:
            found.append(f"only {self.signs:.0%} of the leaning rungs have the sign they should")
        if np.isnan(self.held_out):
            found.append("cross-ladder windows alone do not tell the order of rungs")
        elif self.held_out < MIN_HELD_OUT:
            found.append(f"cross-ladder windows order {self.held_out:.0%} of rung pairs as written")
        if self.near_duplicates:
            pair = " and ".join(self.near_duplicates[0])
            found.append(f"{len(self.near_duplicates)} near-duplicates across ladders, e.g. {pair}")
        return tuple(found)


def quality(
    vidb: Vidb,
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord],
    *,
    embed: Embed | None = None,
    splits: Sequence[str] = ("validation", "test"),
) -> list[ValueQuality]:
    """Measure every value of a built database.

    Args:
        vidb: as built from `ladders` and `records`.
        ladders: the texts.
        records: the rankings.
        embed: for near-duplicates; None leaves them out.
        splits: the ladders that `held_out` is measured on.

    Raises:
        InvalidInput: a value of the database without ladders.
    """
    return [
        _one(
            value,
            vidb.of(value),
            [ladder for ladder in ladders if ladder.value == value],
            [record for record in records if record.shown[0].startswith(f"{value}/")],
            embed,
            splits,
        )
        for value in vidb.values
    ]


def _one(
    value: str,
    vidb: Vidb,
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord],
    embed: Embed | None,
    splits: Sequence[str],
) -> ValueQuality:
    if not ladders:
        raise InvalidInput(f"{value} is in the database but has no ladders")
    frame = vidb.frame
    intensity, rung = frame["intensity"].to_numpy(float), frame["rung"].to_numpy(int)
    side = np.sign(rung - (N_RUNGS + 1) // 2)
    counts, _ = np.histogram(intensity, bins=5, range=(-10.0, 10.0))
    agree, pairs, other = _retest(records)
    first, bias = _order_bias(records)
    return ValueQuality(
        value=value,
        texts=len(frame),
        ladders=len(ladders),
        shares=tuple((counts / len(frame)).tolist()),
        zero=float(intensity[side == 0].mean()),
        signs=float((np.sign(intensity) == side)[side != 0].mean()),
        stderr=float(np.median(frame["stderr"])),
        retest=agree,
        retest_pairs=pairs,
        other_reader=other,
        first_first=first,
        order_bias=bias,
        held_out=_held_out(ladders, records, splits),
        near_duplicates=None if embed is None else _near_duplicates(frame, embed),
    )


def _retest(records: Sequence[RankingRecord]) -> tuple[float, int, bool]:
    once = {r.window: r for r in records if r.kind in ("ladder", "cross")}
    again = [(once[r.window], r) for r in records if r.kind == "repeat" and r.window in once]
    # A reader who saw both copies may only have remembered the first.
    independent = [(a, b) for a, b in again if a.ranker != b.ranker]
    alike = [
        (a.order.index(x) < a.order.index(y)) == (b.order.index(x) < b.order.index(y))
        for a, b in independent or again
        for x, y in itertools.combinations(a.order, 2)
    ]
    return (float(np.mean(alike)) if alike else float("nan")), len(alike), bool(independent)


def _order_bias(records: Sequence[RankingRecord]) -> tuple[float, float]:
    """Share of first-shown texts ranked first, and its distance from chance in standard errors."""
    won = np.array([r.order[0] == r.shown[0] for r in records], dtype=float)
    chance = np.array([1.0 / len(r.shown) for r in records])
    if not len(won):
        return float("nan"), float("nan")
    spread = float(np.sqrt((chance * (1 - chance)).sum()))
    return float(won.mean()), float((won - chance).sum() / spread)


def _held_out(
    ladders: Sequence[Ladder], records: Sequence[RankingRecord], splits: Sequence[str]
) -> float:
    """Rungs in the order written, by a fit that saw no window of a single ladder."""
    within = {r.window for r in records if r.kind == "ladder"}
    cross = [r for r in records if r.window not in within]
    try:
        frame = build(ladders, cross)
    except InvalidInput:
        return float("nan")  # cross-ladder windows do not tie all texts together
    own = frame.loc[frame["split"].isin(splits)]
    right = [
        low < high
        for _, ladder in own.sort_values("rung").groupby("ladder")
        for low, high in itertools.combinations(ladder["intensity"], 2)
    ]
    return float(np.mean(right)) if right else float("nan")


def _near_duplicates(frame: "pd.DataFrame", embed: Embed) -> tuple[tuple[str, str], ...]:
    ids, ladders = frame["id"].tolist(), frame["ladder"].to_numpy(dtype=object)
    vectors = embed(frame["text"].tolist())
    alike = np.triu(vectors @ vectors.T > MAX_COSINE, k=1) & (ladders[:, None] != ladders[None])
    return tuple((ids[i], ids[j]) for i, j in np.argwhere(alike))
