"""Interventions that do more than add: project out, clamp, and several of them in one batch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from valueflow.backends.base import Intervention, Positions
from valueflow.errors import InvalidInput
from valueflow.steering.vector import SteeringVector, intervention

Number = Real | np.ndarray | Tensor
"""A real number, numpy's and a tensor's of no dimension among them."""
Held = Number | Sequence[Number | None]


def ablate(
    vectors: Sequence[SteeringVector],
    *,
    rows: Bool[Tensor, "rows values"] | Sequence[Sequence[bool]] | None = None,
    positions: Positions = "all",
    keep_norm: bool = False,
) -> Intervention:
    """The components along vectors taken out, at each vector's own layers.

    The vectors of a row are taken out together, as a subspace, so neither their order nor their
    length matters and those that depend on each other do no harm. Blocks above may write the
    component anew: what stays out at every layer is what is ablated at every layer.

    Args:
        vectors: one or more, for one model.
        rows: which vectors each batch row loses, one column per vector; None for all of them in
            every row.
        positions: which tokens lose them (`valueflow.backends.base.Intervention`).
        keep_norm: scale each token to the length it had.

    Raises:
        InvalidInput: no vectors, vectors of different models, not one column per vector.
    """
    lost = torch.as_tensor([[True] * len(vectors)] if rows is None else rows, dtype=torch.bool)
    if lost.ndim != 2 or lost.shape[1] != len(vectors):
        raise InvalidInput(
            f"rows: expected (rows, {len(vectors)}) flags, one column per vector, "
            f"got {tuple(lost.shape)}; such as [{[True] * len(vectors)}]"
        )
    made = intervention(vectors, torch.zeros(lost.shape), positions=positions)
    held = torch.where(lost.to(made.coefficients.device), 0.0, torch.nan)
    return replace(made, held=held, keep_norm=keep_norm)


def clamp(
    targets: Mapping[SteeringVector, Held],
    *,
    positions: Positions = "all",
    keep_norm: bool = False,
) -> Intervention:
    """The components along vectors set, at each vector's own layers, to a coefficient.

    Clamping at c is projecting out and adding c: along a direction of length 1 the component
    becomes `c * norm`, along one of length L (a sum or a multiple of vectors) `c * norm * L`. All
    that a row clamps holds at once, whatever the angles between the vectors.

    Args:
        targets: for each vector one number for all batch rows, or one per row with None where a
            row leaves the component as it is. Multiples of the typical residual norm.
        positions: which tokens are clamped (`valueflow.backends.base.Intervention`).
        keep_norm: scale each token to the length it had, and the clamped component with it.

    Raises:
        InvalidInput: no targets, an empty list, lists of different lengths, a target that is no
            number or not finite, vectors of different models. Dependent vectors at
            contradicting values raise when it is used.
    """
    lists = {vector: _row(vector.value, held) for vector, held in targets.items()}
    n_rows = max((len(row) for row in lists.values()), default=0)
    for vector, row in lists.items():
        if len(row) not in (1, n_rows):
            raise InvalidInput(f"{vector.value} has {len(row)} targets, another vector {n_rows}")
        if not all(c is None or math.isfinite(c) for c in row):
            raise InvalidInput(f"{vector.value}: a target is not finite; None leaves a row alone")
    columns = [row * n_rows if len(row) == 1 else row for row in lists.values()]
    table = [[math.nan if c is None else c for c in row] for row in zip(*columns)]  # noqa: B905
    made = intervention(list(targets), torch.zeros(n_rows, len(lists)), positions=positions)
    held = torch.tensor(table, device=made.coefficients.device)
    return replace(made, held=held, keep_norm=keep_norm)


def _row(value: str, held: Held) -> list[float | None]:
    """The targets of one vector as plain numbers."""
    if isinstance(held, Iterable) and np.ndim(held) == 1:  # type: ignore[arg-type]
        row: list[float | None] = [None if c is None else _target(value, c) for c in held]
    else:
        row = [_target(value, held)]
    if not row:
        raise InvalidInput(
            f"{value}: expected a number for all batch rows or one per row, got an empty list"
        )
    return row


def _target(value: str, target: object) -> float:
    given = target.item() if isinstance(target, np.ndarray | Tensor) and not target.ndim else target
    if not isinstance(given, Real):
        raise InvalidInput(
            f"{value}: expected a number, or None where a row leaves it alone, got {target!r:.60}"
        )
    return float(given)


def combine(parts: Sequence[Intervention]) -> Intervention:
    """Several interventions at once: all components are held together, then all is added.

    A row keeps its norm, at every layer, if one of the parts keeps it.

    Args:
        parts: for one model and the same positions, each with one row or as many as the others.

    Raises:
        InvalidInput: no parts, or parts of different positions, numbers of rows or hidden sizes.
    """
    _check_joinable(parts)
    n_rows = max(len(part.coefficients) for part in parts)
    if any(len(part.coefficients) not in (1, n_rows) for part in parts):
        raise InvalidInput(
            f"the interventions have {[len(part.coefficients) for part in parts]} rows; "
            "expected as many in each, or one"
        )
    tables = [part.coefficients.cpu().expand(n_rows, -1) for part in parts]
    held = [_held(part).expand(n_rows, -1) for part in parts]
    keep = [_kept(part).expand(n_rows) for part in parts]
    return _joined(parts, torch.cat(tables, 1), torch.cat(held, 1), torch.stack(keep).any(0))


def stack(parts: Sequence[Intervention | None]) -> Intervention:
    """One arm below the other: the rows of the first intervention, those of the second, ...

    None stands for one row that is left alone, so `stack([None, ablate([v]), ...])` compares
    arms within one call of `generate`.

    Raises:
        InvalidInput: no interventions, or of different positions or hidden sizes.
    """
    given = [part for part in parts if part is not None]
    _check_joinable(given)
    widths = [part.coefficients.shape[1] for part in given]
    tables, held, keep, before = [], [], [], 0
    for part in parts:
        n_rows = 1 if part is None else len(part.coefficients)
        table, fixed = torch.zeros(n_rows, sum(widths)), torch.full((n_rows, sum(widths)), math.nan)
        if part is not None:
            own = slice(before, before + part.coefficients.shape[1])
            table[:, own], fixed[:, own] = part.coefficients.cpu(), _held(part)
            before = own.stop
        tables.append(table)
        held.append(fixed)
        keep.append(torch.zeros(1, dtype=torch.bool) if part is None else _kept(part))
    return _joined(given, torch.cat(tables), torch.cat(held), torch.cat(keep))


def _check_joinable(parts: Sequence[Intervention]) -> None:
    if not parts:
        raise InvalidInput("expected one or more interventions, got none")
    if len({part.positions for part in parts}) > 1:
        raise InvalidInput(
            f"the interventions have positions {sorted({part.positions for part in parts})}; "
            "expected the same: steer with one inside the other instead"
        )
    sizes = {direction.shape[1] for part in parts for direction in part.directions.values()}
    if len(sizes) != 1:
        raise InvalidInput(f"the interventions have hidden sizes {sorted(sizes)}, expected one")


def _joined(
    parts: Sequence[Intervention],
    coefficients: Float[Tensor, "rows values"],
    held: Float[Tensor, "rows values"],
    keep_norm: Bool[Tensor, " rows"],
) -> Intervention:
    """One intervention on the values of all parts, side by side."""
    first = next(iter(parts[0].directions.values()))
    directions, norms = {}, {}
    for layer in sorted({layer for part in parts for layer in part.directions}):
        norms[layer] = next(part.norms[layer] for part in parts if layer in part.norms)
        blocks = [
            part.directions[layer].to(first) * (part.norms[layer] / norms[layer])
            if layer in part.norms
            else first.new_zeros(part.coefficients.shape[1], first.shape[1])
            for part in parts
        ]
        directions[layer] = torch.cat(blocks)
    device = first.device
    return Intervention(
        directions,
        norms,
        coefficients.to(device),
        parts[0].positions,
        held=None if bool(held.isnan().all()) else held.to(device),
        keep_norm=keep_norm.to(device) if bool(keep_norm.any()) else False,
    )


def _held(part: Intervention) -> Float[Tensor, "rows values"]:
    if part.held is None:
        return torch.full(part.coefficients.shape, math.nan)
    return part.held.float().cpu()


def _kept(part: Intervention) -> Bool[Tensor, " rows"]:
    return torch.as_tensor(part.keep_norm).cpu().expand(len(part.coefficients))
