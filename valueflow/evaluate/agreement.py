"""How an evaluator does on texts that others graded."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput, NoSignal, UnknownName
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.theories import get_value
from valueflow.typing import Item

GAP = 3.0


@dataclass(frozen=True)
class Agreement:
    """Pairs of texts that are ordered as their grades say.

    Attributes:
        value: id.
        texts: graded texts.
        pairs: those whose grades are more than the gap apart.
        right: of them, ordered alike; half for a pair measured equal. A pair with a text that was
            not ranked counts as a half too: no order is known.
        unranked: texts without a measurement.
    """

    value: str
    texts: int
    pairs: int
    right: float
    unranked: int

    @property
    def share(self) -> float:
        """Right pairs of all; NaN where no pair is far enough apart."""
        return self.right / self.pairs if self.pairs else float("nan")


def agreement(
    evaluator: AnchorEvaluator,
    items: Sequence[Item],
    grades: Sequence[float],
    *,
    gap: float | int = GAP,
) -> Agreement:
    """Score the items and compare all pairs whose grades differ by more than `gap`.

    A text outside the panel counts with `Intensity.central`.

    Raises:
        InvalidInput: not as many grades as items.
    """
    if len(items) != len(grades):
        raise InvalidInput(f"{len(items)} texts but {len(grades)} grades")
    measured = np.array([score.central for score in evaluator.score(items)], dtype=np.float64)
    right, pairs = ordered_pairs(np.asarray(grades, dtype=np.float64), measured, gap=gap)
    unranked = int(np.isnan(measured).sum())
    return Agreement(evaluator.panel.value, len(items), pairs, right, unranked)


def ordered_pairs(
    grades: Float[np.ndarray, " texts"],
    measured: Float[np.ndarray, " texts"],
    *,
    gap: float | int = GAP,
) -> tuple[float, int]:
    """Pairs ordered alike (equal or NaN: half) among those more than `gap` apart, and their number.

    Examples: for grades (0, 5, 9) and gap 3, measured (1, 2, 0) has one of three pairs right.
    """
    far = grades[:, None] - grades[None, :] > gap
    difference = measured[:, None] - measured[None, :]
    credit = np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))
    return float(credit[far].sum()), int(far.sum())


def total(found: Sequence[Agreement], *, value: str = "all") -> Agreement:
    """Several values together, every pair counting the same."""
    return Agreement(
        value,
        sum(a.texts for a in found),
        sum(a.pairs for a in found),
        sum((a.right for a in found), 0.0),
        sum(a.unranked for a in found),
    )


def read_graded(path: str | Path) -> dict[str, tuple[list[Item], list[float]]]:
    """Graded texts by value from JSON: `{value: {bin: [{"text", "intensity"}]}}` or without bins.

    Raises:
        InvalidInput: names the file and the place: not JSON, an unknown value, a text that is
            empty or a grade that is no finite number.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"{path}: not JSON in UTF-8 ({error})") from None
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: expected an object with values as keys")
    found: dict[str, tuple[list[Item], list[float]]] = {}
    for name, rows in data.items():
        try:
            value = get_value(name).id
        except (UnknownName, InvalidInput) as error:
            raise InvalidInput(f"{path}: {error}") from None
        items, grades = found.setdefault(value, ([], []))
        bins = rows.items() if isinstance(rows, dict) else [("", rows)]
        for label, own in bins:
            for number, row in enumerate(own):
                item, grade = _row(f"{path}: {name} {label} {number}", row)
                items.append(item)
                grades.append(grade)
    return found


def compare(
    graded: dict[str, tuple[list[Item], list[float]]],
    evaluator_of: Callable[[str], AnchorEvaluator],
    *,
    gap: float | int = GAP,
    progress: Callable[[int, int], None] | None = None,
) -> list[Agreement]:
    """`agreement` of each value, by the evaluator that `evaluator_of` gives for it.

    Where that raises `NoSignal`, nothing is measured: all texts are unranked, all pairs a half.
    """
    found = []
    for done, (value, (items, grades)) in enumerate(graded.items(), start=1):
        try:
            found.append(agreement(evaluator_of(value), items, grades, gap=gap))
        except NoSignal:
            nothing = np.full(len(items), np.nan)
            right, pairs = ordered_pairs(np.array(grades, dtype=np.float64), nothing, gap=gap)
            found.append(Agreement(value, len(items), pairs, right, len(items)))
        if progress is not None:
            progress(done, len(graded))
    return found


def _row(where: str, row: Any) -> tuple[Item, float]:
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"{where}: expected a 'text', got {row!r:.60}")
    grade = row.get("intensity")
    if isinstance(grade, bool) or not isinstance(grade, int | float) or not np.isfinite(grade):
        raise InvalidInput(f"{where}: 'intensity' must be a number, got {grade!r}")
    return Item(text, row.get("context")), float(grade)
