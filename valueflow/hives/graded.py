"""What teaches the axes of the values: how strongly, for or against, and whether at all.

Functions of scores (`valueflow.hives.axes.ValueAxes`) and labels, as `valueflow.hives.losses` are
of embeddings and labels.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import softplus

from valueflow.errors import InvalidInput
from valueflow.hives.labels import Labels

SMALLEST_GAP = 1.5
LARGEST_GAP = 8.0


def graded_contrast(
    scores: Float[Tensor, "batch values"],
    values: Sequence[str],
    labels: Labels,
    scenes: Sequence[str | None],
    *,
    neutral_weight: float = 0.3,
) -> Float[Tensor, ""]:
    """Logistic loss over pairs of texts that differ in intensity, per value of the batch.

    softplus(low score - high score), weighted by the gap of intensities (pairs at most 1.5 apart do
    not count, gaps above 8 count as 8). A value's loss is half its mean over all pairs of its own
    texts, half that over pairs of one scene, where nothing but the value differs (all of it the
    former where no scene has a pair), plus `neutral_weight` times its mean over pairs with a text
    of another value, whose intensity in this one is taken for 0. Values weigh by their texts.

    Args:
        scores: as the axes give them.
        values: ids of the columns.
        labels: one per text; where the intensity is NaN the text is left out.
        scenes: id of each text's ladder, None for none.
        neutral_weight: 0 or more; 0 lets texts of other values score anything.

    Raises:
        InvalidInput: lengths that differ; a value without a column, a negative weight.
    """
    _check(scores, values, labels, scenes, neutral_weight)
    known = torch.isfinite(labels.intensities)
    if not known.any():
        return 0.0 * scores.sum()
    rows = known.nonzero().flatten().tolist()
    labels, scores = labels.take(rows), scores[rows]
    place = {scene: i for i, scene in enumerate(dict.fromkeys(scenes))}
    scene = torch.tensor([place[scenes[r]] if scenes[r] is not None else -1 - r for r in rows])
    same_scene = (scene[:, None] == scene[None, :]).to(scores.device)
    total = 0.0 * scores.sum()
    for value in dict.fromkeys(labels.values):
        own = torch.tensor([v == value for v in labels.values])
        intensity = torch.where(own, labels.intensities, 0.0)
        own, intensity = own.to(scores.device), intensity.to(scores.device)
        column = scores[:, list(values).index(value)]
        share = own.float().mean()
        total = total + share * _one_value(column, intensity, own, same_scene, neutral_weight)
    return total


def _one_value(
    scores: Tensor, intensity: Tensor, own: Tensor, same_scene: Tensor, neutral_weight: float
) -> Tensor:
    gap = intensity[:, None] - intensity[None, :]
    weight = torch.where(gap > SMALLEST_GAP, gap.clamp(max=LARGEST_GAP), 0.0)
    loss = softplus(scores[None, :] - scores[:, None])
    both, one = own[:, None] & own[None, :], own[:, None] ^ own[None, :]
    everywhere = _mean(loss, weight * both)
    within = _mean(loss, weight * (both & same_scene)) if (both & same_scene & (weight > 0)).any() \
        else everywhere  # fmt: skip
    return 0.5 * everywhere + 0.5 * within + neutral_weight * _mean(loss, weight * one)


def touch_contrast(
    scores: Float[Tensor, "batch values"],
    touched: Bool[Tensor, "batch values"],
    asked: Bool[Tensor, " values"],
) -> Float[Tensor, ""]:
    """Texts that touch a value ought to be farther from 0 on its axis than texts that do not.

    softplus(|score of one that does not| - |score of one that does|), mean over pairs, then over
    the values that were asked for and have both; 0 where none has.

    Args:
        scores: as the axes give them.
        touched: whether a text touches the value of the column.
        asked: columns that the corpus could have named.

    Source: own; corpora such as ValueEval'23 and MFRC say that a text appeals to a value and not
        which way.
    """
    size = scores.abs()
    losses = [
        softplus(size[~touched[:, k], k][None, :] - size[touched[:, k], k][:, None]).mean()
        for k in asked.nonzero().flatten().tolist()
        if touched[:, k].any() and not touched[:, k].all()
    ]
    return torch.stack(losses).mean() if losses else 0.0 * scores.sum()


def spread(embeddings: Float[Tensor, "batch width"], labels: Labels) -> Float[Tensor, ""]:
    """Mean squared cosine between the value vectors of a batch; 0 with fewer than two.

    A value's vector is the mean of its supporting minus the mean of its opposing embeddings, as in
    `valueflow.hives.metrics.value_vectors`; a value without texts of both kinds has none. Left to
    themselves all values share one direction from "against" to "for".
    """
    unit = torch.nn.functional.normalize(embeddings.float(), dim=1)
    vectors = []
    for value in dict.fromkeys(labels.values):
        own = torch.tensor([v == value for v in labels.values])
        sides = [(own & (labels.directions == d)).to(unit.device) for d in (1, -1)]
        if all(side.any() for side in sides):
            difference = unit[sides[0]].mean(dim=0) - unit[sides[1]].mean(dim=0)
            vectors.append(torch.nn.functional.normalize(difference, dim=0))
    if len(vectors) < 2:
        return 0.0 * unit.sum()
    cosines = torch.stack(vectors) @ torch.stack(vectors).T
    others = ~torch.eye(len(vectors), dtype=torch.bool, device=cosines.device)
    return cosines[others].pow(2).mean()


def _mean(loss: Tensor, weight: Tensor) -> Tensor:
    return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def _check(
    scores: Tensor,
    values: Sequence[str],
    labels: Labels,
    scenes: Sequence[str | None],
    neutral_weight: float,
) -> None:
    if not len(scores) == len(labels) == len(scenes):
        raise InvalidInput(
            "expected one score row, label and scene per text, got "
            f"{len(scores)}, {len(labels)}, {len(scenes)}"
        )
    missing = set(labels.values) - set(values)
    if missing or len(values) != scores.shape[1]:
        raise InvalidInput(
            f"{scores.shape[1]} columns of scores for {len(values)} values"
            + (f"; none for {', '.join(sorted(missing))}" if missing else "")
        )
    if not neutral_weight >= 0:
        raise InvalidInput(f"neutral_weight must be 0 or more, got {neutral_weight}")
