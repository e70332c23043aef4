"""Tone read off embeddings: planted tone is found, absent tone is not."""

import numpy as np
import pytest

from valueflow.errors import InvalidInput
from valueflow.study.tone import Tone, TonePair, load_tone_pairs


class Planted:
    """Topic and noise in 20 dimensions, tone along the first by `size`."""

    def __init__(self, size, *, seed=0):
        self.size, self.seed = size, seed

    def embed(self, texts):
        rows = []
        for text in texts:
            tone, _, topic = text.partition(" ")
            rng = np.random.default_rng([self.seed, *topic.encode()])
            own = np.random.default_rng([self.seed, *text.encode()])
            row = rng.normal(0, 1, 20) + own.normal(0, 0.3, 20)
            row[0] += self.size * {"+": 1, "-": -1}.get(tone, 0)
            rows.append(row)
        return np.array(rows, dtype=np.float32)


PAIRS = [TonePair("?", f"+ topic {i}", f"- topic {i}") for i in range(40)]


def test_planted_tone_is_read_and_the_middle_is_0():
    tone = Tone(Planted(4.0), PAIRS)
    assert tone.accuracy > 0.97 and tone.in_order == 1.0
    assert tone.score([p.positive for p in PAIRS]).mean() == pytest.approx(1, abs=1e-5)
    assert tone.score([p.negative for p in PAIRS]).mean() == pytest.approx(-1, abs=1e-5)
    assert abs(tone.score([f"0 topic {i}" for i in range(40)]).mean()) < 0.15


def test_without_tone_the_accuracy_is_chance():
    """Fitting 20 dimensions to 40 pairs would look good on the pairs themselves."""
    found = [Tone(Planted(0.0, seed=s), PAIRS).accuracy for s in range(12)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_accuracy_is_of_pairs_left_out():
    encoder, right = Planted(0.5), 0
    for i, pair in enumerate(PAIRS):
        other = Tone(encoder, PAIRS[:i] + PAIRS[i + 1 :])
        high, low = other.score([pair.positive, pair.negative])
        right += int(high > 0) + int(low < 0)
    assert Tone(encoder, PAIRS).accuracy == pytest.approx(right / 80)


def test_the_shipped_pairs_differ_in_tone_not_in_length():
    pairs = load_tone_pairs()
    assert len(pairs) == len({p.question for p in pairs}) >= 50
    longer = [len(p.positive.split()) - len(p.negative.split()) for p in pairs]
    assert abs(np.mean(longer)) < 0.3 and max(map(abs, longer)) <= 3


def test_too_few_pairs_and_no_difference_are_refused():
    with pytest.raises(InvalidInput, match="two or more pairs"):
        Tone(Planted(1.0), PAIRS[:1])

    class Flat:
        def embed(self, texts):
            return np.ones((len(texts), 4), dtype=np.float32)

    with pytest.raises(InvalidInput, match="same embeddings"):
        Tone(Flat(), PAIRS)
