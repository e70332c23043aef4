import math

import numpy as np
import pytest
import torch

from valueflow.errors import InvalidInput, UnknownName
from valueflow.steering.activations import Activations
from valueflow.steering.contrasts import Contrast, shuffled
from valueflow.steering.directions import (
    ESTIMATORS,
    choose_layer,
    held_out_score,
    labels,
    lda,
    mean_difference,
    middle_layers,
    pca,
)

HIDDEN = 32
RUNGS = torch.tensor([-8.0, -4.0, 0.0, 4.0, 8.0])
every_estimator = pytest.mark.parametrize("name", sorted(ESTIMATORS))
# The logistic ones fit a dozen models per call; where many calls show nothing more, one will do.
quick_estimator = pytest.mark.parametrize(
    "name", sorted(name for name in ESTIMATORS if name != "whitened_logistic")
)
quickest_estimator = pytest.mark.parametrize(
    "name", sorted(name for name in ESTIMATORS if "logistic" not in name)
)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def basis(seed):
    return torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=generator(seed))).Q


SCALES = torch.linspace(0.5, 1, HIDDEN)
"""Standard deviations of the noise along the columns of the basis."""


def planted(direction, axes, *, n_ladders=1500, strength=0.25, seed=0, offsets=20.0):
    """Ladders of five texts: a large offset each, uneven noise, and intensity along `direction`."""
    draw = generator(seed)
    n = n_ladders * len(RUNGS)
    intensities = RUNGS.repeat(n_ladders) + torch.randn(n, generator=draw)
    ladders = [f"ladder {i // len(RUNGS)}" for i in range(n)]
    offset = offsets * torch.randn(n_ladders, HIDDEN, generator=draw)
    noise = (torch.randn(n, HIDDEN, generator=draw) * SCALES) @ axes.T
    signal = strength * intensities[:, None] * direction
    return offset.repeat_interleave(len(RUNGS), 0) + noise + signal, intensities, ladders


def as_contrasts(intensities, ladders):
    rows = enumerate(zip(intensities.tolist(), ladders, strict=True))
    return [Contrast(f"{ladder}/{i}", ladder, "q", "a", value) for i, (value, ladder) in rows]


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


