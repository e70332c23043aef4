"""Texts and rankings in, intensities out.

One Plackett-Luce fit per value over all its ranking records gives positions in logits; a monotone
map takes them to [-10, 10] with 0 at the middle rungs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput
from valueflow.ranking.plackett_luce import fit
from valueflow.vidb.schema import N_RUNGS, Ladder, RankingRecord

if TYPE_CHECKING:
    import pandas as pd

RIDGE = 0.05
"""Precision of the prior on positions: a top text has never lost, and needs one to be finite."""

COLUMNS = (
    "id", "value", "ladder", "rung", "register", "scenario", "context", "text",
    "intensity", "stderr", "comparisons", "source", "licence", "split",
)  # fmt: skip


def build(
    ladders: Sequence[Ladder],
    records: Sequence[RankingRecord],
    *,
    source: str = "valueflow starter",
    licence: str = "CC BY 4.0",
) -> "pd.DataFrame":
    """The database of the values in `ladders`: one row per text, deterministic.

    Columns are `COLUMNS`: intensity and stderr on [-10, 10] (0 = the median middle rung of the
    value, +-10 the limit of the scale), comparisons = other texts it was ranked against, counted
    with repetition.

    Raises:
        InvalidInput: no ladders, or one twice; a record names a text that no ladder has; a value
            without rankings; a text that no ranking connects to the others of its value.
    """
    import pandas as pd

    values = sorted({ladder.value for ladder in ladders})
    _check(ladders, records, values)
    parts = []
    for value in values:
        own = [ladder for ladder in ladders if ladder.value == value]
        frame = _texts(own)
        position = {text_id: row for row, text_id in enumerate(frame["id"])}
        ranked = _effective(
            [r for r in records if r.shown[0].startswith(f"{value}/")], position, value
        )
        theta, stderr = _positions(ranked, len(frame), value, frame["id"].tolist())
        zero = float(np.median(theta[frame["rung"] == (N_RUNGS + 1) // 2]))
        unit = _unit(theta - zero, frame["rung"].to_numpy())
        frame["intensity"], frame["stderr"] = to_intensity(theta - zero, stderr, unit)
        frame["comparisons"] = np.bincount(
            [i for r in ranked for i in r for _ in r[1:]], minlength=len(frame)
        )
        parts.append(frame.assign(source=source, licence=licence))
    return none_for_missing(pd.concat(parts, ignore_index=True).loc[:, list(COLUMNS)])


def _check(
    ladders: Sequence[Ladder], records: Sequence[RankingRecord], values: Sequence[str]
) -> None:
    if not ladders:
        raise InvalidInput("a database needs ladders, got none")
    repeated = [ladder_id for ladder_id, n in Counter(lad.id for lad in ladders).items() if n > 1]
    if repeated:
        raise InvalidInput(f"ladder {repeated[0]} is there twice; ids are unique over all files")
    stems = tuple(f"{value}/" for value in values)
    for record in records:
        if not record.shown[0].startswith(stems):
            raise InvalidInput(
                f"window {record.window}: text {record.shown[0]!r} is in no ladder of "
                f"{', '.join(values)}"
            )


def none_for_missing(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The frame with None for a missing context; pandas' own NaN would be truthy, and no text."""
    context = frame["context"].astype(object)
    return frame.assign(context=context.where(context.notna(), None))


def to_intensity(
    theta: NDArray[np.float64], stderr: NDArray[np.float64], unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (zero = neutral) as intensities 10 tanh(theta / unit), errors by the delta method.

    The map is strictly increasing, odd, and close to linear in the middle; it flattens where
    positions are known only by the prior.
    """
    squashed = np.tanh(theta / unit)
    return 10.0 * squashed, 10.0 * (1.0 - squashed**2) * stderr / unit


def _unit(theta: NDArray[np.float64], rung: NDArray[np.int64]) -> float:
    """The unit that puts the typical extreme rung (1 and 5, in magnitude) at 8."""
    extreme = np.abs(theta[(rung == 1) | (rung == N_RUNGS)])
    return float(np.median(extreme) / np.arctanh(0.8))


def _texts(ladders: Sequence[Ladder]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "id": ladder.text_id(rung),
                "value": ladder.value,
                "ladder": ladder.id,
                "rung": rung,
                "register": ladder.register,
                "scenario": ladder.scenario,
                "context": ladder.context,
                "text": text,
                "split": ladder.split,
            }
            for ladder in ladders
            for rung, text in enumerate(ladder.rungs, start=1)
        ]
    )


def _effective(
    records: Sequence[RankingRecord], position: dict[str, int], value: str
) -> list[tuple[int, ...]]:
    """Rankings as row numbers; a window that was reviewed counts by its review alone."""
    reviewed = {r.window for r in records if r.kind == "review"}
    kept = [r for r in records if r.kind == "review" or r.window not in reviewed]
    if not kept:
        raise InvalidInput(f"{value}: no rankings; rank its windows first")
    for record in kept:
        unknown = [text_id for text_id in record.order if text_id not in position]
        if unknown:
            raise InvalidInput(
                f"window {record.window}: text {unknown[0]!r} is in no ladder of {value}"
            )
    return [tuple(position[text_id] for text_id in record.order) for record in kept]


def _positions(
    rankings: list[tuple[int, ...]], n_texts: int, value: str, ids: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    fitted = fit(rankings, n_texts, ridge=RIDGE)
    loose = [ids[i] for i, s in enumerate(fitted.status) if s in ("unseen", "disconnected")]
    if loose:
        raise InvalidInput(
            f"{value}: {len(loose)} texts are not connected to the others by any ranking, "
            f"first {loose[0]}; rank windows that hold them"
        )
    if not fitted.converged:
        raise InvalidInput(f"{value}: the Plackett-Luce fit did not converge")
    return fitted.theta, fitted.stderr
