import itertools

import numpy as np
import pytest
from oracles import plackett_luce as oracle

from valueflow.errors import InvalidInput
from valueflow.judges import ScriptedJudge, Unranked
from valueflow.theories import get_value
from valueflow.typing import Item

POWER = get_value("power")
KNOWN = {"low": -5.0, "middle": 0.5, "high": 7.0, "high too": 7.0}
WINDOW = tuple(Item(text) for text in ("middle", "low", "high"))


def test_without_noise_the_order_is_that_of_the_intensities_wherever_shown():
    judge = ScriptedJudge(KNOWN, seed=0)
    windows = list(itertools.permutations(map(Item, ("low", "middle", "high"))))
    verdicts = judge.rank(POWER, windows)
    orders = [[w[i].text for i in v] for w, v in zip(windows, verdicts, strict=True)]
    assert orders == [["high", "middle", "low"]] * 6


def test_ties_keep_the_order_shown():
    judge = ScriptedJudge(KNOWN, seed=0)
    windows = [(Item("high"), Item("high too")), (Item("high too"), Item("high"))]
    assert judge.rank(POWER, windows) == [(0, 1), (0, 1)]


@pytest.mark.parametrize("sharpness", [0.05, 0.2])
def test_noise_is_plackett_luce_of_the_given_sharpness(sharpness):
    n = 6000
    judge = ScriptedJudge(KNOWN, sharpness=sharpness, seed=1)
    verdicts = judge.rank(POWER, [WINDOW] * n)
    utilities = [sharpness * KNOWN[item.text] for item in WINDOW]
    for order in itertools.permutations(range(3)):
        expected = float(np.exp(oracle.log_likelihood([order], utilities)))
        error = (expected * (1 - expected) / n) ** 0.5
        assert verdicts.count(order) / n == pytest.approx(expected, abs=4 * error)


def test_failures_are_unranked_at_the_given_rate_and_carry_a_reason():
    judge = ScriptedJudge(KNOWN, failure_rate=0.2, seed=2)
    verdicts = judge.rank(POWER, [WINDOW] * 4000)
    failed = [v for v in verdicts if isinstance(v, Unranked)]
    assert len(failed) / 4000 == pytest.approx(0.2, abs=0.025)
    assert all(v.reason for v in failed)
    assert set(verdicts) - set(failed) == {(2, 0, 1)}


def test_unknown_texts_are_named():
    with pytest.raises(InvalidInput, match="no scripted intensity for the text 'nobody"):
        ScriptedJudge(KNOWN, seed=0).rank(POWER, [(Item("low"), Item("nobody knows me"))])


def test_a_function_of_the_item_may_read_its_context():
    judge = ScriptedJudge(lambda item: float(len(item.context or "")), seed=0)
    window = (Item("a"), Item("a", "longest"), Item("a", "long"))
    assert judge.rank(POWER, [window]) == [(1, 2, 0)]


def test_same_seed_same_verdicts_and_every_call_draws_anew():
    first, second = (ScriptedJudge(KNOWN, sharpness=0.05, seed=3) for _ in range(2))
    verdicts = first.rank(POWER, [WINDOW] * 50)
    assert second.rank(POWER, [WINDOW] * 50) == verdicts
    assert first.rank(POWER, [WINDOW] * 50) != verdicts


def test_the_fingerprint_knows_everything_that_is_set():
    settings = [
        (KNOWN, {}),
        (KNOWN | {"low": -5.1}, {}),
        (KNOWN, {"sharpness": 1.0}),
        (KNOWN, {"failure_rate": 0.1}),
        (KNOWN, {"seed": 1}),
    ]
    prints = [
        ScriptedJudge(known, **{"seed": 0} | options).fingerprint() for known, options in settings
    ]
    assert len(set(prints)) == len(prints)
    backwards = dict(reversed(KNOWN.items()))
    assert ScriptedJudge(backwards, seed=0).fingerprint() == prints[0]
