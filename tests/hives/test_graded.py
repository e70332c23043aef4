import functools
import itertools
import math

import pytest
import torch
from oracles import graded as oracle

from valueflow.errors import InvalidInput
from valueflow.hives.graded import graded_contrast, spread, touch_contrast
from valueflow.hives.labels import labels_for

COLUMNS = ["svt/power", "svt/benevolence", "svt/face", "svt/hedonism"]
NAN = float("nan")


def random_scores(n, width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, width, generator=generator, dtype=torch.double)


def random_batch(seed):
    """Values with ladders, one (face) without, one column (hedonism) without texts."""
    generator = torch.Generator().manual_seed(seed)
    values, scenes = [], []
    for value, ladders, alone in ((0, 2, 3), (1, 1, 2), (2, 0, 4)):
        values += [COLUMNS[value]] * (5 * ladders + alone)
        scenes += [f"{value}/{ladder}" for ladder in range(ladders) for _ in range(5)]
        scenes += [None] * alone
    intensities = 20 * torch.rand(len(values), generator=generator) - 10
    # The ends of each ladder stay known and far apart, so that each has a pair.
    intensities[[0, 5, 13]] = -7.0
    intensities[[1, 6, 14]] = 7.0
    intensities[torch.randperm(len(values), generator=generator)[:5]] = NAN
    intensities[[0, 13]], intensities[[1, 14]] = -7.0, 7.0
    order = torch.randperm(len(values), generator=generator).tolist()
    return labels_for([values[i] for i in order], [0] * len(order), intensities[order].tolist()), [
        scenes[i] for i in order
    ]


def ladder(value="svt/power", intensities=(-8.0, -4.0, 0.0, 4.0, 8.0)):
    labels = labels_for([value] * len(intensities), [0] * len(intensities), intensities)
    return labels, ["scene"] * len(intensities)


def gradient(loss, scores):
    (found,) = torch.autograd.grad(loss(scores.requires_grad_()), scores)
    return found


def descend(loss, scores, steps=60, rate=0.1):
    free = scores.clone().requires_grad_()
    optimiser = torch.optim.Adam([free], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(free).backward()
        optimiser.step()
    return free.detach()


@pytest.mark.parametrize("neutral_weight", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_graded_loss_is_the_slow_loop_over_pairs(seed, neutral_weight):
    labels, scenes = random_batch(seed)
    scores = random_scores(len(labels), seed=seed)
    known = labels.intensities.isfinite()
    assert 0 < (~known).sum() <= 5 and {"0/0", "1/0", None} <= set(scenes)
    expected = oracle.graded_contrast(
        scores.tolist(), COLUMNS, labels.values, labels.intensities.tolist(), scenes, neutral_weight
    )
    found = graded_contrast(scores, COLUMNS, labels, scenes, neutral_weight=neutral_weight)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_graded_loss_of_two_texts_and_a_foreign_one_by_hand():
    labels = labels_for(["svt/power", "svt/power", "svt/face"], [0] * 3, [8.0, -2.0, 5.0])
    scores = torch.tensor([[0.5, 9.0], [1.5, -9.0], [2.5, 0.0]], dtype=torch.double)

    def softplus(x):
        return math.log1p(math.exp(x))

    # Of face there is one text: it has no pair of its own, and two with texts of power, at 0.
    power = softplus(1.0) + 0.3 * (8 * softplus(2.0) + 2 * softplus(-1.0)) / 10
    face = 0.3 * (5 * softplus(9.0) + 5 * softplus(-9.0)) / 10
    found = graded_contrast(scores, ["svt/power", "svt/face"], labels, ["a", "a", "b"])
    assert found.item() == pytest.approx(2 / 3 * power + 1 / 3 * face, rel=1e-6)


@pytest.mark.parametrize("where", ["scene", None])
def test_half_of_a_values_loss_is_that_of_its_scenes_if_it_has_any(where):
    """Two ladders in order whose ends stand against each other: only pairs across are wrong."""
    labels = labels_for(["svt/power"] * 4, [0] * 4, [0.0, 4.0, 0.0, 4.0])
    scores = torch.tensor([[-30.0], [-10.0], [10.0], [30.0]], dtype=torch.double)
    scenes = [where and f"{where} {i // 2}" for i in range(4)]
    found = graded_contrast(scores, ["svt/power"], labels, scenes)
    assert found.item() == pytest.approx((0.5 if where else 1.0) * 20 / 4, rel=1e-6)


@pytest.mark.parametrize("neutral_weight", [0.0, 0.3])
def test_order_of_texts_and_columns_and_a_constant_of_a_column_do_not_count(neutral_weight):
    labels, scenes = random_batch(0)
    scores = random_scores(len(labels))
    loss = functools.partial(graded_contrast, neutral_weight=neutral_weight)
    expected = loss(scores, COLUMNS, labels, scenes).item()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1)).tolist()
    texts = loss(scores[order], COLUMNS, labels.take(order), [scenes[i] for i in order])
    turned = [2, 0, 3, 1]
    columns = loss(scores[:, turned], [COLUMNS[k] for k in turned], labels, scenes)
    shifted = loss(scores + torch.tensor([3.0, -20.0, 0.5, 100.0]), COLUMNS, labels, scenes)
    for changed in (texts, columns, shifted):
        assert changed.item() == pytest.approx(expected, rel=1e-6)
    # A constant of one text does count, or the three could not fail.
    scores[0] += 3.0
    assert abs(loss(scores, COLUMNS, labels, scenes).item() - expected) > 1e-3


