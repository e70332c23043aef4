import functools

import numpy as np
import pandas as pd
import pytest
import torch
from planted import PlantedEncoder, planted_set

from valueflow.errors import InvalidInput
from valueflow.hives.train import (
    GradedSet,
    agreement,
    corpus_sets,
    neutral_sets,
    pair_weights,
    train_head,
    vidb_sets,
)
from valueflow.vidb import load_starter

VALUES = ("svt/power", "svt/hedonism", "mft/care")
ENCODER = PlantedEncoder()


def sets(seed, **options):
    return [planted_set(value, seed=seed, **options) for value in VALUES]


@functools.cache
def trained(seed=0, shuffle=False):
    return train_head(
        ENCODER, sets(0, shuffle=shuffle), sets(1, n_ladders=10, shuffle=shuffle), rank=8, seed=seed
    )


def within_ladders(head, graded):
    """Share of pairs of one ladder, more than 3 apart, that the head orders right."""
    ladders = np.array(graded.ladders)
    parts = []
    for ladder in dict.fromkeys(graded.ladders):
        own = np.flatnonzero(ladders == ladder)
        texts = tuple(graded.texts[i] for i in own)
        part = GradedSet(graded.value, texts, graded.intensities[own], None, 1.0)
        parts.append(agreement(ENCODER, head, [part]))
    return float(np.mean(parts))


def test_the_planted_order_is_found_in_ladders_never_seen():
    held_out = sets(2)
    assert agreement(ENCODER, trained(), held_out) > 0.9
    assert all(within_ladders(trained(), graded) > 0.95 for graded in held_out)


def test_placebo_shuffled_labels_teach_nothing():
    head = trained(shuffle=True)
    assert agreement(ENCODER, head, sets(2)) == pytest.approx(0.5, abs=0.12)


def test_the_prototype_alone_does_not_know_the_planted_order():
    head = trained()
    alone = type(head)(**(vars(head) | {"P": head.P * 0, "prototype": np.float32([0, 1, 1])}))
    assert agreement(ENCODER, alone, sets(2)) == pytest.approx(0.5, abs=0.1)
    # So validation gives it little weight.
    assert head.prototype[2] <= 0.5


def test_same_seed_same_head_and_the_callers_generator_is_untouched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    again = trained.__wrapped__()
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert again.fingerprint() == trained().fingerprint() != trained(seed=1).fingerprint()


def test_pair_weights_sum_to_one_grow_with_the_gap_and_half_stays_within_ladders():
    graded = planted_set("svt/power", seed=3, n_ladders=8)
    weights = pair_weights(graded)
    ladders = np.array(graded.ladders)
    same = ladders[:, None] == ladders[None, :]
    gap = graded.intensities[:, None] - graded.intensities[None, :]
    assert weights.sum() == pytest.approx(1)
    assert (weights[gap <= 1.5] == 0).all() and (weights[gap > 1.5] > 0).all()
    flat = pair_weights(GradedSet(graded.value, graded.texts, graded.intensities, None, 1.0))
    assert flat.sum() == pytest.approx(1)
    assert weights[same].sum() == pytest.approx(0.5 + 0.5 * flat[same].sum())
    np.testing.assert_allclose(weights[~same], flat[~same] / 2)
    np.testing.assert_allclose(flat, np.where(gap > 1.5, np.minimum(gap, 8), 0) * flat.max() / 8)


@pytest.mark.parametrize("ladders", [None, ("a",) * 4, tuple("abcd")])
def test_sets_without_a_pair_are_refused_instead_of_training_on_nan(ladders):
    intensities = np.array([0.0, 0.5, 1.0, 1.4]) if ladders != tuple("abcd") else np.arange(4) * 4.0
    graded = GradedSet("svt/power", tuple("wxyz"), intensities, ladders, 1.0)
    with pytest.raises(InvalidInput, match="svt/power: no two texts"):
        pair_weights(graded)