@every_estimator
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("axis", [0, HIDDEN // 2, HIDDEN - 1])
def test_a_planted_direction_is_recovered_with_its_sign(name, sign, axis):
    axes = basis(1)
    truth = sign * axes[:, axis]
    found = ESTIMATORS[name](*planted(truth, axes, strength=0.5))
    assert found.dtype == torch.float32
    assert float(found.norm()) == pytest.approx(1, abs=1e-6)
    assert cosine(found, truth) > 0.99
    random = [cosine(found, basis(seed)[:, 0]) for seed in range(2, 42)]
    assert abs(np.mean(random)) < 0.1
    assert np.max(np.abs(random)) < 0.7


@pytest.mark.parametrize("estimator", [mean_difference, pca])
def test_a_direction_at_an_angle_to_the_noise_is_recovered(estimator):
    truth = basis(3)[:, 0]
    assert cosine(estimator(*planted(truth, basis(1))), truth) > 0.99


def test_lda_finds_the_axis_that_reads_best():
    axes = basis(1)
    # Half along a quiet and half along a loud axis of the noise.
    truth = (axes[:, 0] + axes[:, -1]) / math.sqrt(2)
    data = planted(truth, axes, strength=0.1)
    found = lda(*data)
    optimal = axes @ ((axes.T @ truth) / SCALES**2)
    assert cosine(found, optimal) > 0.99
    assert cosine(found, truth) < 0.9
    fresh, intensities, ladders = planted(truth, axes, strength=0.1, seed=1, n_ladders=300)

    def effect(direction):
        rng = np.random.default_rng(0)
        score = held_out_score(fresh, intensities, ladders, lambda *_: direction, rng=rng)
        return score.effect_size

    assert effect(found) > 1.15 * effect(mean_difference(*data))


@pytest.mark.parametrize("estimator", [mean_difference, lda])
def test_shuffled_labels_find_nothing(estimator):
    axes = basis(1)
    truth = axes[:, HIDDEN // 2]
    activations, intensities, ladders = planted(truth, axes, strength=0.1, n_ladders=300)
    assert cosine(estimator(activations, intensities, ladders), truth) > 0.9
    cosines = []
    for seed in range(10):
        placebo = shuffled(as_contrasts(intensities, ladders), rng=np.random.default_rng(seed))
        cosines.append(cosine(estimator(activations, *labels(placebo)), truth))
    assert np.mean(np.abs(cosines)) < 0.3
    assert abs(np.mean(cosines)) < 0.2


def test_shuffled_labels_leave_pca_the_axis_but_not_the_sign():
    axes = basis(1)
    truth = axes[:, HIDDEN // 2]
    activations, intensities, ladders = planted(truth, axes, n_ladders=100)
    cosines = []
    for seed in range(20):
        placebo = shuffled(as_contrasts(intensities, ladders), rng=np.random.default_rng(seed))
        cosines.append(cosine(pca(activations, *labels(placebo)), truth))
    assert min(np.abs(cosines)) > 0.9
    assert 3 <= sum(c > 0 for c in cosines) <= 17


@every_estimator
def test_scenario_and_order_of_the_texts_do_not_matter(name):
    estimator, truth = ESTIMATORS[name], basis(4)[:, 0]
    activations, intensities, ladders = planted(truth, basis(1), n_ladders=40)
    found = estimator(activations, intensities, ladders)
    order = torch.randperm(len(ladders), generator=generator(0))
    mixed = estimator(activations[order], intensities[order], [ladders[i] for i in order])
    torch.testing.assert_close(mixed, found, rtol=1e-4, atol=1e-5)
    names = sorted(set(ladders))
    moves = 30 * torch.randn(len(names), HIDDEN, generator=generator(1))
    moved = activations + moves[[names.index(ladder) for ladder in ladders]]
    torch.testing.assert_close(estimator(moved, intensities, ladders), found, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        estimator(-activations, intensities, ladders), -found, rtol=1e-4, atol=1e-5
    )


@every_estimator
def test_ladders_with_one_pole_do_not_count(name):
    """Scenarios that only support, far off along one axis, would pull an uncentred mean there."""
    estimator, truth = ESTIMATORS[name], basis(4)[:, 0]
    activations, intensities, ladders = planted(truth, basis(1), n_ladders=40)
    lonely = 100 + torch.randn(30, HIDDEN, generator=generator(5))
    more = torch.cat([activations, lonely])
    graded = torch.cat([intensities, torch.full((30,), 7.0)])
    names = ladders + [f"one-sided {i // 2}" for i in range(30)]
    assert torch.equal(estimator(more, graded, names), estimator(activations, intensities, ladders))


def test_mean_difference_by_hand():
    activations = torch.tensor([[1.0, 0.0], [5.0, 4.0], [11.0, 1.0], [12.0, 3.0], [0.0, 0.0]])
    intensities = torch.tensor([-6.0, 8.0, -3.0, 3.0, 9.0])
    ladders = ["a", "a", "b", "b", "c"]
    # Within a: (4, 4), within b: (1, 2); c has no pole to compare with.
    expected = torch.tensor([5.0, 6.0]) / math.sqrt(61)
    torch.testing.assert_close(mean_difference(activations, intensities, ladders), expected)


def test_pca_points_where_most_pairs_do():
    # Nine pairs of length 1 against one of length 12 that would win a mean.
    differences = torch.tensor([[1.0, 0.0]] * 9 + [[-12.0, 0.0]] + [[0.0, 0.1]])
    activations = torch.stack([differences / 2, -differences / 2], 1).reshape(-1, 2)
    intensities = torch.tensor([5.0, -5.0]).repeat(len(differences))
    ladders = [str(i // 2) for i in range(len(intensities))]
    assert pca(activations, intensities, ladders)[0] > 0.99
    # One each way: the mean decides.
    for axis in basis(0):
        tied = activations[16:20, :1] * axis
        assert cosine(pca(tied, intensities[16:20], ladders[16:20]), axis) < -0.99


@every_estimator
def test_refuses_what_has_no_direction(name):
    estimator = ESTIMATORS[name]
    activations = torch.randn(4, 3, generator=generator(0))
    ladders = ["a", "a", "b", "b"]
    one_sided = torch.tensor([5.0, 9.0, -5.0, -9.0])
    with pytest.raises(InvalidInput, match="none of the 2 ladders has both"):
        estimator(activations, one_sided, ladders)
    two_sided = torch.tensor([5.0, -9.0, 5.0, -9.0])
    with pytest.raises(InvalidInput, match="do not differ"):
        estimator(torch.ones(4, 3), two_sided, ladders)
    with pytest.raises(InvalidInput, match="4 activations, 4 intensities and 3 ladders"):
        estimator(activations, two_sided, ladders[:3])


def test_unknown_estimator():
    with pytest.raises(UnknownName, match="mean_difference"):
        ESTIMATORS["mean_diference"]


def test_score_counts_pairs_as_a_loop_does():
    activations, intensities, ladders = planted(
        basis(1)[:, 0], basis(1), n_ladders=12, strength=0.02
    )
    fixed = basis(6)[:, 0]
    score = held_out_score(
        activations, intensities, ladders, lambda *_: fixed, rng=np.random.default_rng(0)
    )
    position = (activations.double() @ fixed.double()).tolist()
    wins, sides = [], {"high": [], "low": []}
    for i, ladder in enumerate(ladders):
        own = [j for j in range(len(ladders)) if ladders[j] == ladder]
        centred = position[i] - sum(position[j] for j in own) / len(own)
        if abs(intensities[i]) > 2:
            sides["high" if intensities[i] > 0 else "low"].append(centred)
        wins += [
            position[i] > position[j] for j in own if float(intensities[i] - intensities[j]) > 3
        ]
    assert 0.2 < score.agreement < 0.8
    assert score.agreement == pytest.approx(np.mean(wins))
    spread = math.sqrt((np.var(sides["high"]) + np.var(sides["low"])) / 2)
    difference = np.mean(sides["high"]) - np.mean(sides["low"])
    assert score.effect_size == pytest.approx(difference / spread)


@quick_estimator
def test_what_was_learned_is_not_what_is_tested(name):
    """Noise in many dimensions separates perfectly where it was learned, and nowhere else."""
    estimator = ESTIMATORS[name]
    agreements, effects = [], []
    for seed in range(8):
        n = 100
        activations = torch.randn(n, 300, generator=generator(seed))
        intensities = RUNGS.repeat(n // 5)
        ladders = [str(i // 5) for i in range(n)]
        rng = np.random.default_rng(seed)
        if name != "pca":
            fitted = estimator(activations, intensities, ladders)
            own = held_out_score(activations, intensities, ladders, lambda *_, f=fitted: f, rng=rng)
            assert own.effect_size > 2
        score = held_out_score(activations, intensities, ladders, estimator, rng=rng)
        agreements.append(score.agreement)
        effects.append(score.effect_size)
    assert np.mean(agreements) == pytest.approx(0.5, abs=0.05)
    assert np.mean(effects) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize("folds", [2, 5, 50])
def test_a_strong_signal_scores_high_for_any_number_of_folds(folds):
    data = planted(basis(1)[:, 0], basis(1), n_ladders=20, strength=0.5)
    rng = np.random.default_rng(0)
    score = held_out_score(*data, mean_difference, folds=folds, rng=rng)
    assert score.agreement > 0.98
    assert score.effect_size > 3


def test_every_ladder_is_held_out_once_and_whole():
    data = planted(basis(1)[:, 0], basis(1), n_ladders=13)
    trained = []

    def spy(activations, intensities, ladders):
        trained.append(set(ladders))
        assert len(ladders) == 5 * len(set(ladders))
        return mean_difference(activations, intensities, ladders)

    held_out_score(*data, spy, folds=4, rng=np.random.default_rng(0))
    held_out = [set(data[2]) - names for names in trained]
    assert sorted(map(len, held_out)) == [3, 3, 3, 4]
    assert set.union(*held_out) == set(data[2])


def test_score_without_spread_or_ladders():
    activations = torch.tensor([[1.0], [-1.0]]).repeat(4, 1)
    intensities = torch.tensor([5.0, -5.0]).repeat(4)
    ladders = [str(i // 2) for i in range(8)]
    rng = np.random.default_rng(0)
    score = held_out_score(activations, intensities, ladders, mean_difference, rng=rng)
    assert score.agreement == 1
    assert math.isfinite(score.effect_size)
    assert score.effect_size > 1e6
    with pytest.raises(InvalidInput, match="1 ladders"):
        held_out_score(activations[:2], intensities[:2], ladders[:2], mean_difference, rng=rng)
    flat = held_out_score(activations, intensities, ladders, lambda *_: torch.zeros(1), rng=rng)
    assert flat == (0.5, 0.0)


def layered(best, n_layers=12):
    """A signal that is strongest in one layer and fades with the distance from it."""
    by_layer = {}
    intensities = RUNGS.repeat(60)
    for layer in range(n_layers):
        strength = 0.25 * 0.6 ** abs(layer - best)
        truth = basis(10 + layer)[:, 0]
        rows, own, ladders = planted(truth, basis(1), n_ladders=60, strength=strength, seed=layer)
        # All layers are of the same texts, so they share their intensities.
        by_layer[layer] = rows + strength * (intensities - own)[:, None] * truth
    contrasts = as_contrasts(intensities, ladders)
    return Activations(by_layer, dict.fromkeys(by_layer, 1.0), n_layers), contrasts


@quickest_estimator
@pytest.mark.parametrize("best", [4, 8])
def test_the_layer_where_the_direction_was_planted_is_chosen(name, best):
    activations, contrasts = layered(best)
    rng = np.random.default_rng(0)
    layer, scores = choose_layer(activations, contrasts, estimator=ESTIMATORS[name], rng=rng)
    assert layer == best
    assert sorted(scores) == list(range(3, 10))
    assert scores[layer].effect_size == max(score.effect_size for score in scores.values())


def test_layers_to_choose_from():
    activations, contrasts = layered(8)

    def choose(**options):
        rng = np.random.default_rng(0)
        return choose_layer(activations, contrasts, estimator=mean_difference, rng=rng, **options)

    layer, scores = choose(candidates=[11, 3, 5])
    assert list(scores) == [3, 5, 11]
    assert layer in (5, 11)
    assert choose(candidates=[3, 5])[1][5] == choose()[1][5]
    with pytest.raises(InvalidInput, match=r"layers \[12\]: none such"):
        choose(candidates=[12])
    with pytest.raises(InvalidInput, match="none such"):
        choose(candidates=[])


def test_a_tie_goes_to_the_earlier_layer():
    activations, contrasts = layered(6)
    same = activations.by_layer[6]
    tied = Activations({7: same, 5: same, 6: same}, {5: 1.0, 6: 1.0, 7: 1.0}, 12)
    rng = np.random.default_rng(0)
    assert choose_layer(tied, contrasts, estimator=lda, rng=rng)[0] == 5


@pytest.mark.parametrize(
    ("n_layers", "expected"), [(1, [0]), (2, [1]), (4, [1, 2, 3]), (30, list(range(8, 23)))]
)
def test_middle_layers(n_layers, expected):
    assert middle_layers(n_layers) == expected
