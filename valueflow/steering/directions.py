"""Directions from graded activations, and how well they hold on scenarios not seen.

Every estimator first takes away each ladder's own mean, so that what a scenario is about cannot
pass for a signal, and uses only ladders that have both a supporting and an opposing text.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.registry import Registry
from valueflow.steering.activations import Activations
from valueflow.steering.contrasts import Contrast
from valueflow.steering.estimators import logistic, whitened
from valueflow.steering.graded import Estimator, Graded, grade, two_poled, unit

ESTIMATORS: Registry[Estimator] = Registry("estimator")
FAR_APART = 3.0
"""Texts further apart than this are expected to be told apart (agreement counts no others)."""


class LayerScore(NamedTuple):
    """How well a direction orders texts of ladders it was not learned from.

    Attributes:
        agreement: share of within-ladder pairs more than 3 apart that the projection orders as the
            intensities do; a tie counts half. Chance 0.5.
        effect_size: d', the difference between the mean projections of supporting and opposing
            texts, in units of their common standard deviation (within ladders). Chance 0.
    """

    agreement: float
    effect_size: float


def mean_difference(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
) -> Float[Tensor, " hidden"]:
    """Mean of the supporting texts minus mean of the opposing ones, fp32 unit vector.

    Raises:
        InvalidInput: lengths differ, no ladder has both poles, or the poles do not differ.

    References:
        Rimsky et al. 2024, "Steering Llama 2 via Contrastive Activation Addition", section 3.
    """
    graded = grade(activations, intensities, ladders)
    return unit(graded.difference())


def pca(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
) -> Float[Tensor, " hidden"]:
    """First principal axis of the within-ladder differences (supporting - opposing), unit, fp32.

    The differences are not centred: their mean is the signal. The sign is such that most of them
    project above 0; in a tie, such that their mean does. Where some other axis varies more than the
    value, this finds that axis.

    Raises:
        InvalidInput: as `mean_difference`.

    References:
        Zou et al. 2023, "Representation Engineering", section 3.1 (LAT), without its random signs.
    """
    graded = grade(activations, intensities, ladders)
    differences = graded.differences()
    axis = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    projections = differences @ axis
    majority = projections.sign().sum()
    if (majority if majority != 0 else projections.sum()) < 0:
        axis = -axis
    return unit(axis if differences.any() else torch.zeros_like(axis))


def lda(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
) -> Float[Tensor, " hidden"]:
    """Fisher's discriminant with a shrunk covariance, S^-1 (mean high - mean low), unit, fp32.

    S is the Ledoit-Wolf estimate of the covariance within the two classes, of what intensity does
    not account for. The result is the axis that reads the value best; it leans away from axes that
    vary for other reasons, and so is in general not the axis along which supporting and opposing
    texts differ most.

    Raises:
        InvalidInput: as `mean_difference`.

    References:
        Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance
        matrices".
    """
    from scipy.linalg import solve
    from sklearn.covariance import ledoit_wolf

    graded = grade(activations, intensities, ladders)
    residuals = graded.residuals()
    if not residuals.any():
        return unit(graded.difference())
    covariance, _ = ledoit_wolf(residuals.numpy(), assume_centered=True)
    weights = solve(covariance, graded.difference().numpy(), assume_a="pos")
    return unit(torch.from_numpy(weights))


for _estimator in (mean_difference, pca, lda, logistic):
    ESTIMATORS.add(_estimator.__name__, _estimator)
ESTIMATORS.add("whitened_pca", whitened(pca, to="steer"))
ESTIMATORS.add("whitened_logistic", whitened(logistic, to="steer"))


def held_out_score(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
    estimator: Estimator,
    *,
    folds: int = 5,
    rng: np.random.Generator,
) -> LayerScore:
    """Cross-validated score of an estimator; a ladder is in the training or the test part as one.

    Ladders without both poles are left out. With fewer ladders than folds, each is a fold.

    Raises:
        InvalidInput: lengths differ, or fewer than two ladders (or folds) to learn from and test.
    """
    grade(activations, intensities, ladders)
    kept = sorted(two_poled(intensities, ladders))
    folds = min(folds, len(kept))
    if folds < 2:
        raise InvalidInput(
            f"cross-validation needs 2 folds and 2 ladders with both poles or more, got {folds} "
            f"folds and {len(kept)} ladders"
        )
    fold_of = {kept[i]: place % folds for place, i in enumerate(rng.permutation(len(kept)))}
    place = torch.tensor([fold_of.get(ladder, -1) for ladder in ladders])
    projections = torch.zeros(len(place), dtype=torch.float64)
    for fold in range(folds):
        train = (place >= 0) & (place != fold)
        names = [ladder for ladder, use in zip(ladders, train.tolist(), strict=True) if use]
        direction = estimator(activations[train], intensities[train], names)
        projections[place == fold] = activations[place == fold].double() @ direction.double()
    return _score(grade(projections[:, None], intensities, ladders))


def choose_layer(
    activations: Activations,
    contrasts: Sequence[Contrast],
    *,
    estimator: Estimator,
    candidates: Sequence[int] | None = None,
    rng: np.random.Generator,
) -> tuple[int, dict[int, LayerScore]]:
    """The layer whose direction separates held-out ladders best, and the scores of all tried.

    Best is the highest effect size, in a tie the earlier layer. All layers see the same folds.
    That a layer separates well does not yet mean that steering it works.

    Args:
        activations: one row per contrast.
        contrasts: what the rows are.
        estimator: one of `ESTIMATORS`, or any such function.
        candidates: layers to try; None for those of `middle_layers` that were read.
        rng: deals the ladders to folds.

    Raises:
        InvalidInput: a candidate that was not read, no candidate, or too few ladders.
    """
    read = activations.by_layer
    if candidates is None:
        candidates = [layer for layer in middle_layers(activations.n_layers) if layer in read]
    missing = sorted(set(candidates) - set(read))
    if missing or not candidates:
        raise InvalidInput(f"layers {missing or 'to try'}: none such among those read {list(read)}")
    intensities, ladders = labels(contrasts)
    seed = int(rng.integers(2**63))
    scores = {
        layer: held_out_score(
            read[layer], intensities, ladders, estimator, rng=np.random.default_rng(seed)
        )
        for layer in sorted(set(candidates))
    }
    return max(scores, key=lambda layer: scores[layer].effect_size), scores


def middle_layers(n_layers: int) -> list[int]:
    """The layers between a quarter and three quarters of the depth, ends included."""
    return [i for i in range(n_layers) if n_layers <= 4 * i <= 3 * n_layers] or [0]


def labels(contrasts: Sequence[Contrast]) -> tuple[Float[Tensor, " texts"], list[str]]:
    """Intensities and ladder ids of contrasts, as the estimators take them."""
    intensities = torch.tensor([contrast.intensity for contrast in contrasts], dtype=torch.float32)
    return intensities, [contrast.ladder for contrast in contrasts]


def _score(projected: Graded) -> LayerScore:
    position = projected.centred[:, 0]
    together = projected.group[:, None] == projected.group
    above = projected.intensities[:, None] - projected.intensities > FAR_APART
    order = (position[:, None] - position)[together & above].sign()
    high, low = position[projected.high], position[projected.low]
    spread = math.sqrt(float(high.var(correction=0) + low.var(correction=0)) / 2)
    difference = float(high.mean() - low.mean())
    # Without any spread d' has no bound; the largest float keeps it a number that JSON can hold.
    largest = float(torch.finfo(torch.float32).max)
    effect = difference / spread if spread > 0 else math.copysign(largest, difference)
    return LayerScore(float((order.mean() + 1) / 2), effect if difference else 0.0)
