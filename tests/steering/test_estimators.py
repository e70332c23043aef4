import math

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from valueflow.steering import estimators
from valueflow.steering.directions import ESTIMATORS, lda, mean_difference, pca
from valueflow.steering.estimators import logistic, noise_root, whitened
from valueflow.steering.graded import grade


def generator(seed):
    return torch.Generator().manual_seed(seed)


def basis(seed, hidden):
    return torch.linalg.qr(torch.randn(hidden, hidden, generator=generator(seed))).Q


def gaussian(difference, root, *, n_ladders, seed=0, offsets=5.0):
    """A supporting and an opposing text per ladder, `difference` apart, noise of covariance root².

    Every ladder has an offset of its own.
    """
    draw, hidden = generator(seed), len(difference)
    sign = torch.tensor([1.0, -1.0]).repeat(n_ladders)
    offset = offsets * torch.randn(n_ladders, hidden, generator=draw).repeat_interleave(2, 0)
    noise = torch.randn(2 * n_ladders, hidden, generator=draw) @ root
    rows = offset + noise + sign[:, None] * difference / 2
    return rows, 6 * sign, [f"ladder {i // 2:05}" for i in range(2 * n_ladders)]


def uneven(hidden, seed=1):
    """A noise root with standard deviations from 0.5 to 2, along axes at an angle to all others."""
    axes = basis(seed, hidden)
    return (axes * torch.linspace(0.5, 2, hidden)) @ axes.T


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def test_logistic_is_the_optimal_reader_of_gaussian_classes():
    hidden = 8
    truth, root = 2 * basis(0, hidden)[:, 0], uneven(hidden)
    even = logistic(*gaussian(truth, torch.eye(hidden), n_ladders=3000))
    assert cosine(even, truth) > 0.995
    data = gaussian(truth, root, n_ladders=3000)
    optimal = torch.linalg.solve(root @ root, truth)
    assert cosine(truth, optimal) < 0.9
    assert cosine(logistic(*data), optimal) > 0.99
    assert cosine(logistic(*data), lda(*data)) > 0.99


def test_one_direction_of_the_whitened_space_has_two_images():
    """Reading, the difference of means is Fisher's discriminant; steering, it is itself."""
    hidden = 12
    data = gaussian(basis(0, hidden)[:, 0], uneven(hidden), n_ladders=40)
    reads, steers = (whitened(mean_difference, to=to)(*data) for to in ("read", "steer"))
    torch.testing.assert_close(reads, lda(*data), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(steers, mean_difference(*data), rtol=1e-4, atol=1e-6)
    assert cosine(reads, steers) < 0.9


def test_a_step_of_the_logistic_probe_is_the_difference_between_the_classes():
    hidden = 8
    truth = 2 * basis(0, hidden)[:, 0]
    data = gaussian(truth, uneven(hidden), n_ladders=3000)
    assert cosine(logistic(*data), truth) < 0.9
    assert cosine(ESTIMATORS["whitened_logistic"](*data), truth) > 0.99
    # The weights do not depend on the space they were found in, but for the ridge.
    assert cosine(whitened(logistic, to="read")(*data), logistic(*data)) > 0.995


def test_whitening_keeps_pca_from_a_loud_axis():
    hidden = 16
    axes = basis(2, hidden)
    scales = torch.full((hidden,), 0.5)
    scales[0] = 6.0
    root = (axes * scales) @ axes.T
    data = gaussian(3 * axes[:, 1], root, n_ladders=400)
    assert abs(cosine(pca(*data), axes[:, 0])) > 0.9
    assert cosine(ESTIMATORS["whitened_pca"](*data), axes[:, 1]) > 0.95


def test_root_squares_to_the_covariance():
    data = gaussian(basis(0, 6)[:, 0], uneven(6), n_ladders=30)
    graded = grade(*data)
    root = noise_root(graded)
    expected, _ = ledoit_wolf(graded.residuals().numpy(), assume_centered=True)
    np.testing.assert_allclose((root @ root).numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(root, root.T)


def test_without_noise_nothing_is_whitened():
    data = gaussian(torch.tensor([3.0, 4.0]), torch.zeros(2, 2), n_ladders=5)
    for to in ("read", "steer"):
        found = whitened(mean_difference, to=to)(*data)
        torch.testing.assert_close(found, torch.tensor([0.6, 0.8]), rtol=1e-4, atol=1e-5)


def test_ridge_in_the_span_is_ridge_in_the_whole_space(monkeypatch):
    monkeypatch.setattr(estimators, "PENALTIES", (90.0,))
    rows, intensities, ladders = gaussian(
        basis(0, 60)[:, 0], torch.eye(60), n_ladders=15, offsets=1.0
    )
    centred = grade(rows, intensities, ladders).centred.numpy()
    scaled = centred / math.sqrt((centred**2).sum(1).mean())
    model = LogisticRegression(C=3.0, tol=1e-10, max_iter=5000)
    weights = model.fit(scaled, (intensities > 0).numpy()).coef_[0]
    expected = torch.from_numpy(weights / np.linalg.norm(weights)).float()
    torch.testing.assert_close(logistic(rows, intensities, ladders), expected, rtol=1e-3, atol=1e-5)


def test_penalty_is_judged_on_whole_ladders():
    """Texts that occur five times in a ladder could be learned by heart, if not left out whole."""
    rows, intensities, ladders = gaussian(torch.zeros(40), torch.eye(40), n_ladders=30)
    copies = (rows.repeat(5, 1), intensities.repeat(5), ladders * 5)
    effects = estimators._held_out_effects(estimators._Reduced.of(grade(*copies)))
    assert len(effects) == len(estimators.PENALTIES)
    assert np.abs(effects).max() < 0.8


def test_poles_that_do_not_overlap():
    """Any ridge tells them apart; the direction must not hang on the texts nearest the boundary."""
    truth = 12 * basis(0, 30)[:, 0]
    data = gaussian(truth, torch.eye(30), n_ladders=100)
    found = cosine(logistic(*data), truth)
    assert found > cosine(mean_difference(*data), truth) - 0.002
    assert found > cosine(lda(*data), truth) + 0.01


@pytest.mark.parametrize("name", ["logistic", "whitened_logistic", "whitened_pca"])
def test_a_turn_or_another_unit_changes_nothing(name):
    estimator, turn = ESTIMATORS[name], basis(9, 24)
    rows, intensities, ladders = gaussian(
        2 * basis(0, 24)[:, 0], uneven(24), n_ladders=25, offsets=1.0
    )
    found = estimator(rows, intensities, ladders)
    turned = estimator(rows @ turn, intensities, ladders)
    torch.testing.assert_close(turned, found @ turn, rtol=1e-3, atol=1e-3)
    for unit in (1e-3, 1e3):
        scaled = estimator(unit * rows, intensities, ladders)
        torch.testing.assert_close(scaled, found, rtol=1e-3, atol=1e-4)


def test_a_single_ladder_gives_the_difference_of_means():
    rows = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.0, 1.0]])
    data = (rows, torch.tensor([5.0, -5.0]), ["a", "a"])
    assert cosine(logistic(*data), mean_difference(*data)) > 1 - 1e-6
