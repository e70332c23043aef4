"""A specificity study from vectors to tables: texts, scores, matrices, side effects, a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.artifacts import write_file
from valueflow.dose.calibrate import Stage
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Decoding, Grid
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector
from valueflow.study.effects import (
    Ends,
    SideEffects,
    at_ends,
    effect_matrix,
    score_all,
    side_effects,
    slug,
    steered_texts,
)
from valueflow.study.release_plan import random_placebo
from valueflow.study.specificity import (
    EffectMatrix,
    column_spread,
    specificity_summary,
    standardised,
)
from valueflow.study.specificity_cards import card_texts, common_decoding, placebo_texts
from valueflow.study.tone import Tone


@dataclass(frozen=True, eq=False)
class SpecificityStudy:
    """What one set of vectors does to all values.

    Attributes:
        control: what was projected out of the vectors ("plain": nothing).
        raw: effects in intensity points.
        placebos: effects of random directions, or None.
        sides: per vector what else changes.
        tone_accuracy: of the measure of tone, on sentences left out of it; NaN without one.
    """

    control: str
    raw: EffectMatrix
    placebos: EffectMatrix | None
    sides: Mapping[str, SideEffects]
    tone_accuracy: float

    @property
    def standardised(self) -> EffectMatrix | None:
        """Effects in multiples of what random directions do to each value; None without them."""
        if self.placebos is None:
            return None
        return standardised(self.raw, column_spread(self.placebos))

    def only(self, values: Sequence[str]) -> "SpecificityStudy":
        """The study of some values alone, among each other."""
        placebos = self.placebos
        if placebos is not None:
            columns = [placebos.values.index(value) for value in values]
            placebos = EffectMatrix(placebos.vectors, tuple(values), placebos.by_prompt[:, columns])
        raw = self.raw.only(values)
        sides = {value: self.sides[value] for value in raw.vectors}
        return SpecificityStudy(self.control, raw, placebos, sides, self.tone_accuracy)

    def to_dict(self, *, seed: int) -> dict[str, Any]:
        """As plain JSON, None for what was not measured."""
        found: dict[str, Any] = {
            "control": self.control,
            "raw": specificity_summary(self.raw, seed=seed),
            "sides": {value: asdict(side) for value, side in self.sides.items()},
            "tone_accuracy": self.tone_accuracy,
        }
        if self.placebos is not None:
            found["placebos"] = len(self.placebos.vectors)
            found["spread"] = column_spread(self.placebos).tolist()
            scaled = standardised(self.raw, column_spread(self.placebos))
            found["standardised"] = specificity_summary(scaled, seed=seed)
        return _plain(found)


def specificity_study(
    loaded: LoadedModel,
    vectors: Mapping[str, SteeringVector],
    ends: Ends,
    evaluators: Mapping[str, AnchorEvaluator],
    *,
    prompts: Sequence[str],
    folder: str | Path,
    control: str = "plain",
    n_placebos: int = 8,
    decoding: Decoding | None = None,
    tone: Tone | None = None,
    seed: int,
    stage: Stage | None = None,
) -> SpecificityStudy:
    """Generate, score and compare.

    Args:
        loaded: the model.
        vectors: by value id; `valueflow.study.nuisance.controlled` makes the variants.
        ends: per vector the coefficients compared, by value id.
        evaluators: by value id, the columns.
        prompts: asked of all.
        folder: where texts and scores are kept; a second run, or another control, goes on there.
        control: name of the variant; part of the files' names.
        n_placebos: random directions, at the median ends; 0 for none, else two or more.
        decoding: None for `Decoding()`.
        tone: the measure of tone; None to leave it out.
        seed: of the random directions.
        stage: progress.

    Raises:
        InvalidInput: no vectors, a single placebo, or as `steered_texts`.
        StaleArtifact: the folder is of another run.
    """
    if not vectors:
        raise InvalidInput("a study of specificity needs vectors, got none")
    if n_placebos == 1:
        raise InvalidInput("n_placebos: expected 0 or at least 2, as a spread needs; got 1")
    folder = Path(folder)
    given: dict[str, Any] = {"prompts": prompts, "decoding": decoding, "stage": stage}
    named = {f"{control}/{value}": vector for value, vector in vectors.items()}
    own_ends = {f"{control}/{value}": ends[value] for value in vectors if value in ends}
    grids = steered_texts(loaded, named, own_ends, folder=folder / "texts", **given)
    grids = {name.partition("/")[2]: grid for name, grid in grids.items()}
    like = next(iter(vectors.values()))
    random = {
        f"random/{draw}": random_placebo(like, seed=seed + draw) for draw in range(n_placebos)
    }
    middle = median_ends([ends[value] for value in vectors])
    placebos = steered_texts(
        loaded, random, dict.fromkeys(random, middle), folder=folder / "texts", **given
    )
    return study_of_texts(
        grids, placebos, evaluators, folder=folder, control=control, tone=tone, stage=stage
    )


def study_of_release(
    cards: Sequence[Card],
    evaluators: Mapping[str, AnchorEvaluator],
    *,
    work: str | Path,
    folder: str | Path,
    tone: Tone | None = None,
    stage: Stage | None = None,
) -> SpecificityStudy:
    """The same from the texts that `build_release` kept: nothing is generated.

    Effects are between the outermost coefficients swept within each card's usable range, those of
    random placebos between the outermost swept within the median of the ranges. A vector's dose may
    thus differ from the placebos': in standardised effects that is a common factor per row, which
    leaves the order within a row alone.

    Raises:
        ArtifactError: the work folder lacks a card's sweep.
        StaleArtifact: its texts are of another model, vector or decoding than a card; names it.
        InvalidInput: no cards, cards of different decoding, or one whose usable range holds no
            coefficients on both sides of 0.
    """
    common_decoding(cards)
    grids = {
        card.value: at_ends(card_texts(card, work), card.curve.usable_range_) for card in cards
    }
    middle = median_ends([card.curve.usable_range_ for card in cards])
    base = next(iter(grids.values())).at([1])
    placebos = {
        f"random/{name}": at_ends(base.joined(grid), middle)
        for name, grid in placebo_texts(cards, work, base.prompts).items()
    }
    return study_of_texts(
        grids, placebos, evaluators, folder=Path(folder), control="plain", tone=tone, stage=stage
    )


def study_of_texts(
    grids: Mapping[str, Grid],
    placebos: Mapping[str, Grid],
    evaluators: Mapping[str, AnchorEvaluator],
    *,
    folder: Path,
    control: str,
    tone: Tone | None,
    stage: Stage | None = None,
) -> SpecificityStudy:
    """Scores, matrices and side effects of texts at low, unsteered and high."""
    values = list(evaluators)
    scores = score_all(grids, evaluators, folder=folder / "scores" / slug(control), stage=stage)
    random = None
    if len(placebos) > 1:
        kept = folder / "scores" / "random"
        random = effect_matrix(score_all(placebos, evaluators, folder=kept, stage=stage), values)
    sides = {value: side_effects(grid, tone) for value, grid in grids.items()}
    accuracy = float("nan") if tone is None else tone.accuracy
    return SpecificityStudy(control, effect_matrix(scores, values), random, sides, accuracy)


def median_ends(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Medians of the lower and of the upper ends."""
    low, high = np.median(np.array(ranges, dtype=float), axis=0).tolist()
    return low, high


def write_study(study: SpecificityStudy, folder: str | Path, *, title: str, seed: int) -> None:
    """Write `<control>.json`, and the pictures of raw and standardised effects."""
    from valueflow.study.specificity_plot import draw_effects

    folder, name = Path(folder), slug(study.control)
    text = json.dumps(study.to_dict(seed=seed), indent=1, allow_nan=False)
    write_file(folder / f"{name}.json", f"{text}\n".encode())
    draw_effects(study.raw, folder / f"{name}.png", title=title)
    scaled = study.standardised
    if scaled is not None:
        draw_effects(scaled, folder / f"{name}-standardised.png", title=title)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
