"""One value on the bench: any setting of it, answered and judged on any prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from valueflow.dose.arms import intensities_of
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Progress, sweep
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.study.instructions import Instructor, Tried
from valueflow.study.ways import Setting

PLACEBO = "placebo "
"""Before the form of an instruction in a `Setting`: words without values, as many tokens."""


@dataclass(frozen=True)
class Cell:
    """Answers to all prompts in one setting.

    Attributes:
        setting: how they were made.
        intensities: of each prompt's answer, NaN where unranked, shape (prompts,).
        damage: nats per token above the unsteered answer, both after the plain prompt, (prompts,).
        degenerate: empty or looping, (prompts,).
        texts: the answers.
    """

    setting: Setting
    intensities: Float[np.ndarray, " prompts"]
    damage: Float[np.ndarray, " prompts"]
    degenerate: Bool[np.ndarray, " prompts"]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """What answers are made and judged with.

    Attributes:
        loaded: the model.
        card: of the value; the vector "value" of settings, and the decoding.
        evaluator: measures intensities; fitted.
        instructor: of the value.
        chosen: by kind the instruction that "levels" and "texts" of settings stand for.
        seed: of the random directions "random 1" and so on.
    """

    loaded: LoadedModel
    card: Card
    evaluator: AnchorEvaluator
    instructor: Instructor
    chosen: Mapping[str, Tried]
    seed: int

    def cells(
        self,
        settings: Sequence[Setting],
        prompts: Sequence[str],
        *,
        unsteered: Float[np.ndarray, " prompts"] | None = None,
        progress: Progress | None = None,
    ) -> tuple[Cell, ...]:
        """Every setting on the prompts, in one sweep.

        Args:
            settings: at least one.
            prompts: user messages.
            unsteered: loss of each prompt's unsteered answer; None where the first setting is the
                unsteered one.
            progress: called with rows done and all rows.
        """
        grid = sweep(
            self.loaded,
            self._vectors(settings),
            [{s.vector: s.coefficient} if s.vector else {} for s in settings],
            prompts,
            asked=self._given(settings, prompts),
            decoding=self.card.decoding,
            progress=progress,
        )
        zero = grid.nll[0] if unsteered is None else unsteered
        table, _ = intensities_of(self.evaluator, grid, range(len(settings)))
        return tuple(
            Cell(s, table[i], grid.nll[i] - zero, grid.degenerate[i], grid.texts[i])
            for i, s in enumerate(settings)
        )

    def _vectors(self, settings: Sequence[Setting]) -> dict[str, SteeringVector]:
        drawn = sorted({s.vector for s in settings} - {"", "value"})
        own = self.card.vector
        return {"value": own} | {
            name: random_like(own, seed=self.seed + i) for i, name in enumerate(drawn)
        }

    def _given(self, settings: Sequence[Setting], prompts: Sequence[str]) -> list[list[str]]:
        made: dict[tuple[str, int], list[str]] = {}
        for form, level in {(s.form, s.level) for s in settings}:
            kind = form.removeprefix(PLACEBO)
            own = self.chosen[kind].form if kind else None
            placebo = form.startswith(PLACEBO)
            made[form, level] = self.instructor.given(own, level, prompts, placebo=placebo)
        return [made[s.form, s.level] for s in settings]