def test_graded_gradients_are_those_of_finite_differences():
    labels, scenes = random_batch(2)
    labels, scenes = labels.take(range(12)), scenes[:12]
    scores = random_scores(12, seed=3).requires_grad_()
    loss = functools.partial(graded_contrast, values=COLUMNS, labels=labels, scenes=scenes)
    assert torch.autograd.gradcheck(loss, (scores,))


def share_in_order(scores, labels):
    """Of all pairs of one value's texts more than 1.5 apart."""
    right = []
    for i, value in enumerate(labels.values):
        column = scores[:, COLUMNS.index(value)]
        for j in range(len(labels)):
            gap = labels.intensities[i] - labels.intensities[j]
            if labels.values[j] == value and gap > 1.5:
                right.append(bool(column[i] > column[j]))
    assert len(right) > 50
    return sum(right) / len(right)


def test_descent_on_free_scores_brings_planted_intensities_in_order():
    labels, scenes = random_batch(1)
    start = random_scores(len(labels), seed=8)
    loss = functools.partial(graded_contrast, values=COLUMNS, labels=labels, scenes=scenes)
    end = descend(loss, start, rate=0.3)
    assert share_in_order(start, labels) < 0.7 and share_in_order(end, labels) == 1.0
    assert loss(end) < 0.5 * loss(start)


def test_the_high_text_is_pushed_up_and_the_low_one_down():
    labels, scenes = ladder(intensities=(6.0, -6.0))
    for scores in (torch.tensor([[0.0], [0.0]]), torch.tensor([[-9.0], [9.0]])):
        loss = functools.partial(
            graded_contrast, values=["svt/power"], labels=labels, scenes=scenes
        )
        high, low = gradient(loss, scores).flatten().tolist()
        assert high < -0.4 and low == pytest.approx(-high)


def test_texts_of_unknown_intensity_have_no_gradient_and_no_effect():
    labels, scenes = random_batch(0)
    scores = random_scores(len(labels))
    loss = functools.partial(graded_contrast, values=COLUMNS, labels=labels, scenes=scenes)
    unknown = ~labels.intensities.isfinite()
    found = gradient(loss, scores)
    assert unknown.any() and found[unknown].abs().max() == 0
    assert (found[~unknown].abs().max(dim=1).values > 0).all()
    rows = (~unknown).nonzero().flatten().tolist()
    without = graded_contrast(scores[rows], COLUMNS, labels.take(rows), [scenes[r] for r in rows])
    assert without.item() == pytest.approx(loss(scores).item(), rel=1e-6)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_batch_of_unknown_intensities_is_zero_and_still_has_a_graph(n):
    labels = labels_for(["svt/power"] * n, [1] * n)
    scores = random_scores(n).requires_grad_()
    loss = graded_contrast(scores, COLUMNS, labels, ["a"] * n)
    loss.backward()
    assert loss.item() == 0 and torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("where", ["scene", None])
