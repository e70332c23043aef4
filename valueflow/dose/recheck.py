"""Whether a card reproduces: other prompts, another seed, and the intervals that it promised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from valueflow.dose.arms import intensities_of
from valueflow.dose.inverse import Unreachable
from valueflow.dose.prediction import noise_of, prediction_interval
from valueflow.dose.stale import check_evaluator, check_model, check_vector
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Grid, Progress, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel


@dataclass(frozen=True)
class Rechecked:
    """One target of one card, measured again.

    Attributes:
        value: id.
        target: intensity asked for.
        coefficient: used.
        promised: interval that the card gives for the mean of this many new prompts.
        achieved: mean intensity; NaN if no text was ranked.
        inside: whether it lies in the interval.
        n_prompts: texts that were ranked.
    """

    value: str
    target: float
    coefficient: float
    promised: tuple[float, float]
    achieved: float
    inside: bool
    n_prompts: int


def recheck(
    loaded: LoadedModel,
    card: Card,
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    targets: Sequence[float] | None = None,
    n_targets: int = 7,
    progress: Progress | None = None,
) -> tuple[list[Rechecked], Grid]:
    """Ask for targets on prompts that the card has not seen; the texts come along.

    Args:
        loaded: the model.
        card: what is checked.
        evaluator: of the same judge and panel; with a seed of its own.
        prompts: two or more, none of them used for the card.
        targets: reachable ones; None for `spread_targets`.
        n_targets: how many of those.
        progress: of generation.

    Raises:
        StaleArtifact: another model, vector, layer set, judge or panel; names the field.
        InvalidInput: a prompt was used for the card, or a target is out of reach.
    """
    check_model(card.value, card.provenance, loaded)
    check_vector(card.value, card.provenance, card.vector)
    check_evaluator(card.value, card.provenance, evaluator)
    used = used_prompts(card) & set(prompts)
    if used or len(prompts) < 2:
        raise InvalidInput(
            f"prompt {sorted(used)[0]!r} was used for the card of {card.value}; check on others"
            if used
            else f"a check needs two or more prompts, got {len(prompts)}"
        )
    wanted = spread_targets(card, n_targets) if targets is None else list(targets)
    doses = [card.curve.inverse(target) for target in wanted]
    for dose in doses:
        if isinstance(dose, Unreachable):
            raise InvalidInput(
                f"{card.value} {dose.target:+.1f} is out of reach: {dose.lowest:+.2f} to "
                f"{dose.highest:+.2f}"
            )
    cells = [{"vector": dose.coefficient} for dose in doses]
    grid = sweep(
        loaded,
        {"vector": card.vector},
        cells,
        prompts,
        decoding=card.decoding,
        progress=progress,
    )
    table, _ = intensities_of(evaluator, grid, range(len(cells)))
    return [_row(card, dose, row) for dose, row in zip(doses, table, strict=True)], grid


def spread_targets(card: Card, n_targets: int) -> list[float]:
    """Intensities evenly over the card's reachable range, its ends left out.

    The ends are where a coefficient cannot be moved further: nobody asks for them exactly.
    """
    low, high = sorted(float(x) for x in np.asarray(card.curve.predict(card.curve.usable_range_)))
    inner = np.linspace(low, high, n_targets + 2)[1:-1]
    return [float(x) for x in inner]


def used_prompts(card: Card) -> set[str]:
    """Prompts that the card was calibrated or verified on."""
    known: Any = card.provenance.get("prompts", [])
    return {*known, *card.measured.get("verified_on", [])}


def share_inside(rows: Sequence[Rechecked]) -> float:
    """Share of targets whose achieved intensity lay in the promised interval; NaN for none."""
    return float(np.mean([row.inside for row in rows])) if rows else float("nan")


def _row(card: Card, dose: Any, intensities: np.ndarray) -> Rechecked:
    own = intensities[np.isfinite(intensities)]
    achieved = float(own.mean()) if len(own) else float("nan")
    low, high = prediction_interval(
        card.curve, float(dose.coefficient), max(len(own), 1), noise=noise_of(card.measured)
    )
    return Rechecked(
        card.value,
        dose.target,
        float(dose.coefficient),
        (low, high),
        achieved,
        bool(low <= achieved <= high),
        len(own),
    )
