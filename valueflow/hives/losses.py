"""What the value embedding space is trained for, as functions of embeddings and labels.

Every function takes embeddings as a model gives them, checks them, and scales them to unit length
itself; the length that came in has no effect. Half precision is computed in fp32. All losses are
means per text, so that they do not grow with the batch, and 0 (with the graph of the embeddings)
where a batch has no positive pair.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.errors import InvalidInput
from valueflow.hives.labels import Labels

Floor = Literal["finer", "coarser"] | None
Directed = Literal["every", "last"]


def hierarchical_contrastive(
    embeddings: Float[Tensor, "batch width"],
    labels: Labels,
    *,
    temperature: float = 0.1,
    direction_margin: float = 1.0,
    floor: Floor = "finer",
    directed: Directed = "every",
) -> Float[Tensor, ""]:
    """Supervised contrastive loss at every level of the tree, floored, weighted and averaged.

    loss = sum over levels of 2^(1 / level) * floored(level_losses)[level], divided by the number of
    levels that count. Level 1 is the coarsest and weighs most (2, then 1.41, 1.26, 1.19).

    Args:
        embeddings: one row per text.
        labels: of the same texts.
        temperature: divides the cosines.
        direction_margin: taken off the logit of every pair of which one text supports and the
            other opposes (in logits, not cosines), so that such pairs repel each other less; not
            used with directed="last", where they are positives.
        floor: "finer": a level's loss is at least that of the next finer level that counts, as
            texts that share more must not be farther apart; where it is not so, the coarse level's
            weight goes to the finer pairs, gradient included. "coarser": the reverse, a level's
            loss is at least that of the next coarser one; as soon as fine pairs are closer than
            coarse ones, their gradient goes to the coarse ones, and embeddings free to move end
            with a value's texts no closer than its siblings'. None: no floor.
        directed: see `level_losses`.

    Raises:
        InvalidInput: see `level_losses`.

    Source: VALUEFLOW (arXiv 2602.03160), stage 1; the floor is HMCE's of Zhang et al. (2022),
        Use All The Labels, CVPR.
    """
    losses = level_losses(
        embeddings,
        labels,
        temperature=temperature,
        direction_margin=direction_margin,
        directed=directed,
    )
    if not losses:
        return 0.0 * _unit(embeddings).sum()
    floored = floor_levels(losses, floor)
    weighted = [2.0 ** (1.0 / level) * loss for level, loss in floored.items()]
    return torch.stack(weighted).mean()


def level_losses(
    embeddings: Float[Tensor, "batch width"],
    labels: Labels,
    *,
    temperature: float = 0.1,
    direction_margin: float = 1.0,
    directed: Directed = "every",
) -> dict[int, Tensor]:
    """The contrastive loss of each level that counts, before floor and weight; 1 is the coarsest.

    At a level, a text's loss is the mean over its positives p of -log(exp(s_p) / sum of exp(s_c)),
    c running over all other texts of its theory (positives included): texts of other theories are
    no negatives, cross-theory anchors may want them close. A level's loss is the mean over the
    texts that have a positive at it; a level without any is left out.

    Args:
        embeddings: one row per text.
        labels: of the same texts.
        temperature: divides the cosines.
        direction_margin: taken off the logits of pairs of opposite direction, if directed="every".
        directed: "every" (the paper's): a positive shares the path up to the level and the
            direction. This never pulls support and opposition of one value together, nor tells
            them from those of other values. "last": the levels ignore the direction; one more
            level below the deepest asks for the same value and direction. This is the order in
            which cosines ought to fall: same value and direction, same value, siblings, ...

    Raises:
        InvalidInput: not as many embeddings as labels, a row that is not finite or is all zeros, a
            temperature that is not above 0, a negative margin.
    """
    unit = _unit(embeddings)
    _check(unit, labels, temperature, direction_margin)
    device = unit.device
    logits = unit @ unit.T / temperature
    if directed == "every":
        logits = logits - direction_margin * labels.opposite_direction.to(device, logits.dtype)
    others = ~torch.eye(len(labels), dtype=torch.bool)
    candidates = (labels.same_theory & others).to(device)
    losses = {}
    for level, positives in _positives(labels, directed):
        positives = positives & others
        if positives.any():
            losses[level] = _contrastive(logits, positives.to(device), candidates)
    return losses


def floor_levels(losses: dict[int, Tensor], floor: Floor = "finer") -> dict[int, Tensor]:
    """`losses` with each level's raised to that of its neighbour; see `hierarchical_contrastive`.

    "finer" starts at the finest level and goes up, so a coarse level's loss is the largest of its
    own and all finer ones'; "coarser" starts at level 1 and goes down.
    """
    if floor is None:
        return dict(losses)
    floored: dict[int, Tensor] = {}
    bound = None
    for level in sorted(losses, reverse=floor == "finer"):
        bound = losses[level] if bound is None else torch.maximum(losses[level], bound)
        floored[level] = bound
    return floored


def info_nce(
    queries: Float[Tensor, "queries width"],
    keys: Float[Tensor, "keys width"],
    positives: Bool[Tensor, "queries keys"],
    *,
    temperature: float = 0.07,
    candidates: Bool[Tensor, "queries keys"] | None = None,
) -> Float[Tensor, ""]:
    """InfoNCE with any number of positives per query: the mean of -log p over them, then queries.

    A query without a positive does not count; its embedding has no gradient.

    Args:
        queries: one row per query.
        keys: one row per key.
        positives: which keys belong to which query.
        temperature: divides the cosines.
        candidates: keys that a query is compared with, its positives among them; None for all.

    Raises:
        InvalidInput: a row that is not finite or is all zeros, a temperature that is not above 0,
            a positive that is no candidate.
    """
    _check_temperature(temperature)
    candidates = torch.ones_like(positives) if candidates is None else candidates
    if (positives & ~candidates).any():
        raise InvalidInput("a positive key is not among its query's candidates; add it to them")
    logits = _unit(queries) @ _unit(keys).T / temperature
    if not positives.any():
        return 0.0 * logits.sum()
    return _contrastive(logits, positives, candidates)


def grouped_info_nce(
    embeddings: Float[Tensor, "batch width"],
    groups: Int[Tensor, " batch"],
    *,
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """InfoNCE within a batch: texts of one group (instance, concept) are each other's positives.

    All other texts are negatives. A negative group id means none: a negative to everyone.

    Raises:
        InvalidInput: see `info_nce`.
    """
    others = ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    same = (groups[:, None] == groups[None, :]) & (groups >= 0)[:, None]
    return info_nce(embeddings, embeddings, same & others, temperature=temperature,
                    candidates=others)  # fmt: skip


def pair_losses(
    embeddings: Float[Tensor, "batch width"],
    instances: Int[Tensor, " instance_rows"],
    anchors: Int[Tensor, " anchor_rows"],
    *,
    instance_weight: float = 0.5,
    anchor_weight: float = 1.0,
    temperature: float = 0.07,
) -> dict[str, Float[Tensor, ""]]:
    """What stage 2 adds to the hierarchical loss: InfoNCE over instances and over concepts.

    The rows are those of `instances`, then of `anchors`: the end of a batch of
    `valueflow.hives.batches.with_pairs`. A part of no rows is 0.

    Args:
        embeddings: one row per text.
        instances: group ids of the first rows: texts that express one personal value.
        anchors: group ids of the other rows: texts of one concept, from several theories.
        instance_weight: of the first part.
        anchor_weight: of the second part.
        temperature: of both.

    Raises:
        InvalidInput: the parts do not make up the rows; what `info_nce` refuses.

    Source: VALUEFLOW (arXiv 2602.03160), stage 2.
    """
    sizes = [len(instances), len(anchors)]
    if sum(sizes) != len(embeddings):
        raise InvalidInput(
            f"expected {sizes[0]} instance + {sizes[1]} anchor rows = {sum(sizes)} embeddings, "
            f"got {len(embeddings)}"
        )
    first, second = embeddings.split(sizes)
    return {
        "instances": instance_weight * grouped_info_nce(first, instances, temperature=temperature),
        "anchors": anchor_weight * grouped_info_nce(second, anchors, temperature=temperature),
    }


def _positives(labels: Labels, directed: Directed) -> list[tuple[int, Tensor]]:
    shared, direction = labels.shared_levels, labels.same_direction
    levels = range(1, labels.depth + 1)
    if directed == "every":
        return [(level, (shared >= level) & direction) for level in levels]
    last = (labels.depth + 1, labels.same_value & direction)
    return [*((level, shared >= level) for level in levels), last]


def _contrastive(logits: Tensor, positives: Tensor, candidates: Tensor) -> Tensor:
    # Finite, as a row without candidates would else have NaN gradients.
    lowest = torch.finfo(logits.dtype).min
    log_total = logits.masked_fill(~candidates, lowest).logsumexp(dim=1, keepdim=True)
    log_p = torch.where(positives, logits - log_total, 0.0)
    counts = positives.sum(dim=1)
    per_text = -log_p.sum(dim=1) / counts.clamp_min(1)
    return per_text[counts > 0].mean()


def _unit(embeddings: Tensor) -> Tensor:
    wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    norms = wide.norm(dim=1, keepdim=True)
    bad = ~(torch.isfinite(norms) & (norms > torch.finfo(wide.dtype).tiny))
    if bad.any():
        rows = bad.flatten().nonzero().flatten().tolist()
        raise InvalidInput(
            f"expected finite embeddings other than 0, got {len(rows)} without a direction, the "
            f"first in row {rows[0]}; a diverging run needs a lower learning rate"
        )
    return wide / norms


def _check(unit: Tensor, labels: Labels, temperature: float, margin: float) -> None:
    if len(unit) != len(labels):
        raise InvalidInput(
            f"expected one label per embedding, got {len(unit)} embeddings and {len(labels)} labels"
        )
    _check_temperature(temperature)
    if not margin >= 0:
        raise InvalidInput(f"direction_margin must be 0 or more, got {margin}")


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise InvalidInput(f"temperature must be above 0, got {temperature}")