@pytest.mark.parametrize("intensities", [(0.0, 0.75, 1.5), (1.0, 1.0, 1.0), (8.5, 8.0, 7.25)])
def test_texts_no_farther_apart_than_the_smallest_gap_have_no_gradient(intensities, where):
    labels, _ = ladder(intensities=intensities)
    loss = functools.partial(
        graded_contrast, values=["svt/power"], labels=labels, scenes=[where] * 3
    )
    scores = random_scores(3, 1)
    assert loss(scores).item() == 0 and gradient(loss, scores).abs().max() == 0
    wider, _ = ladder(intensities=(intensities[0] - 4.0, *intensities[1:]))
    pushed = functools.partial(loss, labels=wider)
    assert gradient(pushed, scores).abs().max() > 0.1


def test_a_ladder_of_near_equal_intensities_beside_texts_far_apart_stays_finite():
    labels = labels_for(["svt/power"] * 5, [0] * 5, [4.0, 4.5, 5.0, -8.0, 8.0])
    scenes = ["near"] * 3 + [None] * 2
    for size in (1.0, 1e4):
        scores = size * random_scores(5, 1)
        loss = functools.partial(
            graded_contrast, values=["svt/power"], labels=labels, scenes=scenes
        )
        assert 0 < loss(scores).item() < 1e6
        found = gradient(loss, scores)
        assert found.isfinite().all() and found.abs().max() > 0.01


def foreign_case():
    """A ladder of power, whose own axis is in order, and texts of face at both its ends."""
    own, _ = ladder()
    labels = labels_for(
        [*own.values, *["svt/face"] * 4], [0] * 9, [*own.intensities.tolist(), -8.0, -8.0, 8.0, 8.0]
    )
    scores = torch.zeros(9, 2, dtype=torch.double)
    scores[:5, 0] = torch.linspace(-4, 4, 5)
    scores[5:, 0] = torch.tensor([-9.0, 9.0, 7.0, -6.0])
    scenes = ["ladder"] * 5 + [None] * 4
    return scores, functools.partial(
        graded_contrast, values=["svt/power", "svt/face"], labels=labels, scenes=scenes
    )


def test_neutral_weight_brings_foreign_texts_between_the_ends():
    scores, loss = foreign_case()
    end = descend(loss, scores, steps=150)[:, 0]
    opposed, supporting = end[:2].max(), end[3:5].min()
    assert opposed < end[5:].min() and end[5:].max() < supporting
    free = functools.partial(loss, neutral_weight=0.0)
    assert gradient(free, scores)[5:, 0].abs().max() == 0
    assert torch.equal(descend(free, scores.detach())[5:, 0], scores.detach()[5:, 0])


def test_hostile_batches_and_options_of_the_graded_loss_are_refused():
    labels, scenes = ladder()
    scores = random_scores(5)
    with pytest.raises(InvalidInput, match="4, 5, 5"):
        graded_contrast(scores[:4], COLUMNS, labels, scenes)
    with pytest.raises(InvalidInput, match="5, 5, 1"):
        graded_contrast(scores, COLUMNS, labels, ["scene"])
    with pytest.raises(InvalidInput, match="3 columns of scores for 4 values"):
        graded_contrast(scores[:, :3], COLUMNS, labels, scenes)
    with pytest.raises(InvalidInput, match="none for svt/power"):
        graded_contrast(scores[:, 1:], COLUMNS[1:], labels, scenes)
    for weight in (-0.1, NAN):
        with pytest.raises(InvalidInput, match="neutral_weight"):
            graded_contrast(scores, COLUMNS, labels, scenes, neutral_weight=weight)


def touch_case(seed=0, n=12):
    """Columns: three with both kinds, one that all touch, one that nobody does, one not asked."""
    generator = torch.Generator().manual_seed(seed)
    touched = torch.rand(n, 6, generator=generator) < 0.4
    touched[0], touched[1] = True, False
    touched[:, 3], touched[:, 4] = True, False
    asked = torch.tensor([True, True, True, True, True, False])
    return random_scores(n, 6, seed=seed), touched, asked


