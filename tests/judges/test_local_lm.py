import itertools
import re

import numpy as np
import pytest
from chat_server import BLOCK

from valueflow.errors import InvalidInput
from valueflow.judges import Judge, Rater, Unranked
from valueflow.judges.cache import AnswerCache
from valueflow.judges.local_lm import LanguageModel, LocalLMJudge
from valueflow.theories import get_value
from valueflow.typing import Item

POWER = get_value("power")
KNOWN = {f"text {i}": 1.3 * i - 4 for i in range(7)}
TEXTS = list(KNOWN)


class PlantedModel:
    """Prefers by known intensities, plus a liking for whatever is shown as A."""

    name = "planted"

    def __init__(self, *, bias=0.0, known=KNOWN, says=None):
        self.bias, self.known, self.says = bias, known, says
        self.asked = []

    def fingerprint(self):
        return f"planted-{self.bias}"

    def choose(self, prompts, options):
        assert options == ("A", "B")
        self.asked += prompts
        shown = [{label: text for _, label, text in BLOCK.findall(prompt)} for prompt in prompts]
        odds = [self.known[own["A"]] - self.known[own["B"]] + self.bias for own in shown]
        return np.array(odds, dtype=np.float64)

    def complete(self, prompts, *, max_new_tokens):
        self.asked += prompts
        return [self.says(prompt) for prompt in prompts]


def windows(size=4):
    return [tuple(map(Item, own)) for own in itertools.permutations(TEXTS, size)][::19]


def orders(windows, verdicts):
    return [[KNOWN[w[i].text] for i in v] for w, v in zip(windows, verdicts, strict=True)]


@pytest.mark.parametrize("bias", [0.0, 50.0, -3.0])
def test_planted_preferences_are_ranked_whatever_the_liking_for_a_place(bias):
    judge = LocalLMJudge(PlantedModel(bias=bias))
    assert isinstance(judge.model, LanguageModel)
    assert isinstance(judge, Judge) and isinstance(judge, Rater)
    found = orders(windows(), judge.rank(POWER, windows()))
    assert all(own == sorted(own, reverse=True) for own in found)


def test_the_bias_can_be_seen_and_each_order_has_its_odds():
    judge = LocalLMJudge(PlantedModel(bias=2.0))
    pairs = [(Item("text 5"), Item("text 1")), (Item("text 1"), Item("text 5"))]
    forth, back = judge.compare(POWER, pairs)
    assert [forth.as_first, forth.as_second] == pytest.approx([5.2 + 2, 5.2 - 2])
    assert [back.as_first, back.as_second] == pytest.approx([-5.2 + 2, -5.2 - 2])
    for preference, log_odds in ((forth, 5.2), (back, -5.2)):
        assert preference.log_odds == pytest.approx(log_odds)
        assert preference.position_bias == pytest.approx(2.0)


def test_each_ordered_pair_is_computed_once_across_windows_and_calls():
    judge = LocalLMJudge(PlantedModel())
    judge.rank(POWER, windows())
    judge.rank(POWER, windows(3))
    assert len(judge.model.asked) == len(set(judge.model.asked)) == 7 * 6
    judge.rank(get_value("hedonism"), windows(3)[:1])
    assert len(judge.model.asked) == 7 * 6 + 6