def test_a_corpus_without_ladders_adds_a_value():
    ladders = planted_set("svt/security", seed=0)
    corpus = GradedSet(ladders.value, ladders.texts, ladders.intensities, None, 0.3)
    validation = sets(1, n_ladders=10)
    head = train_head(ENCODER, [*sets(0), corpus], validation, rank=8, epochs=90, seed=0)
    assert agreement(ENCODER, head, [planted_set("svt/security", seed=2)]) > 0.85


def test_agreement_counts_pairs_more_than_the_gap_apart():
    graded = planted_set("svt/power", seed=0, n_ladders=4)
    features = ENCODER.features(graded.texts)[:, 0]
    pairs = [
        features[i] > features[j]
        for i, a in enumerate(graded.intensities)
        for j, b in enumerate(graded.intensities)
        if a - b > 5
    ]
    head = trained()
    plain = type(head)(
        text_mean=head.text_mean * 0,
        text_sd=np.ones_like(head.text_sd),
        value_mean=head.value_mean * 0,
        value_sd=np.ones_like(head.value_sd),
        P=np.eye(1, len(head.text_mean), dtype=np.float32),
        Q=np.zeros((1, len(head.value_mean)), dtype=np.float32),
        q=np.ones(1, dtype=np.float32),
        prototype=np.float32([0, 1, 0]),
    )
    assert agreement(ENCODER, plain, [graded], gap=5.0) == pytest.approx(np.mean(pairs))


def test_every_value_of_the_database_is_a_set_with_its_ladders():
    vidb = load_starter()
    found = {graded.value: graded for graded in vidb_sets(vidb, "judge")}
    assert tuple(found) == vidb.values
    rows = vidb.of("power", "judge").frame
    assert found["svt/power"].texts == tuple(rows["text"])
    assert found["svt/power"].ladders == tuple(rows["ladder"])


def corpus(rows):
    columns = ["text", "value", "direction", "grade"]
    return pd.DataFrame(rows, columns=columns).astype({"direction": object, "grade": object})


def test_corpus_rows_are_grouped_and_graded():
    grades = [1.0, 0.5, 0.0, -0.5, -1.0]
    rows = [(f"p{i}", "svt/power", int(np.sign(grades[i % 5])), grades[i % 5]) for i in range(10)]
    rows += [(f"h{i}", "svt/hedonism", (-1) ** i, None) for i in range(8)]
    rows += [(f"too few {i}", "svt/security", 1, grades[i]) for i in range(5)]
    rows += [(f"one grade {i}", "svt/tradition", 1, 0.5) for i in range(9)]
    rows += [(f"only touched {i}", "svt/face", None, None) for i in range(9)]
    hedonism, power = corpus_sets(corpus(rows), weight=0.2)
    assert (hedonism.value, power.value) == ("svt/hedonism", "svt/power")
    assert power.texts == tuple(f"p{i}" for i in range(10))
    assert power.intensities.tolist() == [8.0, 4.0, 0.0, -4.0, -8.0] * 2
    assert hedonism.intensities.tolist() == [4.0, -4.0] * 4
    assert power.ladders is None and power.weight == 0.2


def test_neutral_texts_are_middle_rungs_of_other_values_of_the_split():
    vidb = load_starter()
    found = {graded.value: graded for graded in neutral_sets(vidb, "judge", n=20, seed=0)}
    assert tuple(found) == vidb.values
    graded, own = found["svt/power"], vidb.of("power", "judge").frame
    assert graded.texts[: len(own)] == tuple(own["text"])
    assert (graded.intensities[len(own) :] == 0).all() and graded.ladders is None
    added = vidb.frame.set_index("text").loc[list(graded.texts[len(own) :])]
    assert len(added) == 20
    assert set(added["rung"]) == {3} and set(added["split"]) == {"judge"}
    assert "svt/power" not in set(added["value"])
    again = {graded.value: graded for graded in neutral_sets(vidb, "judge", n=20, seed=0)}
    other = {graded.value: graded for graded in neutral_sets(vidb, "judge", n=20, seed=1)}
    assert again["svt/power"].texts == graded.texts != other["svt/power"].texts


def test_a_database_of_one_value_has_no_neutral_texts():
    assert neutral_sets(load_starter().of("power"), "judge", seed=0) == []
