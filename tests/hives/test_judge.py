import dataclasses
import functools
import itertools

import numpy as np
import pytest
from planted import PlantedEncoder, planted_set

from valueflow.errors import InvalidInput
from valueflow.hives.judge import (
    SHIPPED_HEAD,
    HivesJudge,
    PrototypeJudge,
    load_hives_judge,
    load_prototype_judge,
    value_features,
)
from valueflow.hives.train import train_head
from valueflow.judges import Judge
from valueflow.models import is_fetched
from valueflow.theories import get_theory, get_value
from valueflow.typing import Item
from valueflow.vidb import load_starter

POWER = get_value("power")
ENCODER = PlantedEncoder()
RUNGS = [Item(f"{x} | a topic") for x in (-8, -4, 0, 4, 8)]
OTHERS = [Item(f"{x} | topic {x}") for x in (-8, -4, 0, 4, 8)]
needs_encoder = pytest.mark.skipif(
    not is_fetched("all-mpnet-base-v2"), reason="all-mpnet-base-v2 is not fetched"
)


@functools.cache
def judges():
    one = [planted_set("svt/power", seed=s) for s in (0, 1)]
    head = train_head(ENCODER, one[:1], one[1:], rank=4, epochs=30, seed=0)
    return HivesJudge(ENCODER, head), PrototypeJudge(ENCODER)


BOTH = pytest.mark.parametrize("which", [0, 1], ids=["hives", "prototype"])


@BOTH
def test_verdicts_are_permutations_of_their_windows(which):
    windows = [tuple(RUNGS[:n]) for n in (1, 2, 5)]
    verdicts = judges()[which].rank(POWER, windows)
    assert [sorted(v) for v in verdicts] == [[0], [0, 1], [0, 1, 2, 3, 4]]
    assert judges()[which].rank(POWER, []) == []
    assert isinstance(judges()[which], Judge)


@BOTH
def test_the_place_in_the_window_and_its_company_do_not_matter(which):
    judge = judges()[which]
    windows = [tuple(w) for w in itertools.permutations(OTHERS)] + [tuple(OTHERS[1:4])]
    verdicts = judge.rank(POWER, windows)
    orders = [[w[i] for i in v] for w, v in zip(windows, verdicts, strict=True)]
    assert all(order == orders[0] for order in orders[:-1])
    assert orders[-1] == [item for item in orders[0] if item in OTHERS[1:4]]
    assert judge.rank(POWER, windows[::-1]) == verdicts[::-1]


@BOTH
def test_equal_scores_keep_the_order_shown(which):
    twins = (Item("4 | a topic", "one"), Item("4 | a topic", "other"), Item("4 | a topic"))
    assert judges()[which].rank(POWER, [twins]) == [(0, 1, 2)]


def test_the_trained_judge_orders_a_new_ladder():
    assert judges()[0].rank(POWER, [tuple(RUNGS)]) == [(4, 3, 2, 1, 0)]


def test_the_prototype_prefers_what_is_like_supports_over_what_is_like_opposes():
    window = (Item(POWER.opposes), Item(POWER.definition), Item(POWER.supports))
    assert judges()[1].rank(POWER, [window]) == [(2, 1, 0)]


def test_value_features_are_the_contrast_and_the_definition():
    found = value_features(ENCODER, POWER)
    supports, opposes, definition = ENCODER.embed([POWER.supports, POWER.opposes, POWER.definition])
    np.testing.assert_array_equal(found, np.concatenate([supports - opposes, definition]))


@BOTH
def test_values_that_say_not_what_supports_them_are_refused(which):
    group = next(v for v in get_theory("svt").values if not v.steered)
    bare = dataclasses.replace(POWER, opposes=None)
    for value in (group, bare):
        with pytest.raises(InvalidInput, match=f"{value.id} has no 'supports' and 'opposes'"):
            judges()[which].rank(value, [tuple(RUNGS)])


def test_fingerprints_know_judge_head_and_encoder():
    hives, prototype = judges()
    other = HivesJudge(ENCODER, dataclasses.replace(hives.head, q=hives.head.q + 1))
    noisy = HivesJudge(PlantedEncoder(noise=2.0), hives.head)
    prints = [judge.fingerprint() for judge in (hives, prototype, other, noisy)]
    assert len(set(prints)) == 4
    assert HivesJudge(PlantedEncoder(), hives.head).fingerprint() == prints[0]


def pairs_in_order(judge, value):
    """Share of pairs within test ladders, more than 3 apart, that the judge orders right."""
    right = []
    for _, rows in load_starter().of(value, "test").frame.groupby("ladder"):
        window = tuple(Item(t, c) for t, c in zip(rows["text"], rows["context"], strict=True))
        (verdict,) = judge.rank(get_value(value), [window])
        place, known = np.argsort(verdict), rows["intensity"].to_numpy()
        right += list((place[:, None] < place[None, :])[known[:, None] - known[None, :] > 3])
    return float(np.mean(right))


@pytest.mark.weights
@needs_encoder
@pytest.mark.skipif(not SHIPPED_HEAD.is_dir() or not any(SHIPPED_HEAD.iterdir()), reason="no head")
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_shipped_judge_orders_ladders_it_never_saw_better_than_the_untrained(every):
    hives = load_hives_judge()
    prototype = load_prototype_judge(hives.encoder)
    values = load_starter().values[::every]  # all take minutes
    shares = {v: (pairs_in_order(hives, v), pairs_in_order(prototype, v)) for v in values}
    trained, untrained = np.mean(list(shares.values()), axis=0)
    assert trained >= 0.70, shares
    assert trained - untrained >= 0.08, shares
