import dataclasses
import functools
import itertools
from typing import ClassVar

import numpy as np
import pytest
from planted import planted_base, planted_encoder, planted_space

from valueflow.errors import InvalidInput
from valueflow.hives.answering import question_agreement
from valueflow.hives.build import card_of
from valueflow.hives.encoder import (
    SHIPPED,
    Encoder,
    ValueEncoder,
    load_frozen_encoder,
    load_value_encoder,
)
from valueflow.hives.evaluation import held_out
from valueflow.hives.judge import (
    HivesJudge,
    PrototypeJudge,
    load_hives_judge,
    load_prototype_judge,
    load_small_judge,
)
from valueflow.hives.questions import load_questions
from valueflow.judges import Judge
from valueflow.models import is_fetched, load_encoder
from valueflow.theories import get_theory, get_value
from valueflow.typing import Item
from valueflow.vidb import load_starter

POWER, HEDONISM = get_value("power"), get_value("hedonism")
RUNGS = [Item(f"{x} | a topic") for x in (-8, -4, 0, 4, 8)]
OTHERS = [Item(f"{x} | topic {x}") for x in (-8, -4, 0, 4, 8)]
needs_weights = pytest.mark.skipif(
    not SHIPPED["hives"].is_dir() or not is_fetched("all-mpnet-base-v2"),
    reason="no trained space in the package, or its base is not fetched",
)


@functools.cache
def judges():
    return HivesJudge(planted_space()), PrototypeJudge(planted_encoder())


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


@BOTH
def test_each_text_is_read_once_over_all_windows(which):
    kind = (HivesJudge, PrototypeJudge)[which]
    encoder = (planted_space, planted_encoder)[which]()
    kind(encoder).rank(POWER, list(itertools.permutations(RUNGS, 3)))
    read = [text for call in encoder.encoder.calls for text in call]
    assert len(read) == len(set(read)) == 5 + 2 * which  # and what supports and opposes


def test_the_trained_judge_orders_along_the_axis_of_the_value():
    assert judges()[0].rank(POWER, [tuple(RUNGS), tuple(OTHERS)]) == [(4, 3, 2, 1, 0)] * 2
    assert judges()[0].rank(HEDONISM, [tuple(RUNGS)]) == [(0, 1, 2, 3, 4)]


class Asked(ValueEncoder):
    """Scores a text by the number in its question; without one by its length."""

    values: ClassVar = ("svt/power",)

    def score(self, value, texts):
        parts = [text.rpartition(" A: ") for text in texts]
        return np.array([float(h.split()[-1]) if h else -float(len(t)) for h, _, t in parts])


def test_the_trained_judge_reads_a_text_with_its_question_and_the_untrained_without():
    window = (Item("yes", "number 1"), Item("yes", "number 3"), Item("yes, yes", "number 2"))
    assert HivesJudge(Asked(None, name="asked")).rank(POWER, [window]) == [(1, 2, 0)]
    bare = tuple(Item(item.text) for item in window)
    assert HivesJudge(Asked(None, name="asked")).rank(POWER, [bare]) == [(0, 1, 2)]
    alone = judges()[1].rank(POWER, [window, bare])
    assert alone[0] == alone[1]


def test_a_value_without_an_axis_is_judged_as_by_the_prototype_judge():
    care, window = get_value("care-harm"), tuple(OTHERS)
    (found,) = judges()[0].rank(care, [window])
    assert [found] == judges()[1].rank(care, [window]) != judges()[0].rank(POWER, [window])


@BOTH
def test_what_is_like_supports_is_over_what_is_like_opposes(which):
    care = get_value("care-harm")
    window = (Item(care.opposes), Item(care.definition), Item(care.supports))
    assert judges()[which].rank(care, [window]) == [(2, 1, 0)]


@BOTH
def test_values_that_say_not_what_supports_them_are_refused(which):
    group = next(v for v in get_theory("svt").values if not v.steered)
    bare = dataclasses.replace(get_value("care-harm"), opposes=None)
    for value in (group, bare):
        with pytest.raises(InvalidInput, match=f"{value.id} has no 'supports' and 'opposes'"):
            judges()[which].rank(value, [tuple(RUNGS)])


