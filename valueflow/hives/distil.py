"""Distillation: a small encoder learns what a trained one makes of texts, without any labels.

It learns the teacher's scores along the axes of all values, and which texts the teacher finds
alike. Parts of texts are learned too: they cost nothing to write, and a score of half a text says
where in the text the value is.
"""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.hives.axes import SCORE_SCALE
from valueflow.hives.build import axes_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 64
"""Texts a step."""

SHORTEST = 25
"""Characters of a part of a text."""

_BLOCK = 8
_READ = 4096
_POOL = 50
_RIDGE = 1.0
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher makes of texts.

    Attributes:
        texts: shape (n,).
        embeddings: its own, at unit length.
        scores: along the axes of all values.
    """

    texts: tuple[str, ...]
    embeddings: Float[Tensor, "n width"]
    scores: Float[Tensor, "n values"]

    def __len__(self) -> int:
        return len(self.texts)


def parts_of(texts: Iterable[str], *, seed: int) -> list[str]:
    """One part of each text of two sentences or more: sentences that follow each other, not all."""
    drawn, found = random.Random(seed), {}
    for text in dict.fromkeys(texts):
        sentences = _SENTENCE.split(text)
        if len(sentences) > 1:
            n = drawn.randrange(1, len(sentences))
            first = drawn.randrange(len(sentences) - n + 1)
            found[" ".join(sentences[first : first + n])] = None
    return [part for part in found if len(part) >= SHORTEST]


class DistilLoss(torch.nn.Module):
    """Squared differences from the teacher: of scores, in units of each value's own spread, and of
    the cosines of all pairs of texts in the batch.

    Args:
        model: the student, an encoder with axes.
        taught: what it learns; the "label" of a row is its index there.
    """

    def __init__(self, model: "SentenceTransformer", taught: Taught) -> None:
        super().__init__()
        self.model = model
        self.taught = taught
        self.spread = taught.scores.std(dim=0).clamp(min=1e-6)

    def forward(
        self, features: Iterable[Mapping[str, Any]], labels: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses by name; the trainer adds and logs them."""
        rows = labels.flatten().cpu()
        found = self.model({k: _widened(v) for k, v in next(iter(features)).items()})
        unit = torch.nn.functional.normalize(found["sentence_embedding"].float(), dim=1)
        scores, theirs = self.taught.scores[rows].to(unit), self.taught.embeddings[rows].to(unit)
        off = (found["value_scores"] - scores) / self.spread.to(unit)
        alike = unit @ unit.T - theirs @ theirs.T
        return {"scores": off.pow(2).mean(), "similarities": alike.pow(2).mean()}


def _widened(value: Any) -> Any:
    """To a multiple of 8 tokens: a CPU prepares its kernels anew for every width it meets."""
    if not isinstance(value, Tensor) or value.dim() != 2:
        return value
    return torch.nn.functional.pad(value, (0, -value.shape[1] % _BLOCK))


class LengthBatches:
    """Batches of texts of like length, so that little of what is computed is padding.

    Every text is in one batch of an epoch; which others are there, and the order of batches, are
    drawn anew in each, and depend on the seed and the number of the epoch alone.
    """

    drop_last = False
    batch_size = BATCH

    def __init__(self, texts: Sequence[str], *, seed: int) -> None:
        self._lengths = np.array([len(text) for text in texts])
        self._seed = seed
        self._epoch = 0

    def __len__(self) -> int:
        return -(-len(self._lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self._epoch])
        dealt, pool = rng.permutation(len(self._lengths)), self.batch_size * _POOL
        batches = []
        for start in range(0, len(dealt), pool):
            own = dealt[start : start + pool]
            own = own[np.argsort(self._lengths[own], kind="stable")]
            batches += [
                own[i : i + self.batch_size].tolist() for i in range(0, len(own), self.batch_size)
            ]
        return (batches[i] for i in rng.permutation(len(batches)))


def start_axes(student: "SentenceTransformer", taught: Taught, *, seed: int) -> None:
    """Give the student the axes that fit the teacher's scores best before it has learned anything.

    Ridge regression on its embeddings of some thousand texts.

    Raises:
        InvalidInput: no texts, or another number of values than the student has axes.
    """
    axes = axes_of(student).axes
    if not len(taught) or taught.scores.shape[1] != len(axes):
        raise InvalidInput(
            f"expected scores of {len(axes)} values for one text or more, "
            f"got {tuple(taught.scores.shape)}"
        )
    rows = random.Random(seed).sample(range(len(taught)), min(_READ, len(taught)))
    found = student.encode([taught.texts[i] for i in rows], show_progress_bar=False)
    unit = torch.nn.functional.normalize(torch.as_tensor(found).double(), dim=1) * SCORE_SCALE
    gram = unit.T @ unit + _RIDGE * torch.eye(unit.shape[1], dtype=torch.float64)
    fitted = torch.linalg.solve(gram, unit.T @ taught.scores[rows].double())
    with torch.no_grad():
        axes.copy_(fitted.T.to(axes))
