"""What was measured of one vector: intensities, damage and texts at several coefficients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.dose.sweep import Grid
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.typing import Item


@dataclass(frozen=True)
class Arm:
    """Measurements of one vector at several coefficients, on the same prompts.

    Attributes:
        coefficients: shape (n,).
        intensities: (n, prompts), `Intensity.central` of each text; NaN where unranked.
        damage: nats per token above the same prompt's unsteered answer, (n, prompts).
        degenerate: share of empty or looping texts, (n,).
        outside: share of texts outside the panel, (n,).
        second: mean score of the confirming judge at each coefficient, or None.
        texts: (n, prompts).
    """

    coefficients: tuple[float, ...]
    intensities: Float[np.ndarray, "n prompts"]
    damage: Float[np.ndarray, "n prompts"]
    degenerate: tuple[float, ...]
    outside: tuple[float, ...]
    second: tuple[float, ...] | None
    texts: tuple[tuple[str, ...], ...]

    @property
    def means(self) -> Float[np.ndarray, " n"]:
        """Mean intensity at each coefficient; NaN where no text was ranked."""
        return row_means(self.intensities)

    def change(self, lower: float, upper: float) -> float:
        """Mean intensity at `upper` minus at `lower`, on the least-squares line between them.

        The line makes the change of a placebo no larger for having been measured at more points;
        the spread of its means would be.
        """
        x, y = np.array(self.coefficients), self.means
        inside = (x >= lower) & (x <= upper) & np.isfinite(y)
        if inside.sum() < 2:
            return float("nan")
        return float(np.polyfit(x[inside], y[inside], 1)[0] * (upper - lower))


def measured(
    grid: Grid, name: str, evaluator: AnchorEvaluator, second: AnchorEvaluator | None = None
) -> Arm:
    """The arm of one vector of a sweep that has an unsteered cell, which all its arms share."""
    zero = next(i for i, cell in enumerate(grid.cells) if not any(cell.values()))
    rows = [i for i, cell in enumerate(grid.cells) if name in cell and i != zero] + [zero]
    rows.sort(key=lambda i: grid.cells[i].get(name, 0.0))
    intensities, outside = intensities_of(evaluator, grid, rows)
    return Arm(
        coefficients=tuple(grid.cells[i].get(name, 0.0) for i in rows),
        intensities=intensities,
        damage=grid.nll[rows] - grid.nll[zero],
        degenerate=tuple(grid.degenerate[rows].mean(axis=1).tolist()),
        outside=tuple(outside),
        second=None
        if second is None
        else tuple(row_means(intensities_of(second, grid, rows)[0]).tolist()),
        texts=tuple(grid.texts[i] for i in rows),
    )


def row_means(table: Float[np.ndarray, "n prompts"]) -> Float[np.ndarray, " n"]:
    """Mean of each row's numbers; NaN for a row without one."""
    counts = np.isfinite(table).sum(axis=1)
    return np.where(counts > 0, np.nansum(table, axis=1) / np.maximum(counts, 1), np.nan)


def intensities_of(
    evaluator: AnchorEvaluator, grid: Grid, rows: Sequence[int]
) -> tuple[Float[np.ndarray, "rows prompts"], list[float]]:
    """Intensities of the rows' texts, and per row the share of them outside the panel."""
    table, outside = [], []
    for row in rows:
        items = [Item(t, p) for t, p in zip(grid.texts[row], grid.prompts, strict=True)]
        scored = evaluator.score(items)
        table.append([s.central for s in scored])
        outside.append(float(np.mean([s.status in ("above_panel", "below_panel") for s in scored])))
    return np.array(table, dtype=np.float64), outside
