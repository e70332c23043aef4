"""Which candidates of a search go on and which one is chosen, noise minded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from valueflow.dose.arms import Arm
from valueflow.dose.candidates import Candidate
from valueflow.dose.effect import Effect, Limits, effect_within, resampled_changes
from valueflow.errors import NoSignal

NEXT_DOSES = (0.6, 1.2)
"""Of the largest bearable coefficient that the rung before found: they bracket it."""
N_BOOTSTRAP = 200


@dataclass(frozen=True)
class Tried:
    """One candidate in one rung.

    Attributes:
        candidate: what was tried.
        arm: all that was measured of it.
        effect: its change within the limits.
        stderr: of the change, from redrawing the prompts.
        best: share of the redraws in which no other candidate of the rung does better.
        kept: whether it went on; in the last rung, whether it was chosen.
    """

    candidate: Candidate
    arm: Arm
    effect: Effect
    stderr: float
    best: float
    kept: bool


@dataclass(frozen=True)
class Rung:
    """Candidates on the same prompts, which no other rung has, the largest change first.

    Attributes:
        prompts: of this rung alone.
        tried: its candidates.
        redrawn: their changes when the prompts are redrawn, the same draws for all.
    """

    prompts: tuple[str, ...]
    tried: tuple[Tried, ...]
    redrawn: Float[np.ndarray, "replicates tried"]


def judged(
    prompts: Sequence[str], arms: Mapping[Candidate, Arm], limits: Limits, *, keep: int, seed: int
) -> Rung:
    """What the arms show and which candidates go on.

    Args:
        prompts: of the rung, two or more.
        arms: what was measured on them.
        limits: what bounds the doses.
        keep: how many go on, by change plus one standard error; 0 chooses one instead.
        seed: of the redraws.

    Raises:
        NoSignal: one is to be chosen, and no text was ranked.
    """
    effects = [effect_within(arm, limits) for arm in arms.values()]
    redrawn = resampled_changes(list(arms.values()), limits, n_bootstrap=N_BOOTSTRAP, seed=seed)
    known = np.where(np.isfinite(redrawn), redrawn, -np.inf)
    best = np.bincount(known.argmax(axis=1), minlength=len(arms)) / len(known)
    stderrs = _stderrs(redrawn, len(prompts))
    changes = np.array([e.change for e in effects])
    # Stable, so that of equals the one given first goes first.
    order = np.argsort(-np.where(np.isfinite(changes), changes, -np.inf), kind="stable")
    if keep:
        hopes = np.where(np.isfinite(changes), changes + stderrs, -np.inf)
        kept = set(np.argsort(-hopes, kind="stable")[:keep].tolist())
    else:
        kept = {_choice(list(arms), changes, redrawn, order, len(prompts))}
    given = list(arms.items())
    ranks: list[int] = order.tolist()
    tried = tuple(
        Tried(*given[i], effects[i], float(stderrs[i]), float(best[i]), i in kept) for i in ranks
    )
    return Rung(tuple(prompts), tried, redrawn[:, order])


def _choice(
    candidates: Sequence[Candidate],
    changes: Float[np.ndarray, " candidates"],
    redrawn: Float[np.ndarray, "replicates candidates"],
    order: NDArray[np.int_],
    n_prompts: int,
) -> int:
    """The largest change, or what has fewer layers within one standard error of it."""
    first = int(order[0])
    if not np.isfinite(changes[first]):
        raise NoSignal("no text of the finalists was ranked; there is nothing to choose by")
    behind = changes[first] - changes
    errors = _stderrs(redrawn[:, [first]] - redrawn, n_prompts)
    near = [i for i in order.tolist() if i == first or behind[i] < errors[i]]
    return min(near, key=lambda i: len(candidates[i].layers))


def _stderrs(
    redrawn: Float[np.ndarray, "replicates candidates"], n_prompts: int
) -> Float[np.ndarray, " candidates"]:
    """Bootstrap standard errors with the variance divided by n - 1 prompts; NaN without any."""
    counts = np.isfinite(redrawn).sum(axis=0)
    means = np.nansum(redrawn, axis=0) / np.maximum(counts, 1)
    squares = np.nansum((redrawn - means) ** 2, axis=0) / np.maximum(counts - 1, 1)
    return np.where(counts > 1, np.sqrt(squares * n_prompts / (n_prompts - 1)), np.nan)


def next_doses(tried: Tried) -> tuple[float, ...]:
    """Coefficients around the largest bearable one; further out where no limit was met."""
    end = tried.effect.coefficient if tried.effect.bounded else 1.5 * tried.arm.coefficients[-1]
    return tuple(share * end for share in NEXT_DOSES)


def lead(rung: Rung) -> tuple[float, float]:
    """The chosen one's change above the best other's, and the error of this difference."""
    chosen = next(i for i, t in enumerate(rung.tried) if t.kept)
    others = [i for i in range(len(rung.tried)) if i != chosen]
    if not others:
        return float("nan"), float("nan")
    other = others[0]
    ahead = rung.tried[chosen].effect.change - rung.tried[other].effect.change
    difference = rung.redrawn[:, [chosen]] - rung.redrawn[:, [other]]
    return ahead, float(_stderrs(difference, len(rung.prompts))[0])
