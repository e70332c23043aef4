import numpy as np
import pytest

from valueflow.errors import InvalidInput
from valueflow.hives.answering import question_agreement
from valueflow.hives.encoder import Encoder
from valueflow.hives.questions import QUESTION_KINDS, QuestionPair
from valueflow.typing import Item
from valueflow.vidb import load_starter

POWER = load_starter().of("power")
PAIRS = [
    QuestionPair(f"svt/power/kept-{n:02}", QUESTION_KINDS[n % 4], Item(f"yes {n}", f"for {n}?"),
                 Item(f"yes {n}", f"against {n}?"))
    for n in range(40)
]  # fmt: skip


class Reader(Encoder):
    """Scores a question that is for the value +1, one against it -1, any other text 0; + `offset`
    for answers, and noise."""

    def __init__(self, *, offset=0.0, noise=0.0):
        super().__init__(None, name="reader")
        self.offset, self.noise = offset, noise

    def score(self, value, texts):
        noise = self.noise * np.random.default_rng(0).normal(size=len(texts))
        side = [("Q: for" in text) - ("Q: against" in text) for text in texts]
        answer = np.array(["yes" in text for text in texts])
        return np.array(side) + self.offset * answer + noise


def agreement(reader, pairs=PAIRS, **options):
    return question_agreement(reader, pairs, POWER, seed=0, n_resamples=50, **options)


def test_who_reads_the_question_is_always_right():
    found = agreement(Reader())
    assert found.pairs.estimate == found.sides.estimate == 1.0
    assert (found.pairs.n, found.sides.n) == (40, 80)
    assert {kind: (f.estimate, f.n) for kind, f in found.kinds.items()} == {
        kind: (1.0, 20) for kind in QUESTION_KINDS
    }


def test_who_does_not_is_no_better_than_chance():
    found = agreement(Reader(), alone=True)
    assert found.pairs.estimate == 0.5 and found.sides.estimate == 0.0  # all are in the middle
    assert agreement(Reader(offset=0.5), alone=True).sides.estimate == 0.5


def test_order_is_not_side():
    found = agreement(Reader(offset=5.0))
    assert found.pairs.estimate == 1.0 and found.sides.estimate == 0.5


def test_noise_is_counted_and_within_the_interval():
    found = agreement(Reader(noise=1.0))
    # P(N(0, 1) < 1) = 0.841 for sides, P(N(0, 2) < 2) = 0.921 for pairs.
    assert found.sides.low < 0.841 < found.sides.high and found.sides.estimate < 1
    assert found.pairs.low < 0.921 < found.pairs.high
    assert found.sides.high - found.sides.low < 0.25


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InvalidInput, match="got none"):
        agreement(Reader(), [])
    other = [QuestionPair("svt/face/kept-01", "flip", *[Item("a", "b")] * 2)]
    with pytest.raises(InvalidInput, match="svt/face: .* no middle rungs"):
        agreement(Reader(), other)