@pytest.mark.parametrize("seed", range(3))
def test_the_touch_loss_is_the_slow_loop_over_pairs(seed):
    scores, touched, asked = touch_case(seed)
    expected = oracle.touch_contrast(scores.tolist(), touched.tolist(), asked.tolist())
    assert touch_contrast(scores, touched, asked).item() == pytest.approx(expected, rel=1e-9)


def test_the_touch_loss_does_not_see_signs_nor_order():
    scores, touched, asked = touch_case()
    expected = touch_contrast(scores, touched, asked).item()
    generator = torch.Generator().manual_seed(1)
    signs = torch.where(torch.rand(scores.shape, generator=generator) < 0.5, -1.0, 1.0)
    texts, columns = (torch.randperm(n, generator=generator) for n in scores.shape)
    for changed in (
        touch_contrast(scores * signs, touched, asked),
        touch_contrast(scores[texts], touched[texts], asked),
        touch_contrast(scores[:, columns], touched[:, columns], asked[columns]),
    ):
        assert changed.item() == pytest.approx(expected, rel=1e-9)
    assert abs(touch_contrast(scores + 1, touched, asked).item() - expected) > 1e-3


def test_the_touch_gradient_raises_the_size_of_touched_scores_and_lowers_that_of_others():
    scores, touched, asked = touch_case()
    found = gradient(lambda x: touch_contrast(x, touched, asked), scores)
    assert found[:, 3:].abs().max() == 0
    outward = -(found * scores.sign())[:, :3]
    assert (outward[touched[:, :3]] > 0).all() and (outward[~touched[:, :3]] < 0).all()


def test_descent_on_free_scores_parts_touched_texts_from_others_on_their_own_side():
    scores, touched, asked = touch_case(seed=2)
    end = descend(lambda x: touch_contrast(x, touched, asked), scores, steps=100)
    overlaps = 0
    for k in range(3):
        own, others = touched[:, k], ~touched[:, k]
        overlaps += scores[others, k].abs().max() > scores[own, k].abs().min()
        assert end[own, k].abs().min() > end[others, k].abs().max() + 0.5
        assert torch.equal(end[own, k].sign(), scores[own, k].sign())
    assert overlaps > 0


@pytest.mark.parametrize("case", ["all touch", "nobody touches", "nothing asked", "no text"])
def test_a_batch_in_which_no_value_has_both_kinds_is_zero_and_still_has_a_graph(case):
    scores, touched, asked = touch_case()
    touched = torch.full_like(touched, case == "all touch") if "touch" in case else touched
    asked = asked & (case != "nothing asked")
    n = 0 if case == "no text" else len(scores)
    scores = scores[:n].requires_grad_()
    loss = touch_contrast(scores, touched[:n], asked)
    loss.backward()
    assert loss.item() == 0 and torch.equal(scores.grad, torch.zeros_like(scores))


def spread_case(seed=0, width=6):
    """Two to four texts of each side of four values, and face on one side only."""
    generator = torch.Generator().manual_seed(seed)
    values, directions = ["svt/face"] * 2, [1, 1]
    for value in ("svt/power", "svt/benevolence", "svt/hedonism", "mft/care-harm"):
        values += [value] * 7
        directions += [1, 1, 1, -1, -1, 0, -1]
    order = torch.randperm(len(values), generator=generator).tolist()
    labels = labels_for([values[i] for i in order], [directions[i] for i in order])
    lengths = 0.2 + 3 * torch.rand(len(order), 1, generator=generator)
    return lengths * (torch.randn(len(order), width, generator=generator) + 0.5), labels


def slow_spread(embeddings, labels):
    """Mean squared cosine over pairs of values that have texts of both sides, in plain floats."""

    def mean(rows):
        return [sum(column) / len(rows) for column in zip(*rows, strict=True)]

    vectors = []
    for value in sorted(set(labels.values)):
        sides = {1: [], 0: [], -1: []}
        for row, name, direction in zip(
            embeddings.tolist(), labels.values, labels.directions.tolist(), strict=True
        ):
            if name == value:
                sides[direction].append([x / math.hypot(*row) for x in row])
        if sides[1] and sides[-1]:
            pairs = zip(mean(sides[1]), mean(sides[-1]), strict=True)
            vectors.append([high - low for high, low in pairs])
    cosines = [
        sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
        for a, b in itertools.combinations(vectors, 2)
    ]
    return sum(cosine**2 for cosine in cosines) / len(cosines)


