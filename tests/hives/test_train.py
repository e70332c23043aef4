import functools

import numpy as np
import pytest
import torch
from planted import PlantedEncoder, planted_set

from valueflow.errors import InvalidInput
from valueflow.hives.train import (
    GradedSet,
    agreement,
    pair_weights,
    train_head,
    valuelens_sets,
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
    head = train_head(ENCODER, [*sets(0), corpus], validation, rank=8, epochs=30, seed=0)
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


def corpus_line(text, value="power", grade="mild_support", model="m"):
    return f"{model}###{text}###[{value}]###[{grade}]"


def test_valuelens_rows_are_grouped_and_graded(tmp_path):
    grades = ["strong_support", "mild_support", "neutral", "mild_resistance", "strong_resistance"]
    lines = [corpus_line(f"p{i}", grade=grades[i % 5]) for i in range(10)]
    lines += [corpus_line(f"h{i}", value="Hedonism", grade=grades[i % 5]) for i in range(8)]
    bad = [
        "",
        "no fields",
        "m###two###[power]",
        "m###three###[power]###[mild_support]###more",
        corpus_line("unknown grade", grade="support"),
        corpus_line("unknown value", value="valour"),
        corpus_line("several values", value="power, hedonism"),
        corpus_line("ambiguous or none", value=""),
        *(corpus_line(f"too few {i}", value="security", grade=grades[i]) for i in range(5)),
        *(corpus_line(f"one grade {i}", value="tradition") for i in range(9)),
    ]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*bad, *lines, corpus_line("a\u2028b")]), encoding="utf-8")
    hedonism, power = valuelens_sets(path, weight=0.2)
    assert (hedonism.value, power.value) == ("svt/hedonism", "svt/power")
    assert power.texts == (*(f"p{i}" for i in range(10)), "a\u2028b")
    assert power.intensities.tolist() == [8.0, 4.0, 0.0, -4.0, -8.0] * 2 + [4.0]
    assert len(hedonism.texts) == 8
    assert power.ladders is None and power.weight == 0.2


def test_values_that_are_not_steered_are_left_out(tmp_path):
    path = tmp_path / "corpus.txt"
    grades = ["strong_support", "strong_resistance"] * 5
    lines = [corpus_line(f"{i}", value="openness to change", grade=g) for i, g in enumerate(grades)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert valuelens_sets(path) == []