def test_fingerprints_know_kind_and_encoder(tmp_path):
    base = planted_base(tmp_path)
    encoder, other = (Encoder(load_encoder(base), name=name) for name in ("one", "other"))
    one = PrototypeJudge(encoder)
    assert PrototypeJudge(other).fingerprint() == one.fingerprint() != encoder.fingerprint()
    other.encoder.max_seq_length = 8
    assert PrototypeJudge(other).fingerprint() != one.fingerprint()

    class Named(PrototypeJudge):
        name = "of another kind"

    assert Named(encoder).fingerprint() != one.fingerprint()


def test_judges_are_made_with_the_encoder_given():
    space = planted_space()
    assert load_hives_judge(space).encoder is space
    assert load_prototype_judge(space).encoder is space
    assert (load_hives_judge(space).name, load_prototype_judge(space).name) == (
        "hives",
        "prototype",
    )


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
@needs_weights
@pytest.mark.parametrize("every", [16, pytest.param(1, marks=pytest.mark.slow)])
def test_the_shipped_judge_orders_ladders_it_never_saw_better_than_the_untrained(every):
    hives, prototype = load_hives_judge(), load_prototype_judge(load_frozen_encoder())
    values = load_starter().values[::every]  # all take minutes
    shares = {v: (pairs_in_order(hives, v), pairs_in_order(prototype, v)) for v in values}
    trained, untrained = np.mean(list(shares.values()), axis=0)
    assert trained >= 0.80, shares
    assert trained - untrained >= 0.15, shares


@pytest.mark.weights
@needs_weights
@pytest.mark.skipif(not is_fetched("all-minilm-l6-v2"), reason="the small base is not fetched")
def test_the_small_judge_comes_near_its_teacher_with_a_fifth_of_the_weights():
    small, hives = load_small_judge(), load_hives_judge()
    values = load_starter().values[::16]
    shares = {v: (pairs_in_order(small, v), pairs_in_order(hives, v)) for v in values}
    own, teacher = np.mean(list(shares.values()), axis=0)
    assert own >= 0.78 and own >= teacher - 0.08, shares
    assert small.name == "hives-small" != hives.name == "hives"
    assert small.fingerprint() != hives.fingerprint()

    def in_blocks(judge):
        inner = judge.encoder.encoder[0].auto_model
        return sum(p.numel() for name, p in inner.named_parameters() if "embedding" not in name)

    assert in_blocks(small) < in_blocks(hives) / 5


@pytest.mark.weights
@needs_weights
def test_the_shipped_judge_tells_the_side_of_answers_that_nothing_taught():
    values = load_starter().values[::8]
    pairs = [pair for pair in load_questions("kept") if pair.value in values]
    encoder, held = load_value_encoder(), held_out(load_starter(), ("validation",))
    asked = question_agreement(encoder, pairs, held, seed=0)
    alone = question_agreement(encoder, pairs, held, alone=True, seed=0)
    assert asked.sides.n == 64 and asked.sides.estimate >= 0.7
    assert asked.pairs.estimate >= 0.85 and asked.pairs.estimate >= alone.pairs.estimate + 0.1


@pytest.mark.skipif(not SHIPPED["hives"].is_dir(), reason="no trained space in the package")
def test_the_shipped_weights_are_small():
    files = [f for f in SHIPPED["hives"].parent.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 8e6


@pytest.mark.parametrize("name", list(SHIPPED))
def test_the_shipped_weights_say_where_they_are_from(name):
    if not SHIPPED[name].is_dir():
        pytest.skip("no such space in the package")
    card = card_of(SHIPPED[name])
    assert isinstance(card["recipe"]["seed"], int) and card["recipe"]["base"]
    assert any("VIDB" in line for line in card["data"])
    assert all(line.rpartition(", ")[2].strip() for line in card["data"])
    assert set(card["texts"]) >= set(load_starter().values)
    assert not any("/" in corpus for corpus in card["recipe"]["corpora"])
