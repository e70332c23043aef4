"""What a value space is trained towards: all losses of a batch, each with its weight."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from valueflow.hives.build import axes_of
from valueflow.hives.graded import graded_contrast, spread, touch_contrast
from valueflow.hives.losses import hierarchical_contrastive, pair_losses
from valueflow.hives.recipe import Recipe
from valueflow.hives.texts import TrainingTexts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LENGTH_GROUPS = 2


class SpaceLoss(torch.nn.Module):
    """The sum of all losses of a batch, as sentence-transformers' trainer calls it.

    Args:
        model: encoder with axes.
        texts: what the batches are drawn from; the "label" of a row is its index there.
        recipe: weights and options.
        pairs: of instances and of anchors at the end of each batch; 0 in stage 1.
        targets: scores of a teacher for all texts, to be learned too.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        texts: TrainingTexts,
        recipe: Recipe,
        *,
        pairs: int = 0,
        targets: Float[Tensor, "texts values"] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.texts = texts
        self.recipe = recipe
        self.pairs = pairs
        self.targets = targets
        self.values = axes_of(model).values

    def forward(
        self, features: Iterable[Mapping[str, Any]], labels: Tensor
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses by name, each with its weight; the trainer adds and logs them."""
        embeddings, scores = self._embed(next(iter(features)))
        rows = labels.flatten().tolist()
        tree = len(rows) - 4 * self.pairs
        losses = self._tree(embeddings[:tree], scores[:tree], rows[:tree])
        if self.pairs:
            losses |= self._pairs(embeddings[tree:], rows[tree:])
        if self.targets is not None:
            wanted = self.targets[rows].to(scores.device)
            losses["teacher"] = self.recipe.teacher_weight * (scores - wanted).pow(2).mean()
        return losses

    def _embed(self, features: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Rows of like length together, so that little of what is computed is padding."""
        if "attention_mask" not in features:
            found = self.model(dict(features))
            return found["sentence_embedding"].float(), found["value_scores"]
        lengths = features["attention_mask"].sum(dim=1)
        order = lengths.argsort()
        embeddings, scores = [], []
        for rows in order.chunk(LENGTH_GROUPS):
            longest = int(lengths[rows].max())
            part = {k: _cut(v, rows, longest, len(lengths)) for k, v in features.items()}
            found = self.model(part)
            embeddings.append(found["sentence_embedding"].float())
            scores.append(found["value_scores"])
        back = order.argsort()
        return torch.cat(embeddings)[back], torch.cat(scores)[back]

    def _tree(self, embeddings: Tensor, scores: Tensor, rows: list[int]) -> dict[str, Tensor]:
        recipe = self.recipe
        if self.texts.asked[rows[0]]:
            touched = [[v in self.texts.touches[row] for v in self.values] for row in rows]
            asked = torch.tensor([v in self.texts.asked[rows[0]] for v in self.values])
            touch = touch_contrast(scores, torch.tensor(touched).to(scores.device), asked)
            return {"touch": recipe.touch_weight * touch}
        labels = self.texts.labels.take(rows)
        hierarchical = hierarchical_contrastive(
            embeddings,
            labels,
            temperature=recipe.temperature,
            direction_margin=recipe.direction_margin,
            floor=recipe.floor,
            directed=recipe.directed,
        )
        graded = graded_contrast(
            scores,
            self.values,
            labels,
            [self.texts.scenes[row] for row in rows],
            neutral_weight=recipe.neutral_weight,
        )
        return {
            "hierarchical": recipe.tree_weight * hierarchical,
            "graded": recipe.graded_weight * graded,
            "spread": recipe.spread_weight * spread(embeddings, labels),
        }

    def _pairs(self, embeddings: Tensor, rows: list[int]) -> dict[str, Tensor]:
        half = 2 * self.pairs
        instances, anchors = (
            torch.tensor(groups, device=embeddings.device)
            for groups in (self.texts.instances[rows[:half]], self.texts.concepts[rows[half:]])
        )
        return pair_losses(embeddings, instances, anchors)


def _cut(value: Any, rows: Tensor, longest: int, n: int) -> Any:
    """The rows of a feature, without columns that are padding in all of them."""
    if not isinstance(value, torch.Tensor) or value.shape[:1] != (n,):
        return value
    return value[rows][:, :longest] if value.dim() > 1 else value[rows]
