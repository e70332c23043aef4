import functools
import math

import pytest
import torch
from torch.nn import functional

from valueflow.errors import InvalidInput
from valueflow.hives.labels import labels_for
from valueflow.hives.losses import (
    floor_levels,
    grouped_info_nce,
    hierarchical_contrastive,
    info_nce,
    level_losses,
    pair_losses,
)

MIXED = labels_for(
    ["power", "power", "power-resources", "power", "achievement", "hedonism", "hedonism",
     "benevolence", "stimulation", "duty/justice", "duty/justice", "mft/care-harm"],
    [1, 1, 1, -1, 1, 1, -1, 1, 0, 1, 1, 1],
)  # fmt: skip


def random_embeddings(n, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.double)


def cosine(a, b):
    a, b = a.tolist(), b.tolist()
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def is_positive(labels, i, j, level, directed, depth):
    same_direction = labels.directions[i] == labels.directions[j]
    if directed == "last" and level == depth + 1:
        return bool(same_direction) and labels.values[i] == labels.values[j]
    shares = any(
        a[:level] == b[:level] and len(a) >= level and len(b) >= level
        for a in labels.paths[i]
        for b in labels.paths[j]
    )
    return shares and (directed == "last" or bool(same_direction))


def slow_levels(embeddings, labels, temperature, margin, directed):
    """Text by text, pair by pair."""
    n, depth, found = len(labels), labels.depth, {}
    for level in range(1, depth + (directed == "last") + 1):
        per_text = []
        for i in range(n):
            logits = {}
            for j in range(n):
                if j != i and labels.theories[i] == labels.theories[j]:
                    opposite = labels.directions[i] * labels.directions[j] == -1
                    cos = cosine(embeddings[i], embeddings[j])
                    logits[j] = cos / temperature
                    if directed == "every":
                        logits[j] -= margin * float(opposite)
            total = sum(math.exp(logit) for logit in logits.values())
            terms = [
                -math.log(math.exp(logit) / total)
                for j, logit in logits.items()
                if is_positive(labels, i, j, level, directed, depth)
            ]
            if terms:
                per_text.append(sum(terms) / len(terms))
        if per_text:
            found[level] = sum(per_text) / len(per_text)
    return found


def slow_total(levels):
    total, floor = 0.0, 0.0
    for level in sorted(levels, reverse=True):
        floor = max(floor, levels[level])
        total += 2 ** (1 / level) * floor
    return total / len(levels)


@pytest.mark.parametrize("directed", ["every", "last"])
@pytest.mark.parametrize(("temperature", "margin"), [(0.1, 1.0), (0.5, 0.0), (0.2, 3.0)])
def test_the_loss_is_the_slow_double_loop(temperature, margin, directed):
    embeddings = random_embeddings(len(MIXED)) * 3
    options = {"temperature": temperature, "direction_margin": margin, "directed": directed}
    expected = slow_levels(embeddings, MIXED, temperature, margin, directed)
    found = level_losses(embeddings, MIXED, **options)
    assert set(found) == set(expected)
    for level, loss in expected.items():
        assert found[level].item() == pytest.approx(loss, abs=1e-6)
    total = hierarchical_contrastive(embeddings, MIXED, **options)
    assert total.item() == pytest.approx(slow_total(expected), abs=1e-6)


@pytest.mark.parametrize("floor", ["finer", "coarser", None])
@pytest.mark.parametrize("directed", ["every", "last"])
def test_gradients_are_those_of_finite_differences(floor, directed):
    labels = MIXED.take([0, 1, 2, 3, 4, 5, 9, 11])
    embeddings = random_embeddings(len(labels), width=3, seed=3).requires_grad_()
    loss = functools.partial(
        hierarchical_contrastive, labels=labels, floor=floor, directed=directed, temperature=0.4
    )
    assert torch.autograd.gradcheck(loss, (embeddings,))


