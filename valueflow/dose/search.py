"""Where to steer, by what it achieves: successive halving over layers, positions and estimators.

All candidates of a rung answer the same few prompts; the better half goes on to twice as many new
ones. They compare by the change of measured intensity over the largest symmetric range of
coefficients that each bears within the same damage, never at one coefficient: a window of three
layers adds about three times as much as one layer.

References: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter
optimization".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from valueflow.dose.arms import Arm, measured
from valueflow.dose.calibrate import DAMAGE_LIMIT, Stage
from valueflow.dose.candidates import Candidate, at_layers, check_candidates, reach
from valueflow.dose.effect import Limits
from valueflow.dose.selection import NEXT_DOSES, Rung, Tried, judged, lead, next_doses
from valueflow.dose.sweep import Cell, Decoding, Grid, sweep
from valueflow.errors import InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector

FIRST_PROMPTS = 3
FIRST_DOSES = (0.15, 0.3, 0.6)
"""What is added in the first rung, in typical norms: over `reach`, the coefficients."""


@dataclass(frozen=True)
class Search:
    """A search with all that it measured.

    Attributes:
        rungs: first to last.
        winner: what was chosen, as measured in the last rung.
        vector: that vector, at its layers alone.
        lead: the winner's change minus that of the best other finalist, and the standard error of
            this difference on the same prompts; NaN without another. A negative lead is a simpler
            candidate chosen where the data do not tell the two apart.
        limits: what bounded the doses.
        decoding: with the winner's positions.
        rows: answers generated: `planned_rows` of `plan`.
        seed: of the redraws.
    """

    rungs: tuple[Rung, ...]
    winner: Tried
    vector: SteeringVector
    lead: tuple[float, float]
    limits: Limits
    decoding: Decoding
    rows: int
    seed: int


def plan(n_candidates: int, n_prompts: int, *, first: int = FIRST_PROMPTS) -> list[tuple[int, int]]:
    """(candidates, prompts) of each rung: half as many, twice as many; the last takes the rest.

    As many rungs as the prompts allow, and no more than halvings to one candidate need.

    Raises:
        InvalidInput: fewer than two candidates or first prompts, or fewer prompts than first ones.
    """
    if n_candidates < 2 or first < 2 or n_prompts < first:
        raise InvalidInput(
            f"expected 2 or more candidates, and prompts for a first rung of 2 or more: got "
            f"{n_candidates} candidates, {n_prompts} prompts, first rung {first}"
        )
    halvings = math.ceil(math.log2(n_candidates))
    n_rungs = min(halvings, int(math.log2(n_prompts / first + 1)))
    rungs, left = [], n_prompts
    for i in range(n_rungs):
        own = left if i == n_rungs - 1 else first * 2**i
        rungs.append((n_candidates, own))
        left -= own
        n_candidates = math.ceil(n_candidates / 2)
    return rungs


def planned_rows(rungs: Sequence[tuple[int, int]]) -> int:
    """Answers that the rungs of a plan take, the unsteered ones included."""
    doses = [FIRST_DOSES, *[NEXT_DOSES] * (len(rungs) - 1)]
    return sum(
        prompts * (2 * len(own) * candidates + 1)
        for (candidates, prompts), own in zip(rungs, doses, strict=True)
    )


def search(
    loaded: LoadedModel,
    vectors: Mapping[str, SteeringVector],
    candidates: Sequence[Candidate],
    evaluator: AnchorEvaluator,
    *,
    prompts: Sequence[str],
    decoding: Decoding | None = None,
    limits: Limits | None = None,
    first_prompts: int = FIRST_PROMPTS,
    batch_rows: int = 144,
    seed: int,
    stage: Stage | None = None,
) -> Search:
    """Choose where to steer by the change of intensity within the limits.

    A candidate survives a rung by its change plus one standard error, so that it is not dropped for
    being measured worse. Of the finalists the one with the largest change is chosen, unless another
    has fewer layers and lies within one standard error of the difference between the two.

    Args:
        loaded: the model.
        vectors: by estimator, with directions at all layers of the candidates.
        candidates: two or more (`valueflow.dose.candidates`).
        evaluator: measures intensities; fitted.
        prompts: in rungs as they come; disjoint from those of calibration and verification.
        decoding: None for `Decoding()`; positions are the candidates'.
        limits: None for a damage of 0.7 nats per token.
        first_prompts: of the first rung.
        batch_rows: answers per generate call, of any candidates with the same positions.
        seed: of the redraws of prompts.
        stage: progress.

    Raises:
        InvalidInput: what `plan` and `check_candidates` refuse; prompts that repeat.
        NoSignal: no text of the finalists was ranked.
        NotFitted: an evaluator without its scale.
    """
    check_candidates(candidates, vectors, loaded.n_layers)
    if len(set(prompts)) < len(prompts):
        raise InvalidInput("the search prompts repeat; every rung needs prompts of its own")
    evaluator.check_fitted()
    sizes = plan(len(candidates), len(prompts), first=first_prompts)
    setting = _Setting(
        loaded, evaluator, decoding or Decoding(), limits or Limits(DAMAGE_LIMIT), batch_rows
    )
    going = {c: at_layers(vectors[c.estimator], c.layers) for c in candidates}
    doses = {c: tuple(dose / reach(v) for dose in FIRST_DOSES) for c, v in going.items()}
    rungs: list[Rung] = []
    for i, (_, size) in enumerate(sizes):
        own, prompts = prompts[:size], prompts[size:]
        stages = _named(stage, f"rung {i + 1} of {len(sizes)}")
        arms = _measured(setting, going, doses, own, stages)
        keep = sizes[i + 1][0] if i + 1 < len(sizes) else 0
        rungs.append(judged(own, arms, setting.limits, keep=keep, seed=seed))
        going = {t.candidate: going[t.candidate] for t in rungs[-1].tried if t.kept}
        doses = {t.candidate: next_doses(t) for t in rungs[-1].tried if t.kept}
    winner = next(t for t in rungs[-1].tried if t.kept)
    return Search(
        rungs=tuple(rungs),
        winner=winner,
        vector=going[winner.candidate],
        lead=lead(rungs[-1]),
        limits=setting.limits,
        decoding=replace(setting.decoding, positions=winner.candidate.positions),
        rows=planned_rows(sizes),
        seed=seed,
    )


@dataclass(frozen=True)
class _Setting:
    """What all rungs share."""

    loaded: LoadedModel
    evaluator: AnchorEvaluator
    decoding: Decoding
    limits: Limits
    batch_rows: int


def _named(stage: Stage | None, name: str) -> Stage:
    return lambda scope: None if stage is None else stage(f"{name}, {scope}")


def _measured(
    setting: _Setting,
    going: Mapping[Candidate, SteeringVector],
    doses: Mapping[Candidate, Sequence[float]],
    prompts: Sequence[str],
    stage: Stage,
) -> dict[Candidate, Arm]:
    """Every candidate's arm; those with the same positions share generate calls."""
    grid: Grid | None = None
    for scope in dict.fromkeys(c.positions for c in going):
        own = {c.name: v for c, v in going.items() if c.positions == scope}
        cells: list[Cell] = [
            {c.name: sign * dose}
            for c in going
            if c.name in own
            for dose in doses[c]
            for sign in (-1.0, 1.0)
        ]
        # Unsteered answers are the same whatever the positions.
        found = sweep(
            setting.loaded,
            own,
            [*([{}] if grid is None else []), *cells],
            prompts,
            decoding=replace(setting.decoding, positions=scope),
            batch_rows=setting.batch_rows,
            progress=stage(scope),
        )
        grid = found if grid is None else grid.joined(found)
    assert grid is not None
    return {c: measured(grid, c.name, setting.evaluator) for c in going}
