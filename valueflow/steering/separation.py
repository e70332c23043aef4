"""How well scores tell supporting texts from opposing ones, with intervals over ladders."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.steering.contrasts import POLE
from valueflow.steering.graded import grade

DRAWS = 1000


@dataclass(frozen=True)
class AUC:
    """Probability that a supporting text scores above an opposing one; chance 0.5, a tie half.

    Attributes:
        estimate: over all pairs of the texts.
        low: 2.5% quantile over ladders drawn with replacement.
        high: 97.5% quantile.
        ladders: how many ladders the texts are of.
    """

    estimate: float
    low: float
    high: float
    ladders: int


class Separation(NamedTuple):
    """How far a direction holds the poles of unseen ladders apart, scenarios taken away.

    Attributes:
        effect: d', difference of the poles' mean projections in units of their common standard
            deviation; negative where they lie the wrong way round. NaN without any spread.
        auc: share of pairs (supporting, opposing) of all ladders in order; a tie counts half.
    """

    effect: float
    auc: float


def separation(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
    direction: Float[Tensor, " hidden"],
) -> Separation:
    """Separation of texts along a direction learned elsewhere; ladders' own means are taken away.

    Raises:
        InvalidInput: lengths differ, or no ladder has both poles.
    """
    graded = grade(activations, intensities, ladders)
    position = graded.centred @ direction.double()
    high, low = position[graded.high], position[graded.low]
    spread = math.sqrt(float(high.var(correction=0) + low.var(correction=0)) / 2)
    effect = float(high.mean() - low.mean()) / spread if spread > 0 else math.nan
    above = (high[:, None] - low).sign().mean()
    return Separation(effect, float((above + 1) / 2))


def auc(
    scores: Float[Tensor, " texts"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
    *,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> AUC:
    """AUC of scores as they are, texts of different ladders compared too.

    Texts near neutral are left out. The interval is a bootstrap over whole ladders, as the texts
    of one are no independent witnesses; resamples that lack a pole are left out.

    Raises:
        InvalidInput: lengths differ, a score that is not finite, or a pole without texts.
    """
    if not len(scores) == len(intensities) == len(ladders):
        raise InvalidInput(
            f"{len(scores)} scores, {len(intensities)} intensities and {len(ladders)} ladders; "
            "expected as many of each"
        )
    if not bool(scores.isfinite().all()):
        raise InvalidInput("expected finite scores, got some that are not")
    names = sorted(set(ladders))
    number = {name: i for i, name in enumerate(names)}
    group = torch.tensor([number[ladder] for ladder in ladders], dtype=torch.long)
    wins, pairs = _tables(scores.double(), intensities, group, len(names))
    if pairs.sum() == 0:
        raise InvalidInput(f"expected texts above {POLE} and below -{POLE}; a pole has none")
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    total = np.einsum("di,ij,dj->d", counts, pairs, counts, optimize=True)
    won = np.einsum("di,ij,dj->d", counts, wins, counts, optimize=True)
    low, high = np.quantile(won[total > 0] / total[total > 0], [0.025, 0.975])
    return AUC(float(wins.sum() / pairs.sum()), float(low), float(high), len(names))


def _tables(
    scores: Float[Tensor, " texts"],
    intensities: Float[Tensor, " texts"],
    group: Int[Tensor, " texts"],
    n_ladders: int,
) -> tuple[Float[np.ndarray, "ladders ladders"], Float[np.ndarray, "ladders ladders"]]:
    """Wins and pairs between supporting texts of one ladder (row) and opposing ones of another."""
    high, low = intensities > POLE, intensities < -POLE
    order = ((scores[high][:, None] - scores[low]).sign() + 1) / 2
    one_hot = torch.eye(n_ladders, dtype=torch.float64)
    rows, columns = one_hot[group[high]], one_hot[group[low]]
    return (rows.T @ order @ columns).numpy(), (rows.T @ torch.ones_like(order) @ columns).numpy()