def test_order_rotation_and_length_of_the_embeddings_do_not_count():
    embeddings = random_embeddings(len(MIXED))
    expected = hierarchical_contrastive(embeddings, MIXED).item()
    order = torch.randperm(len(MIXED), generator=torch.Generator().manual_seed(1)).tolist()
    permuted = hierarchical_contrastive(embeddings[order], MIXED.take(order))
    rotation = torch.linalg.qr(random_embeddings(6, seed=2)).Q
    lengths = torch.linspace(0.01, 100, len(MIXED), dtype=torch.double)[:, None]
    for changed in (
        permuted,
        hierarchical_contrastive(embeddings @ rotation, MIXED),
        hierarchical_contrastive(embeddings * lengths, MIXED),
    ):
        assert changed.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_embeddings_are_computed_in_fp32(dtype):
    embeddings = random_embeddings(len(MIXED)).to(dtype)
    loss = hierarchical_contrastive(embeddings, MIXED)
    assert loss.dtype == torch.float32
    exact = hierarchical_contrastive(embeddings.double(), MIXED)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_a_pair_of_opposite_direction_loses_the_margin_and_a_neutral_one_does_not():
    embeddings = random_embeddings(3)
    a, b, c = embeddings

    def expected(margin):
        terms = [math.log1p(math.exp((cosine(x, c) - cosine(a, b)) / 0.1 - margin)) for x in (a, b)]
        return sum(terms) / 2

    for directions, margin in (([1, 1, -1], 2.0), ([1, 1, 0], 0.0), ([-1, -1, 1], 2.0)):
        labels = labels_for(["duty/justice"] * 3, directions)
        loss = level_losses(embeddings, labels, direction_margin=2.0)
        assert loss[1].item() == pytest.approx(expected(margin), abs=1e-9)


def test_levels_weigh_two_to_the_inverse_of_the_level_and_are_averaged():
    embeddings = random_embeddings(len(MIXED))
    raw = level_losses(embeddings, MIXED)
    assert set(raw) == {1, 2, 3}
    by_hand = (2 * raw[1] + math.sqrt(2) * raw[2] + 2 ** (1 / 3) * raw[3]) / 3
    found = hierarchical_contrastive(embeddings, MIXED, floor=None)
    assert found.item() == pytest.approx(by_hand.item(), abs=1e-9)
    flat = labels_for(["duty/justice"] * 3 + ["duty/fidelity"], [1] * 4)
    found = hierarchical_contrastive(embeddings[:4], flat)
    assert found.item() == pytest.approx(2 * level_losses(embeddings[:4], flat)[1].item())


def test_the_floor_lifts_a_level_to_its_neighbour_and_hands_over_the_gradient():
    losses = {
        level: torch.tensor(loss, requires_grad=True)
        for level, loss in {1: 0.2, 2: 0.5, 4: 0.3}.items()
    }

    def lifted(floor):
        found = floor_levels(losses, floor)
        return {level: round(found[level].item(), 4) for level in sorted(found)}

    assert lifted(None) == {1: 0.2, 2: 0.5, 4: 0.3}
    assert lifted("finer") == {1: 0.5, 2: 0.5, 4: 0.3}
    assert lifted("coarser") == {1: 0.2, 2: 0.5, 4: 0.5}
    sum(floor_levels(losses, "finer").values()).backward()
    assert [losses[level].grad.item() for level in (1, 2, 4)] == [0.0, 2.0, 1.0]


def tree_embeddings(fine_angle, coarse_angle):
    """Two texts each of power, achievement, security: apart within a value, and between them."""
    angles = [k * coarse_angle + side * fine_angle for k in range(3) for side in (0, 1)]
    angles = torch.tensor(angles, dtype=torch.double)
    labels = labels_for([v for v in ("power", "achievement", "security") for _ in "ab"], [1] * 6)
    return torch.stack([angles.cos(), angles.sin()], dim=1), labels


def test_the_floor_binds_only_where_fine_pairs_are_farther_apart_than_coarse_ones():
    tidy, labels = tree_embeddings(0.05, 0.8)
    raw = hierarchical_contrastive(tidy, labels, floor=None).item()
    assert hierarchical_contrastive(tidy, labels, floor="finer").item() == pytest.approx(raw)
    assert hierarchical_contrastive(tidy, labels, floor="coarser").item() > 1.2 * raw
    untidy, labels = tree_embeddings(2.0, 0.1)
    raw = hierarchical_contrastive(untidy, labels, floor=None).item()
    assert hierarchical_contrastive(untidy, labels, floor="finer").item() > 1.2 * raw


def test_texts_without_a_positive_do_not_count_but_are_negatives():
    embeddings = random_embeddings(4)
    pair = labels_for(["power"] * 2, [1] * 2)
    with_third = labels_for(["power"] * 2 + ["benevolence"], [1] * 3)
    two, three = (level_losses(embeddings[:n], x) for n, x in ((2, pair), (3, with_third)))
    assert set(two) == set(three) == {1, 2, 3}
    assert two[1].item() == pytest.approx(0.0, abs=1e-12) and three[1] > 0.01


