"""What an intervention does to the residual stream of one layer: hold components, add, keep length.

Backends call a `Plan` with what a layer gives and which tokens are in scope; the arithmetic is here
and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from valueflow.errors import InvalidInput

# Directions count as dependent if a unit combination of them is shorter than this.
_DEPENDENT = 1e-6
# Almost parallel directions held at different values would need a shift that drowns the stream.
_LONGEST_SHIFT = 1e3


@dataclass(frozen=True, eq=False)
class Plan:
    """One layer's intervention, made ready: `plan(hidden, scope)` is the stream it becomes.

    A token h of row r becomes `h - (h @ axes[r].T) @ axes[r] + shift[r]`, and where `keep_norm[r]`
    that is scaled to the length of h. Rows that do nothing, and tokens out of scope, come back bit
    for bit. Without axes and `keep_norm` it is an addition in the stream's own precision;
    otherwise it is worked out in fp32 (fp64 for an fp64 stream) and rounded to the stream's once.

    Attributes:
        shift: shape (rows, hidden), fp32, what is added. One row serves every row of a batch.
        axes: shape (rows, axes, hidden), fp32: an orthonormal basis of what is taken out of each
            row, filled up with zeros; None where no row has anything taken out.
        keep_norm: shape (rows,): whose tokens keep their length; None for none. A token that the
            intervention makes zero stays zero.
    """

    shift: Float[Tensor, "rows hidden"]
    axes: Float[Tensor, "rows axes hidden"] | None = None
    keep_norm: Bool[Tensor, " rows"] | None = None
    _ready: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """How many rows it is for; 1 serves a batch of any size."""
        return self.shift.shape[0]

    def repeated(self, copies: int) -> "Plan":
        """The plan for `copies` consecutive batch rows per row (beams, returned sequences)."""
        if copies == 1 or self.rows == 1:
            return self
        parts = {name: getattr(self, name) for name in ("shift", "axes", "keep_norm")}
        longer = {
            name: None if part is None else part.repeat_interleave(copies, dim=0)
            for name, part in parts.items()
        }
        return replace(self, **longer, _ready={})

    def __call__(
        self,
        hidden: Float[Tensor, "batch tokens hidden"],
        scope: Bool[Tensor, "batch tokens"] | bool = True,
    ) -> Float[Tensor, "batch tokens hidden"]:
        """The stream after the intervention, a new tensor of the same dtype on the same device.

        `scope` marks the tokens it acts on; True and False stand for all and none. With False the
        stream itself is returned.
        """
        if scope is False:
            return hidden
        key = (hidden.device, hidden.dtype)
        if key not in self._ready:
            # Once per device: under a device map every layer has its own.
            self._ready[key] = self._prepared(*key)
        changed = self._ready[key](hidden)
        return changed if scope is True else torch.where(scope[:, :, None], changed, hidden)

    def _prepared(self, device: torch.device, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        if self.axes is None and self.keep_norm is None:
            addition = self.shift.to(device, dtype)[:, None, :]
            return lambda hidden: hidden + addition
        precision = torch.promote_types(dtype, torch.float32)
        shift = self.shift.to(device, precision)[:, None, :]
        none = self.shift.new_zeros(self.rows, 0, self.shift.shape[1])
        axes = (none if self.axes is None else self.axes).to(device, precision)
        nobody = torch.zeros(self.rows, dtype=torch.bool)
        keep = (nobody if self.keep_norm is None else self.keep_norm).to(device)[:, None, None]
        acts = (shift != 0).any(-1, keepdim=True) | (axes != 0).any(-1).any(-1)[:, None, None]

        def change(hidden: Tensor) -> Tensor:
            before = hidden.to(precision)
            after = before - (before @ axes.mT) @ axes + shift
            lengths = after.norm(dim=-1, keepdim=True)
            factor = before.norm(dim=-1, keepdim=True) / lengths
            after = torch.where(keep & (lengths > 0), after * factor, after)
            return torch.where(acts, after.to(dtype), hidden)

        return change


def plan(
    directions: Float[Tensor, "values hidden"],
    norm: float | int,
    coefficients: Float[Tensor, "rows values"],
    held: Float[Tensor, "rows values"] | None = None,
    keep_norm: Bool[Tensor, " rows"] | None = None,
) -> Plan:
    """The plan of one layer: components are held first, then coefficients are added.

    A held direction i of length L has its component (along the unit direction) set to
    `held[r, i] * norm * L`, so that holding at c is taking out what is there and adding c. Those
    that a row holds are held together, by the shortest change that does it: at 0 they are taken
    out as one subspace. Directions that depend on each other do no harm; zero ones do nothing.

    Args:
        directions: of any length.
        norm: what a coefficient of 1 stands for.
        coefficients: what is added, in multiples of `norm`.
        held: where components are set to, in the same unit; NaN leaves one as it is.
        keep_norm: rows whose tokens keep their length.

    Raises:
        InvalidInput: directions that (almost) depend on each other are held at values that
            contradict each other.
    """
    directions = directions.double()
    shift = norm * coefficients.to(directions) @ directions
    axes = None
    if held is not None and bool((~held.isnan()).any()):
        axes, targets = _holding(directions, norm, held.to(directions))
        shift = shift + targets
        axes = axes.float() if axes.shape[1] else None
    kept = keep_norm if keep_norm is not None and bool(keep_norm.any()) else None
    return Plan(shift.float(), axes, kept)


def _holding(
    directions: Float[Tensor, "values hidden"],
    norm: float | int,
    held: Float[Tensor, "rows values"],
) -> tuple[Float[Tensor, "rows axes hidden"], Float[Tensor, "rows hidden"]]:
    """What each row has taken out, and what it gets in its place."""
    lengths = directions.norm(dim=1)
    units = directions / lengths.where(lengths > 0, 1.0)[:, None]
    # Rows of a sweep are many, the sets of directions that they hold few.
    patterns, pattern_of = ((~held.isnan()) & (lengths > 0)).unique(dim=0, return_inverse=True)
    axes = units.new_zeros(len(patterns), *units.shape)
    targets = units.new_zeros(len(held), units.shape[1])
    for i, pattern in enumerate(patterns):
        if not bool(pattern.any()):
            continue
        _, strengths, basis = torch.linalg.svd(units[pattern], full_matrices=False)
        basis = basis[strengths > _DEPENDENT]
        axes[i, : len(basis)] = basis
        rows = pattern_of == i
        wanted = held[rows][:, pattern] * norm * lengths[pattern]
        targets[rows] = _lift(units[pattern], basis, wanted)
    used = int((axes != 0).any(-1).any(0).sum())
    return axes[pattern_of, :used], targets


def _lift(
    units: Float[Tensor, "held hidden"],
    basis: Float[Tensor, "axes hidden"],
    wanted: Float[Tensor, "rows held"],
) -> Float[Tensor, "rows hidden"]:
    """The shortest vectors of the span with the wanted components along the units."""
    within = wanted @ torch.linalg.pinv(units @ basis.T, rtol=_DEPENDENT / 10).T
    lifted = within @ basis
    sizes = wanted.norm(dim=1)
    missed = (lifted @ units.T - wanted).norm(dim=1) > 1e-4 * sizes
    if bool((missed | (lifted.norm(dim=1) > _LONGEST_SHIFT * sizes)).any()):
        raise InvalidInput(
            "directions that (almost) depend on each other are held at values that contradict "
            "each other; hold one of them, or all at values that fit"
        )
    return lifted
