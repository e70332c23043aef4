"""Ways to learn the directions of several values at once, letting them help or restrain each other.

Methods beside `derive`'s one value at a time:

- `plain`: mean over ladders of supporting minus opposing, nothing else.
- `shrunken`: the best guess given the ladders of the whole tree (`hierarchy.decompose`).
- `pooled`: the same, with what concept anchors say values of different theories share.
- `own`: the value's own part alone.
- `specific`: `shrunken` without what the value's siblings have in common.
- `plain_specific`: `plain` without what the value's siblings have in common.
- `matched`: `plain` on texts of different ladders that are neighbours in a value space.
- `shuffled_tree`: the placebo of `shrunken`, values having changed places in the tree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.registry import Registry
from valueflow.steering.graded import grade, two_poled, unit
from valueflow.steering.hierarchy import (
    OWN,
    Decomposition,
    Sharing,
    concept_sharing,
    decompose,
    matched_differences,
    shuffled_sharing,
    siblings,
    tree_sharing,
    without_neighbours,
)


@dataclass(frozen=True, eq=False)
class Texts:
    """The graded texts of one value at one layer.

    Attributes:
        activations: one row per text.
        intensities: as the database has them.
        ladders: the scenario of each text.
        embeddings: in a value space; None where no method asks for them.
    """

    activations: Float[Tensor, "texts hidden"]
    intensities: Float[Tensor, " texts"]
    ladders: Sequence[str]
    embeddings: Float[Tensor, "texts width"] | None = None

    def first(self, n_ladders: int, *, rng: np.random.Generator) -> "Texts":
        """The texts of that many ladders with both poles, drawn at random; all if there are fewer.

        More ladders with the same generator state hold the fewer ones.
        """
        names = sorted(two_poled(self.intensities, self.ladders))
        drawn = {names[i] for i in rng.permutation(len(names))[:n_ladders]}
        rows = torch.tensor([i for i, name in enumerate(self.ladders) if name in drawn])
        kept = [self.ladders[i] for i in rows.tolist()]
        embeddings = None if self.embeddings is None else self.embeddings[rows]
        return replace(
            self,
            activations=self.activations[rows],
            intensities=self.intensities[rows],
            ladders=kept,
            embeddings=embeddings,
        )


Family = Mapping[str, Texts]
"""Texts by the id of the value."""

Method = Callable[[Family, np.random.Generator], Float[Tensor, "values hidden"]]
"""(texts of every value, chance) -> a direction per value, of any length."""

METHODS: Registry[Method] = Registry("method")


def directions_of(
    family: Family, method: str, *, rng: np.random.Generator
) -> dict[str, Float[Tensor, " hidden"]]:
    """A unit direction per value, fp32.

    Raises:
        UnknownName: no such method.
        InvalidInput: a value without any ladder that has both poles, or with no direction.
    """
    found = METHODS[method](family, rng)
    return {value: unit(row) for value, row in zip(family, found, strict=True)}


def _plain(family: Family, _: np.random.Generator) -> Float[Tensor, "values hidden"]:
    return torch.stack([row.mean(0) for row in _differences(family).values()])


def _shrunken(family: Family, _: np.random.Generator) -> Float[Tensor, "values hidden"]:
    return _decomposed(family, tree_sharing(list(family))).shrunken


def _pooled(family: Family, _: np.random.Generator) -> Float[Tensor, "values hidden"]:
    values = list(family)
    return _decomposed(family, tree_sharing(values) | concept_sharing(values)).shrunken


def _own(family: Family, _: np.random.Generator) -> Float[Tensor, "values hidden"]:
    return _decomposed(family, tree_sharing(list(family))).parts[OWN]


def _specific(family: Family, rng: np.random.Generator) -> Float[Tensor, "values hidden"]:
    return without_neighbours(_shrunken(family, rng), siblings(list(family)))


def _plain_specific(family: Family, rng: np.random.Generator) -> Float[Tensor, "values hidden"]:
    return without_neighbours(_plain(family, rng), siblings(list(family)))


def _shuffled_tree(family: Family, rng: np.random.Generator) -> Float[Tensor, "values hidden"]:
    sharing = shuffled_sharing(tree_sharing(list(family)), rng=rng)
    return _decomposed(family, sharing).shrunken


def _matched(family: Family, _: np.random.Generator) -> Float[Tensor, "values hidden"]:
    rows = []
    for value, texts in family.items():
        if texts.embeddings is None:
            raise InvalidInput(
                f"method 'matched' needs embeddings of the texts of {value}; give embed=, for "
                "example valueflow.hives.load_value_encoder().embed"
            )
        found = matched_differences(
            texts.activations, texts.embeddings, texts.intensities, texts.ladders
        )
        rows.append(found.mean(0))
    return torch.stack(rows)


for _name, _method in {
    "plain": _plain,
    "shrunken": _shrunken,
    "pooled": _pooled,
    "own": _own,
    "specific": _specific,
    "plain_specific": _plain_specific,
    "matched": _matched,
    "shuffled_tree": _shuffled_tree,
}.items():
    METHODS.add(_name, _method)


def _differences(family: Family) -> dict[str, Float[Tensor, "_ hidden"]]:
    return {
        value: grade(texts.activations, texts.intensities, texts.ladders).by_ladder()
        for value, texts in family.items()
    }


def _decomposed(family: Family, sharing: Sharing) -> Decomposition:
    return decompose(_differences(family), sharing)


def drawn(family: Family, n_ladders: int, *, seed: int) -> dict[str, Texts]:
    """Every value with that many ladders; more ladders with the same seed hold the fewer ones."""
    return {
        value: texts.first(n_ladders, rng=np.random.default_rng([seed, place]))
        for place, (value, texts) in enumerate(family.items())
    }