def test_texts_of_other_theories_are_no_negatives():
    embeddings = random_embeddings(4).requires_grad_()
    labels = labels_for(["power", "power", "achievement", "mft/care-harm"], [1] * 4)
    loss = hierarchical_contrastive(embeddings, labels)
    without = hierarchical_contrastive(embeddings[:3], labels.take(range(3)))
    assert loss.item() == pytest.approx(without.item(), abs=1e-12)
    loss.backward()
    assert embeddings.grad[3].abs().max() == 0 and embeddings.grad[:3].abs().min() > 0


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_without_positives_is_zero_and_still_has_a_graph(n):
    embeddings = random_embeddings(n).requires_grad_()
    labels = labels_for(["power", "benevolence", "duty/justice"][:n], [1, 1, 1][:n])
    loss = hierarchical_contrastive(embeddings, labels)
    loss.backward()
    assert loss.item() == 0 and torch.equal(embeddings.grad, torch.zeros_like(embeddings))


VALUES = ("power", "achievement", "security", "benevolence", "universalism", "stimulation")


@functools.cache
def descended(directed, floor="finer"):
    """Mean cosines after gradient descent: (levels shared, same direction?) -> mean."""
    per_cell = 3
    values = [v for v in VALUES for _ in range(2 * per_cell)]
    labels = labels_for(values, [1, -1] * (per_cell * len(VALUES)))
    free = random_embeddings(len(values), width=24, seed=5).requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.1)
    loss = functools.partial(
        hierarchical_contrastive, labels=labels, directed=directed, floor=floor, temperature=0.3
    )
    for _ in range(150):
        optimiser.zero_grad()
        loss(free).backward()
        optimiser.step()
    unit = functional.normalize(free.detach(), dim=1)
    cosines = unit @ unit.T
    others = ~torch.eye(len(values), dtype=torch.bool)

    def mean(levels, same):
        pairs = (labels.shared_levels == levels) & (labels.same_direction == same) & others
        return cosines[pairs].mean().item()

    return {(levels, same): mean(levels, same) for levels in range(4) for same in (True, False)}


def gaps(means):
    return [a - b for a, b in zip(means, means[1:], strict=False)]


def test_planted_tree_with_direction_at_every_level():
    found = descended("every")
    assert min(gaps([found[levels, True] for levels in (3, 2, 1, 0)])) > 0.1, found
    # Support and opposition part, whatever the value: nothing pulls those of one value together.
    assert all(found[levels, False] < found[levels, True] - 0.3 for levels in (3, 2, 1)), found
    opposite = [found[levels, False] for levels in range(4)]
    assert max(opposite) - min(opposite) < 0.1, found


def test_planted_tree_with_direction_as_the_last_level():
    found = descended("last")
    falling = [found[3, True], found[3, False]]
    falling += [(found[levels, True] + found[levels, False]) / 2 for levels in (2, 1, 0)]
    assert min(gaps(falling)) > 0.05, found


def test_the_coarser_floor_flattens_the_tree_and_the_finer_one_does_not():
    flat, finer = descended("every", "coarser"), descended("every")
    assert flat[3, True] - flat[1, True] < 0.05 < 0.2 < finer[3, True] - finer[1, True]


def slow_info_nce(queries, keys, positives, temperature, candidates):
    means = []
    for i, query in enumerate(queries):
        p = {
            j: math.exp(cosine(query, key) / temperature)
            for j, key in enumerate(keys)
            if candidates[i][j]
        }
        terms = [-math.log(p[j] / sum(p.values())) for j in p if positives[i][j]]
        if terms:
            means.append(sum(terms) / len(terms))
    return sum(means) / len(means)


def info_nce_case():
    generator = torch.Generator().manual_seed(4)
    positives = torch.rand(5, 7, generator=generator) < 0.3
    positives[1] = False
    candidates = positives | (torch.rand(5, 7, generator=generator) < 0.7)
    return random_embeddings(5, seed=1), random_embeddings(7, seed=2) * 5, positives, candidates


def test_info_nce_is_the_slow_double_loop_with_any_number_of_positives():
    queries, keys, positives, candidates = info_nce_case()
    assert {0, 1, 2} <= set(positives.sum(1).tolist())
    for given in (None, candidates):
        found = info_nce(queries, keys, positives, candidates=given)
        allowed = torch.ones_like(positives) if given is None else given
        expected = slow_info_nce(queries, keys, positives, 0.07, allowed)
        assert found.item() == pytest.approx(expected, abs=1e-6)


