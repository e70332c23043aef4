"""The logistic probe, and estimators in whitened activations.

A direction has two uses that whitening takes apart. To *read* is to weigh activations, w . x; to
*steer* is to move them, x + c v. With noise of covariance S (texts of one pole, within ladders) and
z = S^-1/2 x, weights u of z are the weights S^-1/2 u of x, but a step u of z is the step S^1/2 u of
x. So one direction of the whitened space has two images, which differ by a factor S: reading
weights lean away from axes that are noisy anyway, steps lean towards them. Of the difference of
means, the image that reads is Fisher's discriminant and the one that steers the difference of means
itself. `lda` and `logistic` are weights; `mean_difference` and `pca` are steps.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.steering.graded import Estimator, Graded, grade, unit

PENALTIES = tuple(10.0**k for k in (0.5, 2.0, 3.5, 5.0))
"""Weight of the mean log loss against half the squared weights, at a mean square norm of 1."""
FOLDS = 3


def logistic(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
) -> Float[Tensor, " hidden"]:
    """Weights of a logistic regression of pole (supporting or opposing), ridge, unit, fp32.

    The ridge is the one of `PENALTIES` whose weights hold the poles of left-out ladders farthest
    apart (d', 3 folds). Log loss would not do: where the poles do not overlap it asks for the
    weakest ridge, whose weights hang on the few texts nearest the boundary. No chance enters:
    ladders are dealt to folds in the order of their ids. In a tie the
    stronger ridge counts, and with a single ladder the strongest, which in the limit gives the
    difference of means. The result reads; as a step see `whitened`.

    Raises:
        InvalidInput: as `mean_difference`.

    References:
        Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes".
    """
    graded = grade(activations, intensities, ladders)
    reduced = _Reduced.of(graded)
    weights = _fit(reduced.rows, reduced.high, _best_penalty(reduced))
    return unit(reduced.basis @ torch.from_numpy(weights))


def whitened(estimator: Estimator, *, to: Literal["steer", "read"]) -> Estimator:
    """The estimator in activations whose noise is white, its direction mapped back.

    Args:
        estimator: any of `ESTIMATORS`.
        to: "steer" maps a direction of the whitened space as a step, with S^1/2; "read" as
            weights, with S^-1/2. S is the Ledoit-Wolf covariance of texts within the poles.

    Returns:
        An estimator. Without any noise it is the one given.

    References:
        Haufe et al. 2014, "On the interpretation of weight vectors of linear models in multivariate
        neuroimaging": a classifier's weights are no pattern of what it finds.
    """

    def estimate(
        activations: Float[Tensor, "texts hidden"],
        intensities: Float[Tensor, " texts"],
        ladders: Sequence[str],
    ) -> Float[Tensor, " hidden"]:
        graded = grade(activations, intensities, ladders)
        root = noise_root(graded)
        inverse = torch.linalg.inv(root)
        # Numbers for names: only which texts belong together matters, and the ladders' order.
        names = [f"{number:08}" for number in graded.group.tolist()]
        found = estimator(graded.centred @ inverse, graded.intensities, names).double()
        return unit({"steer": root, "read": inverse}[to] @ found)

    return estimate


def noise_root(graded: Graded) -> Float[Tensor, "hidden hidden"]:
    """S^1/2, symmetric, of the noise within the poles (Ledoit-Wolf); the identity without noise."""
    from sklearn.covariance import ledoit_wolf

    residuals = graded.residuals()
    if not residuals.any():
        return torch.eye(residuals.shape[1], dtype=torch.float64)
    covariance, _ = ledoit_wolf(residuals.numpy(), assume_centered=True)
    variances, axes = torch.linalg.eigh(torch.from_numpy(covariance))
    # What is no more than the rounding of fp32 activations is no noise.
    variances = variances.clamp(min=1e-12 * float(graded.centred.square().mean()))
    return (axes * variances.sqrt()) @ axes.T


class _Reduced(NamedTuple):
    """The texts of both poles in the space they span, where ridge regression loses nothing."""

    rows: Float[np.ndarray, "poles span"]
    high: Bool[np.ndarray, " poles"]
    group: Int[np.ndarray, " poles"]
    basis: Float[Tensor, "hidden span"]

    @classmethod
    def of(cls, graded: Graded) -> "_Reduced":
        poles = graded.high | graded.low
        rows = graded.centred[poles]
        scale = rows.square().sum(1).mean().sqrt()
        unit(graded.difference())  # Refuses poles that do not differ.
        left, strengths, axes = torch.linalg.svd(rows / scale, full_matrices=False)
        rows = (left * strengths).numpy()
        return cls(rows, graded.high[poles].numpy(), graded.group[poles].numpy(), axes.T)


def _best_penalty(data: _Reduced) -> float:
    """The one of `PENALTIES` whose weights tell left-out ladders' poles apart best."""
    if data.group.max() == 0:
        return PENALTIES[0]
    return PENALTIES[int(_held_out_effects(data).argmax())]


def _held_out_effects(data: _Reduced) -> Float[np.ndarray, " penalties"]:
    """Per penalty d' between the poles of ladders that the weights were not learned from."""
    along = np.zeros((len(PENALTIES), len(data.rows)))
    fold = data.group % min(FOLDS, int(data.group.max()) + 1)
    for left_out in np.unique(fold):
        train, test = fold != left_out, fold == left_out
        for i, penalty in enumerate(PENALTIES):
            weights = _fit(data.rows[train], data.high[train], penalty)
            along[i, test] = data.rows[test] @ weights / max(float(np.linalg.norm(weights)), 1e-300)
    high, low = along[:, data.high], along[:, ~data.high]
    spread = np.sqrt((high.var(axis=1) + low.var(axis=1)) / 2)
    return (high.mean(axis=1) - low.mean(axis=1)) / np.maximum(spread, 1e-300)


def _fit(
    rows: Float[np.ndarray, "texts span"], high: Bool[np.ndarray, " texts"], penalty: float
) -> Float[np.ndarray, " span"]:
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    # Newton: exact to rounding, so that neither the order of rows nor a rotation shows.
    model = LogisticRegression(
        C=penalty / len(rows), solver="newton-cholesky", tol=1e-6, max_iter=200
    )
    with config_context(assume_finite=True):
        return model.fit(rows, high).coef_[0]
