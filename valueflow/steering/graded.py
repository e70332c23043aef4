"""Graded activations, ready to be contrasted: what every estimator of a direction starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.steering.contrasts import POLE

Estimator = Callable[
    [Float[Tensor, "texts hidden"], Float[Tensor, " texts"], Sequence[str]],
    Float[Tensor, " hidden"],
]
"""(activations, intensities, ladders) -> a unit vector that points from opposition to support."""


@dataclass(frozen=True, eq=False)
class Graded:
    """Texts of two-poled ladders with the ladders' means taken away, fp64.

    Attributes:
        centred: activations less their ladder's mean.
        intensities: as the database has them.
        high: which texts support.
        low: which texts oppose; texts near neutral are neither.
        group: number of each text's ladder, ladders in the order of their ids.
    """

    centred: Float[Tensor, "texts hidden"]
    intensities: Float[Tensor, " texts"]
    high: Bool[Tensor, " texts"]
    low: Bool[Tensor, " texts"]
    group: Int[Tensor, " texts"]

    def difference(self) -> Float[Tensor, " hidden"]:
        """Mean of the supporting texts minus mean of the opposing ones."""
        return self.centred[self.high].mean(0) - self.centred[self.low].mean(0)

    def differences(self) -> Float[Tensor, "pairs hidden"]:
        """Every supporting text minus every opposing one of the same ladder."""
        together = self.group[self.high][:, None] == self.group[self.low]
        high, low = together.nonzero(as_tuple=True)
        return self.centred[self.high][high] - self.centred[self.low][low]

    def by_ladder(self) -> Float[Tensor, "ladders hidden"]:
        """The difference of the poles' means within each ladder."""
        return self._pole(self.high) - self._pole(self.low)

    def _pole(self, members: Bool[Tensor, " texts"]) -> Float[Tensor, "ladders hidden"]:
        group = self.group[members]
        count = torch.bincount(group, minlength=int(self.group.max()) + 1)
        total = self.centred.new_zeros(len(count), self.centred.shape[1])
        return total.index_add_(0, group, self.centred[members]) / count[:, None]

    def residuals(self) -> Float[Tensor, "texts hidden"]:
        """The texts of both poles less their class's mean and what is linear in the intensity."""
        rows, graded = [], []
        for members in (self.high, self.low):
            rows.append(self.centred[members] - self.centred[members].mean(0))
            graded.append(self.intensities[members] - self.intensities[members].mean())
        residual, spread = torch.cat(rows), torch.cat(graded)
        # A strong and a mild supporter differ by the value, which is no noise.
        slope = (spread @ residual) / (spread @ spread).clamp(min=1e-12)
        return residual - spread[:, None] * slope


def two_poled(intensities: Float[Tensor, " texts"], ladders: Sequence[str]) -> set[str]:
    """The ladders that have both a supporting and an opposing text."""
    graded = list(zip(intensities.tolist(), ladders, strict=True))
    supporting = {ladder for intensity, ladder in graded if intensity > POLE}
    return supporting & {ladder for intensity, ladder in graded if intensity < -POLE}


def grade(
    activations: Float[Tensor, "texts hidden"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
) -> Graded:
    """The texts of ladders that have both poles, centred within each.

    Raises:
        InvalidInput: lengths differ, or no ladder has both poles.
    """
    if not len(activations) == len(intensities) == len(ladders):
        raise InvalidInput(
            f"{len(activations)} activations, {len(intensities)} intensities and {len(ladders)} "
            "ladders; expected as many of each"
        )
    names = sorted(two_poled(intensities, ladders))
    if not names:
        raise InvalidInput(
            f"none of the {len(set(ladders))} ladders has both a text above {POLE} and one below "
            f"-{POLE}: there is nothing to contrast"
        )
    number = {name: i for i, name in enumerate(names)}
    group = torch.tensor([number.get(ladder, -1) for ladder in ladders])
    keep = group >= 0
    group, graded, rows = group[keep], intensities[keep].double(), activations[keep].double()
    totals = rows.new_zeros(len(names), rows.shape[1]).index_add_(0, group, rows)
    means = totals / torch.bincount(group)[:, None]
    return Graded(rows - means[group], graded, graded > POLE, graded < -POLE, group)


def unit(vector: Float[Tensor, " hidden"]) -> Float[Tensor, " hidden"]:
    """The vector at length 1, fp32.

    Raises:
        InvalidInput: it is zero or not finite.
    """
    norm = vector.norm()
    if not bool(norm > 0) or not bool(norm.isfinite()):
        raise InvalidInput(
            "supporting and opposing texts do not differ in these activations "
            "(or a number is not finite): no direction"
        )
    return (vector / norm).float()