def test_info_nce_gradients_are_those_of_finite_differences():
    queries, keys, positives, candidates = info_nce_case()
    loss = functools.partial(info_nce, positives=positives, candidates=candidates, temperature=0.5)
    assert torch.autograd.gradcheck(loss, (queries.requires_grad_(), keys.requires_grad_()))
    loss(queries, keys).backward()
    assert queries.grad[1].abs().max() == 0


def test_groups_are_each_others_positives_and_negative_ids_are_negatives_to_all():
    embeddings = random_embeddings(6)
    groups = torch.tensor([3, 3, 3, 8, -1, -1])
    same = torch.zeros(6, 6, dtype=torch.bool)
    same[:3, :3] = True
    others = ~torch.eye(6, dtype=torch.bool)
    expected = slow_info_nce(embeddings, embeddings, same & others, 0.07, others)
    assert grouped_info_nce(embeddings, groups).item() == pytest.approx(expected, abs=1e-6)


def test_descent_on_groups_brings_planted_concepts_together_across_theories():
    groups = torch.arange(4).repeat_interleave(3)
    free = random_embeddings(12, seed=7).requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.05)
    for _ in range(150):
        optimiser.zero_grad()
        grouped_info_nce(free, groups).backward()
        optimiser.step()
    unit = functional.normalize(free.detach(), dim=1)
    cosines, same = unit @ unit.T, groups[:, None] == groups[None, :]
    assert cosines[same].min() > cosines[~same].max() + 0.2


def test_the_losses_of_pairs_are_those_of_their_groups_each_with_its_weight():
    embeddings = random_embeddings(8)
    instances, anchors = torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 5, 6])
    first = grouped_info_nce(embeddings[:4], instances, temperature=0.07).item()
    second = grouped_info_nce(embeddings[4:], anchors, temperature=0.07).item()
    found = pair_losses(embeddings, instances, anchors)
    assert found["instances"].item() == pytest.approx(0.5 * first, abs=1e-9)
    assert found["anchors"].item() == pytest.approx(second, abs=1e-9)
    other = pair_losses(
        embeddings, instances, anchors, instance_weight=2.0, anchor_weight=0.0, temperature=1.0
    )
    softer = grouped_info_nce(embeddings[:4], instances, temperature=1.0).item()
    assert other["instances"].item() == pytest.approx(2 * softer, abs=1e-9)
    assert other["anchors"].item() == 0.0


def test_pairs_without_rows_add_nothing():
    embeddings = random_embeddings(4).requires_grad_()
    none = torch.zeros(0, dtype=torch.long)
    found = pair_losses(embeddings, torch.arange(4) // 2, none)
    assert found["anchors"].item() == 0.0 < found["instances"].item()
    sum(found.values()).backward()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_rows_without_a_direction_are_refused(bad):
    embeddings = random_embeddings(len(MIXED))
    embeddings[3] = bad
    groups = torch.zeros(len(MIXED), dtype=torch.long)
    for loss, labels in ((hierarchical_contrastive, MIXED), (grouped_info_nce, groups)):
        with pytest.raises(InvalidInput, match="row 3"):
            loss(embeddings, labels)


def test_hostile_options_are_refused():
    embeddings = random_embeddings(4)
    labels = labels_for(["power"] * 3, [1] * 3)
    with pytest.raises(InvalidInput, match="4 embeddings and 3 labels"):
        hierarchical_contrastive(embeddings, labels)
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInput, match="temperature"):
            hierarchical_contrastive(embeddings[:3], labels, temperature=temperature)
        with pytest.raises(InvalidInput, match="temperature"):
            grouped_info_nce(embeddings, torch.arange(4), temperature=temperature)
    with pytest.raises(InvalidInput, match="direction_margin"):
        hierarchical_contrastive(embeddings[:3], labels, direction_margin=-1.0)
    everything = torch.ones(4, 4, dtype=torch.bool)
    with pytest.raises(InvalidInput, match="candidates"):
        info_nce(embeddings, embeddings, everything, candidates=~everything)
    with pytest.raises(InvalidInput, match=r"2 instance \+ 0 anchor rows = 2 embeddings, got 4"):
        pair_losses(embeddings, torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long))