def test_the_score_is_the_least_squares_bradley_terry_fit_to_inconsistent_odds():
    """An oracle by least squares on all pairs, for odds that no scores explain."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        odds = rng.normal(size=(5, 5))
        odds -= odds.T

        class Odd(PlantedModel):
            def choose(self, prompts, options, odds=odds):
                shown = [[int(text[5:]) for *_, text in BLOCK.findall(p)] for p in prompts]
                return np.array([odds[a, b] for a, b in shown])

        pairs = list(itertools.combinations(range(5), 2))
        design = np.zeros((len(pairs), 5))
        for row, (i, j) in enumerate(pairs):
            design[row, [i, j]] = 1, -1
        scores = np.linalg.lstsq(design, np.array([odds[p] for p in pairs]), rcond=None)[0]
        (verdict,) = LocalLMJudge(Odd()).rank(POWER, [tuple(map(Item, TEXTS[:5]))])
        assert list(verdict) == np.argsort(-scores).tolist()


def test_ties_are_broken_the_same_way_wherever_the_texts_are_shown():
    judge = LocalLMJudge(PlantedModel(known=dict.fromkeys(TEXTS, 0.0)))
    shown = list(itertools.permutations(map(Item, TEXTS[:4])))
    verdicts = judge.rank(POWER, shown)
    found = {tuple(w[i].text for i in v) for w, v in zip(shown, verdicts, strict=True)}
    assert len(found) == 1
    others = {
        tuple(TEXTS[i] for i in judge.rank(get_value(value), [shown[0]])[0])
        for value in ("power", "hedonism", "security", "care-harm", "tradition")
    }
    assert len(others) > 1  # Not by the alphabet either: which text wins depends on the value.
    assert judge.rank(POWER, [(Item("text 1"), Item("text 1"))]) == [(0, 1)]


def test_odds_that_are_missing_make_their_windows_unranked_and_no_others(tmp_path):
    known = KNOWN | {"text 3": float("nan")}
    cache = AnswerCache(tmp_path / "answers.sqlite")
    judge = LocalLMJudge(PlantedModel(known=known), cache=cache)
    shown = windows()
    verdicts = judge.rank(POWER, shown)
    for window, verdict in zip(shown, verdicts, strict=True):
        assert isinstance(verdict, Unranked) == (Item("text 3") in window)
    mended = LocalLMJudge(PlantedModel(), cache=cache)
    found = orders(shown, mended.rank(POWER, shown))
    assert all(own == sorted(own, reverse=True) for own in found)
    assert len(mended.model.asked) == 2 * 6  # The pairs with the text that was missing.


def test_a_run_that_dies_keeps_what_was_computed(tmp_path):
    class Dying(PlantedModel):
        def choose(self, prompts, options):
            if self.asked:
                raise KeyboardInterrupt
            return super().choose(prompts, options)

    known = {f"text {i}": float(i) for i in range(12)}
    cache = AnswerCache(tmp_path / "answers.sqlite")
    window = tuple(map(Item, known))
    dying = LocalLMJudge(Dying(known=known), cache=cache)
    with pytest.raises(KeyboardInterrupt):
        dying.rank(POWER, [window])
    again = LocalLMJudge(PlantedModel(known=known), cache=AnswerCache(cache.path))
    assert again.rank(POWER, [window]) == [tuple(range(11, -1, -1))]
    assert len(dying.model.asked) == 64
    assert len(dying.model.asked) + len(again.model.asked) == 12 * 11


def test_another_model_is_not_believed_to_have_answered(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    judges = [LocalLMJudge(PlantedModel(bias=bias), cache=cache) for bias in (0.0, 1.0)]
    for judge in judges:
        judge.rank(POWER, windows()[:1])
    assert len(judges[1].model.asked) == 12
    assert judges[0].fingerprint() != judges[1].fingerprint()


def says_the_order(prompt):
    known = {label: KNOWN[text] for _, label, text in BLOCK.findall(prompt)}
    return " > ".join(sorted(known, key=lambda label: -known[label]))


def test_written_rankings_are_read_and_nonsense_is_unranked():
    def says(prompt):
        return "I like them all!" if "text 0" in prompt else says_the_order(prompt)

    judge = LocalLMJudge(PlantedModel(says=says), method="list")
    shown = [*windows(), (Item("text 2"),)]
    for window, verdict in zip(shown, judge.rank(POWER, shown), strict=True):
        if Item("text 0") in window:
            assert verdict == Unranked("no ranking in the answer", "I like them all!")
        else:
            assert [KNOWN[window[i].text] for i in verdict] == sorted(
                (KNOWN[item.text] for item in window), reverse=True
            )
    assert len(judge.model.asked) == len(windows())


def test_ratings_are_what_the_model_writes():
    says = {"text 1": '{"rating": -7.5}', "text 2": "12", "text 3": Unranked("too long")}

    def answer(prompt):
        return next(said for text, said in says.items() if re.search(rf"^{text}$", prompt, re.M))

    judge = LocalLMJudge(PlantedModel(says=answer))
    first, second, third = judge.rate(POWER, [Item(text) for text in says])
    assert first == -7.5 and third == Unranked("too long")
    assert isinstance(second, Unranked)


def test_the_fingerprint_knows_method_and_length():
    judges = [
        LocalLMJudge(PlantedModel(), method="pairwise"),
        LocalLMJudge(PlantedModel(), method="list"),
        LocalLMJudge(PlantedModel(), method="list", max_new_tokens=9),
    ]
    assert len({judge.fingerprint() for judge in judges}) == 3
    assert [judge.name for judge in judges[:2]] == ["local:planted:pairwise", "local:planted:list"]


def test_an_unknown_method_is_refused():
    with pytest.raises(InvalidInput, match="'pairwise' or 'list', got 'listwise'"):
        LocalLMJudge(PlantedModel(), method="listwise")
