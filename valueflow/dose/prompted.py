"""Instructions measured like vectors: levels in the place of coefficients.

This module does not know how instructions are worded: it is given the formatted prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from valueflow.dose.arms import Arm, measured
from valueflow.dose.sweep import Decoding, Grid, Progress, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel

Asked = Mapping[int, Sequence[str]]
"""Level -> every prompt under the instruction for that level, formatted; 0 is not among them."""


def prompt_arms(
    loaded: LoadedModel,
    asked: Mapping[str, Asked],
    evaluator: AnchorEvaluator,
    *,
    unsteered: Grid,
    decoding: Decoding,
    second: AnchorEvaluator | None = None,
    progress: Progress | None = None,
) -> dict[str, Arm]:
    """The arm of each set of instructions; its `coefficients` are levels.

    Args:
        loaded: the model, unsteered.
        asked: by name the formatted prompts of each level.
        evaluator: measures intensities; fitted.
        unsteered: one cell, the answers without an instruction, which are every arm's level 0;
            its prompts are those of `asked`.
        decoding: as the unsteered answers were made.
        second: another evaluator that confirms the direction.
        progress: called with rows done and all rows.

    Raises:
        InvalidInput: a level 0, or not one formatted text per prompt.
    """
    cells = [(name, level) for name, levels in asked.items() for level in levels]
    if any(level == 0 for _, level in cells):
        raise InvalidInput("level 0 is no instruction: its answers are the unsteered ones")
    grid = unsteered
    if cells:
        found = sweep(
            loaded,
            {},
            [{}] * len(cells),
            unsteered.prompts,
            asked=[asked[name][level] for name, level in cells],
            decoding=decoding,
            progress=progress,
        )
        named = tuple({name: float(level)} for name, level in cells)
        grid = unsteered.joined(replace(found, cells=named))
    return {name: measured(grid, name, evaluator, second) for name in asked}


def merged(first: Arm, other: Arm) -> Arm:
    """The coefficients of two arms over the same prompts in one; those of both are the first's."""
    arms = (first, other)
    source = {c: (arm, i) for arm in reversed(arms) for i, c in enumerate(arm.coefficients)}
    order = sorted(source)
    rows = [source[c] for c in order]
    second = None
    if first.second is not None and other.second is not None:
        second = tuple(arm.second[i] for arm, i in rows if arm.second is not None)
    return Arm(
        coefficients=tuple(order),
        intensities=np.stack([arm.intensities[i] for arm, i in rows]),
        damage=np.stack([arm.damage[i] for arm, i in rows]),
        degenerate=tuple(arm.degenerate[i] for arm, i in rows),
        outside=tuple(arm.outside[i] for arm, i in rows),
        second=second,
        texts=tuple(arm.texts[i] for arm, i in rows),
    )
