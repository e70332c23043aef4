import dataclasses
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from valueflow.errors import InvalidInput, UnknownName
from valueflow.steering.contrasts import Contrast, contrasts, pairs, shuffled
from valueflow.vidb import Vidb


def row(ladder, rung, intensity, *, register="statement", context=None, split="steer"):
    return {
        "id": f"{ladder}/{rung}",
        "value": ladder.rsplit("/", 1)[0],
        "ladder": ladder,
        "register": register,
        "context": context,
        "text": f"{ladder} text {rung}",
        "intensity": intensity,
        "split": split,
    }


def database(*rows):
    return Vidb(pd.DataFrame(rows))


def graded(*intensities_by_ladder):
    return [
        Contrast(f"svt/power/x-{n:02}/{i}", f"svt/power/x-{n:02}", "q", f"text {n} {i}", intensity)
        for n, intensities in enumerate(intensities_by_ladder)
        for i, intensity in enumerate(intensities)
    ]


def test_every_text_of_value_and_split_answers_its_question():
    vidb = database(
        row("svt/power/answer-01", 1, -7.5, register="answer", context="Who should lead?"),
        row("svt/power/answer-01", 5, 8.0, register="answer", context="Who should lead?"),
        row("svt/power/statement-01", 3, 0.5),
        row("svt/power/post-01", 3, 0.25, register="post", context=float("nan")),
        row("svt/power/rule-01", 4, 3.0, register="rule", context=""),
        row("svt/power/rule-02", 4, 3.0, register="rule", split="test"),
        row("svt/hedonism/rule-01", 4, 3.0, register="rule"),
    )
    found = contrasts(vidb, "power")
    assert [(c.question, c.intensity) for c in found] == [
        ("Who should lead?", -7.5),
        ("Who should lead?", 8.0),
        ("Tell me about yourself.", 0.5),
        ("What's on your mind?", 0.25),
        ("Can you give me a rule of thumb?", 3.0),
    ]
    assert found[0] == Contrast(
        "svt/power/answer-01/1",
        "svt/power/answer-01",
        "Who should lead?",
        "svt/power/answer-01 text 1",
        -7.5,
    )
    assert [c.text_id for c in contrasts(vidb, "svt/power", split="test")] == [
        "svt/power/rule-02/4"
    ]


def test_says_what_is_missing():
    vidb = database(
        row("svt/power/rule-01", 1, 1.0, register="rule"),
        row("svt/hedonism/answer-01", 1, 1.0, register="answer"),
    )
    with pytest.raises(InvalidInput, match=r"no texts of svt/power in the split 'test'"):
        contrasts(vidb, "svt/power", split="test")
    with pytest.raises(UnknownName, match="did you mean steer"):
        contrasts(vidb, "svt/power", split="stear")
    with pytest.raises(UnknownName, match="svt/security"):
        contrasts(vidb, "svt/security")
    with pytest.raises(InvalidInput, match=r"svt/hedonism/answer-01/1: register 'answer'"):
        contrasts(vidb, "svt/hedonism")


def test_pairs_are_all_combinations_of_poles_within_a_ladder():
    # At the threshold itself a text takes no side.
    found = graded([-8.0, -2.5, 0.0, 2.5, 9.0], [5.0, 6.0], [2.0, -7.0], [7.0, -2.0], [7.0, -7.0])
    assert sorted(pairs(found)) == [(3, 0), (3, 1), (4, 0), (4, 1), (11, 12)]
    assert sorted(pairs(found, threshold=5.0)) == [(4, 0), (11, 12)]
    assert pairs(found, threshold=10.0) == pairs([]) == []


def test_shuffling_moves_only_intensities_and_only_within_ladders():
    rng = np.random.default_rng(0)
    # The same intensities in every ladder: what correlates is not that some ladders are higher.
    truth = graded(*[[-8.0, -4.0, 0.5, 4.0, 8.0]] * 200)
    placebo = shuffled(truth, rng=rng)
    moved = 0
    for before, after in zip(truth, placebo, strict=True):
        assert dataclasses.replace(after, intensity=before.intensity) == before
        moved += after.intensity != before.intensity
    for ladder in {c.ladder for c in truth}:
        assert Counter(c.intensity for c in truth if c.ladder == ladder) == Counter(
            c.intensity for c in placebo if c.ladder == ladder
        )
    # A uniform permutation of five moves four of them on average.
    assert moved / len(truth) == pytest.approx(0.8, abs=0.04)
    both = np.corrcoef([c.intensity for c in truth], [c.intensity for c in placebo])[0, 1]
    assert abs(both) < 0.1


def test_shuffling_depends_on_the_seed_alone():
    truth = graded([-8.0, -4.0, 0.0, 4.0, 8.0], [-7.0, -3.0, 1.0, 5.0, 9.0])

    def draw(seed):
        return shuffled(truth, rng=np.random.default_rng(seed))

    assert draw(3) == draw(3)
    assert len({tuple(draw(seed)) for seed in range(5)}) > 1
