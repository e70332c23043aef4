"""What a value shares with its relatives, and what is its own: directions from few ladders.

The mean difference of a value is the truth plus noise that shrinks with the number of ladders. The
truth is taken as a sum of parts: one that all values share, one of the theory, one of each node
above the value, perhaps one of concepts that theories have in common, and the value's own. Each
kind of part has a variance, estimated from the data; the best guess of a value's direction is then
the mean of the parts given all ladders of all values. With few ladders it leans on the relatives,
with many on the value itself, and where relatives have nothing in common it is the plain mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.steering.contrasts import POLE
from valueflow.steering.graded import two_poled
from valueflow.theories import anchors_of, get_theory, get_value
from valueflow.theories.levels import levels_of

OWN = "own"

Sharing = Mapping[str, Float[Tensor, "values _"]]
"""Per kind of part: how much of each node's part a value holds. Rows in the order of the values."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The directions of a family of values, taken apart; nothing is scaled to length 1.

    Attributes:
        values: ids, the order of all rows.
        means: what each value's ladders say alone.
        parts: per kind of part (`OWN` is the value's own) the best guess of it for each value.
        variances: per kind of part its mean squared length.
        noise: mean squared length of a single ladder's deviation from its value's mean.
        weights: in [0, 1], how much of its own mean each value's guess holds; the rest is taken
            from relatives, or is nothing.
    """

    values: tuple[str, ...]
    means: Float[Tensor, "values hidden"]
    parts: Mapping[str, Float[Tensor, "values hidden"]]
    variances: Mapping[str, float]
    noise: float
    weights: Float[Tensor, " values"]

    @property
    def shrunken(self) -> Float[Tensor, "values hidden"]:
        """The best guess of each value's direction: the sum of its parts."""
        return torch.stack(list(self.parts.values())).sum(0)

    @property
    def shared(self) -> Float[Tensor, "values hidden"]:
        """What each value has from its relatives: the sum of all parts but its own."""
        return self.shrunken - self.parts[OWN]


def decompose(
    differences: Mapping[str, Float[Tensor, "_ hidden"]],
    sharing: Sharing,
    *,
    variances: Mapping[str, float] | None = None,
) -> Decomposition:
    """Best linear guess of the parts of each value's direction, given every ladder of every value.

    Variances are those whose sum of parts fits the inner products of the values' means best, noise
    taken off, none below 0 (Haseman-Elston regression, which for one level of equal groups is the
    analysis of variance); all axes of the residual stream count the same.

    Args:
        differences: per value one row per ladder, supporting minus opposing.
        sharing: `tree_sharing`, `concept_sharing` or both; its rows are the values in the order of
            `differences`. Kinds that say the same as an earlier one are left out.
        variances: of every kind in `sharing` and of `OWN` where they are known; None to estimate.

    Raises:
        InvalidInput: no value, no value with two ladders, a value without any, sizes that differ,
            or a kind without its variance.

    References:
        Efron and Morris 1973, "Stein's estimation rule and its competitors: an empirical Bayes
        approach"; Robinson 1991, "That BLUP is a good thing"; Haseman and Elston 1972.
    """
    rows = _checked(differences)
    kinds = _kernels(sharing, len(rows))
    means = torch.stack([row.mean(0) for row in rows])
    count = torch.tensor([len(row) for row in rows], dtype=torch.float64)
    noise = _within(rows)
    gram = means @ means.T - torch.diag(noise / count)
    found = _variances(gram, kinds) if variances is None else _given(variances, kinds)
    prior = sum((found[kind] * kernel for kind, kernel in kinds.items()), torch.zeros_like(gram))
    total = prior + torch.diag(noise / count)
    # Without noise, or with no variance at all, the sum may be singular.
    inverse = torch.linalg.pinv(total, hermitian=True)
    parts = {kind: found[kind] * kernel @ (inverse @ means) for kind, kernel in kinds.items()}
    weights = (prior @ inverse).diagonal().clamp(0.0, 1.0)
    return Decomposition(tuple(differences), means, parts, found, noise, weights)


def tree_sharing(values: Sequence[str]) -> dict[str, Float[Tensor, "values _"]]:
    """What the value trees say values share: all, their theory, their nodes of each level above.

    A value with several nodes at a level holds an equal share of each.

    Raises UnknownName for a value that no theory has.
    """
    ids = [get_value(value).id for value in values]
    depth = max((len(levels_of(value)) for value in ids), default=0)
    held: dict[str, list[frozenset[str]]] = {
        "all": [frozenset({""}) for _ in ids],
        "theory": [frozenset({value.partition("/")[0]}) for value in ids],
    }
    for level in range(depth):
        # A value is no node above itself.
        above = [levels_of(v)[level] - {v} if level < len(levels_of(v)) else set() for v in ids]
        held[f"level {level + 1}"] = [frozenset(nodes) for nodes in above]
    return {kind: _members(nodes) for kind, nodes in held.items() if any(nodes)}


def concept_sharing(values: Sequence[str]) -> dict[str, Float[Tensor, "values _"]]:
    """What the concept anchors say values of different theories share; rows of length 1.

    Negative where a concept is the opposite of the value; a row of zeros for a value that no
    anchor holds.
    """
    ids = [get_value(value).id for value in values]
    concepts = list(dict.fromkeys(anchor for value in ids for anchor in anchors_of(value)))
    rows = [[dict(anchor.values).get(value, 0) for anchor in concepts] for value in ids]
    table = torch.tensor(rows, dtype=torch.float64).reshape(len(ids), len(concepts))
    return {"concepts": torch.nn.functional.normalize(table, dim=1)}


def shuffled_sharing(sharing: Sharing, *, rng: np.random.Generator) -> dict[str, Tensor]:
    """The placebo: a tree of the same shape whose values have changed places."""
    first = next(iter(sharing.values()))
    order = torch.from_numpy(rng.permutation(len(first)))
    return {kind: members[order] for kind, members in sharing.items()}


def siblings(values: Sequence[str]) -> Bool[Tensor, "values values"]:
    """Which of the values share a parent in their theory; none is its own sibling."""
    ids = [get_value(value).id for value in values]
    near = [get_theory(value.partition("/")[0]).siblings(value) for value in ids]
    return torch.tensor([[other in known for other in ids] for known in near], dtype=torch.bool)


def without_neighbours(
    directions: Float[Tensor, "values hidden"], neighbours: Bool[Tensor, "values values"]
) -> Float[Tensor, "values hidden"]:
    """Each direction without the part along what its neighbours have in common.

    That is the mean of the neighbours' directions, each at length 1. A value without neighbours
    stays as it is.
    """
    units = torch.nn.functional.normalize(directions, dim=1)
    common = torch.nn.functional.normalize(neighbours.to(units) @ units, dim=1)
    return directions - (directions * common).sum(1, keepdim=True) * common


def matched_differences(
    activations: Float[Tensor, "texts hidden"],
    embeddings: Float[Tensor, "embedded width"],
    intensities: Float[Tensor, " texts"],
    ladders: Sequence[str],
    *,
    neighbours: int = 1,
) -> Float[Tensor, "ladders hidden"]:
    """Supporting minus opposing texts of *different* ladders that are alike in a value space.

    Every text of a pole is set against the mean of its nearest texts (cosine; in a tie the earlier)
    of the other pole in other ladders. A row is the mean over a ladder's texts, both poles weighing
    the same. Ladders in the order of their ids; those without both poles are left out.

    Args:
        activations: of all texts of one value.
        embeddings: of the same texts, in a space such as the one of `valueflow.hives`.
        intensities: as the database has them.
        ladders: the scenario of each text.
        neighbours: how many texts a text is set against.

    Raises:
        InvalidInput: lengths differ, fewer than two ladders with both poles, or `neighbours` is
            below 1.
    """
    if len(embeddings) != len(activations) or neighbours < 1:
        raise InvalidInput(
            f"expected an embedding for each of {len(activations)} texts and 1 neighbour or more, "
            f"got {len(embeddings)} embeddings and {neighbours} neighbours"
        )
    names = sorted(two_poled(intensities, ladders))
    if len(names) < 2:
        raise InvalidInput(f"matching needs 2 ladders with both poles or more, got {len(names)}")
    number = {name: i for i, name in enumerate(names)}
    group = torch.tensor([number.get(ladder, -1) for ladder in ladders])
    sides = [
        ((group >= 0) & (sign * intensities > POLE)).nonzero().flatten() for sign in (1.0, -1.0)
    ]
    rows, units = activations.double(), torch.nn.functional.normalize(embeddings.double(), dim=1)
    differences = rows.new_zeros(len(names), rows.shape[1])
    for sign, own, other in ((1.0, *sides), (-1.0, *sides[::-1])):
        alike = units[own] @ units[other].T
        foreign = group[own][:, None] != group[other]
        order = alike.where(foreign, -torch.inf).argsort(dim=1, descending=True, stable=True)
        nearest = other[order[:, : min(neighbours, int(foreign.sum(1).min()))]]
        against = sign * (rows[own] - rows[nearest].mean(1))
        # Each pole weighs half, however many texts of it a ladder has.
        share = 0.5 / torch.bincount(group[own])[group[own]]
        differences.index_add_(0, group[own], against * share[:, None])
    return differences


def _members(held: Sequence[frozenset[str]]) -> Float[Tensor, "values nodes"]:
    nodes = sorted(set().union(*held))
    rows = [[(node in own) / max(len(own), 1) for node in nodes] for own in held]
    return torch.tensor(rows, dtype=torch.float64)


def _checked(differences: Mapping[str, Tensor]) -> list[Float[Tensor, "_ hidden"]]:
    rows = [row.double() for row in differences.values()]
    if not rows or max(len(row) for row in rows) < 2 or min(len(row) for row in rows) < 1:
        raise InvalidInput(
            "expected values with one ladder or more each, and one of them with two or more; got "
            f"{ {value: len(row) for value, row in differences.items()} }"
        )
    if len({row.shape[1] for row in rows}) > 1:
        raise InvalidInput("expected differences of one hidden size for all values")
    return rows


def _kernels(sharing: Sharing, n_values: int) -> dict[str, Float[Tensor, "values values"]]:
    """How alike two values are for each kind of part, the own part last; no kernel twice."""
    kernels: dict[str, Tensor] = {}
    for kind, members in sharing.items():
        if len(members) != n_values or kind == OWN:
            raise InvalidInput(
                f"sharing {kind!r}: expected {n_values} rows, one per value, and a name other than "
                f"{OWN!r}; got {len(members)} rows"
            )
        kernel = members.double() @ members.double().T
        known = [torch.eye(n_values, dtype=torch.float64), *kernels.values()]
        if kernel.any() and not any(torch.allclose(kernel, other) for other in known):
            kernels[kind] = kernel
    return kernels | {OWN: torch.eye(n_values, dtype=torch.float64)}


def _within(rows: Sequence[Float[Tensor, "_ hidden"]]) -> float:
    """Squared length of a ladder's deviation from its value's mean, pooled over the values."""
    squares = sum(float((row - row.mean(0)).square().sum()) for row in rows)
    return squares / sum(len(row) - 1 for row in rows)


def _variances(
    gram: Float[Tensor, "values values"], kernels: Mapping[str, Float[Tensor, "values values"]]
) -> dict[str, float]:
    from scipy.optimize import nnls

    columns = np.stack([kernel.flatten().numpy() for kernel in kernels.values()], axis=1)
    scale = max(float(gram.abs().max()), 1e-300)
    found, _ = nnls(columns, gram.flatten().numpy() / scale)
    return {kind: float(value) * scale for kind, value in zip(kernels, found, strict=True)}


def _given(variances: Mapping[str, float], kernels: Mapping[str, Tensor]) -> dict[str, float]:
    missing = [kind for kind in kernels if kind not in variances]
    if missing or min(variances.values()) < 0:
        raise InvalidInput(
            f"expected a variance of 0 or more for {', '.join(kernels)}; got {dict(variances)}"
        )
    return {kind: float(variances[kind]) for kind in kernels}