@pytest.mark.parametrize("seed", range(3))
def test_spread_is_the_slow_mean_over_pairs_of_values(seed):
    embeddings, labels = spread_case(seed)
    expected = slow_spread(embeddings, labels)
    assert 0.01 < expected < 0.9
    assert spread(embeddings, labels).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("second", "expected"), [((0.0, 2.0), 0.0), ((3.0, 0.0), 1.0), ((-3.0, 0.0), 1.0),
                             ((1.0, 1.0), 0.5)]
)  # fmt: skip
def test_spread_of_two_values_is_their_squared_cosine(second, expected):
    labels = labels_for(["svt/power"] * 2 + ["svt/face"] * 2, [1, -1, 1, -1])
    first, second = torch.tensor([1.0, 0.0]), torch.tensor(second)
    found = spread(torch.stack([first, -first, second, -second]), labels)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_spread_does_not_see_rotations_lengths_order_nor_which_side_is_which():
    embeddings, labels = spread_case()
    n, width = embeddings.shape
    expected = spread(embeddings, labels).item()
    generator = torch.Generator().manual_seed(1)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    lengths = 10 ** (4 * torch.rand(n, 1, generator=generator) - 2)
    order = torch.randperm(n, generator=generator).tolist()
    turned = [-d if v == "svt/power" else d
              for v, d in zip(labels.values, labels.directions.tolist(), strict=True)]  # fmt: skip
    for changed in (
        spread(embeddings @ rotation, labels),
        spread(1000 * embeddings, labels),
        spread(lengths * embeddings, labels),
        spread(embeddings[order], labels.take(order)),
        spread(embeddings, labels_for(labels.values, turned)),
    ):
        assert changed.item() == pytest.approx(expected, rel=1e-4)
    # Stretching one axis does count, or the five could not fail.
    stretched = embeddings * torch.tensor([9.0] + [1.0] * (width - 1))
    assert abs(spread(stretched, labels).item() - expected) > 1e-2


def test_texts_of_no_side_and_of_values_with_one_side_have_no_gradient():
    embeddings, labels = spread_case()
    found = gradient(lambda x: spread(x, labels), embeddings)
    idle = (labels.directions == 0) | torch.tensor([v == "svt/face" for v in labels.values])
    assert idle.sum() == 6 and found[idle].abs().max() == 0
    assert (found[~idle].norm(dim=1) > 0).all()


def test_descent_on_free_embeddings_parts_values_that_share_one_direction():
    noise, labels = spread_case(seed=4)
    shared = torch.nn.functional.one_hot(torch.tensor(0), noise.shape[1])
    start = 0.05 * noise + labels.directions[:, None] * shared
    end = descend(lambda x: spread(x, labels), start, steps=100, rate=0.05)
    assert slow_spread(start, labels) > 0.9 and slow_spread(end, labels) < 0.05


@pytest.mark.parametrize(
    ("values", "directions"),
    [
        ([], []),
        (["svt/power"] * 4, [1, -1, 1, -1]),
        (["svt/power", "svt/power", "svt/face", "svt/face"], [1, -1, 1, 1]),
        (["svt/power", "svt/power", "svt/face", "svt/face"], [1, -1, 0, -1]),
        (["svt/power", "svt/face", "svt/hedonism"], [1, -1, 1]),
    ],
)
def test_spread_with_fewer_than_two_complete_values_is_zero_and_still_has_a_graph(
    values, directions
):
    embeddings = torch.randn(len(values), 3, generator=torch.Generator().manual_seed(0))
    loss = spread(embeddings.requires_grad_(), labels_for(values, directions))
    loss.backward()
    assert loss.item() == 0 and torch.equal(embeddings.grad, torch.zeros_like(embeddings))
