"""An encoder whose features are planted: what a text says about a value is a direction in them."""

import zlib

import numpy as np

from valueflow.hives.encoder import FrozenEncoder
from valueflow.hives.train import GradedSet

WIDTH = 16
N_FEATURES = 4 * WIDTH


class PlantedEncoder(FrozenEncoder):
    """Reads "stance | topic" texts: stance along one hidden direction, topic and noise elsewhere.

    The final embedding holds the topic alone, so only the middle features tell the stance. Any
    other text gets features of its own, drawn from its letters.
    """

    def __init__(self, *, noise=1.0, seed=0):
        super().__init__(None, name="planted")
        self.noise = noise
        hidden = np.random.default_rng(seed).normal(size=N_FEATURES - WIDTH)
        self.direction = hidden / np.linalg.norm(hidden)

    @property
    def width(self):
        return WIDTH

    def fingerprint(self):
        return f"planted {self.noise}"

    def _forward(self, batch):
        return np.stack([self._row(text) for text in batch]).astype(np.float32)

    def _row(self, text):
        stance, separator, topic = text.partition(" | ")
        own = np.random.default_rng(zlib.crc32(text.encode()))
        if not separator:
            row = own.normal(size=N_FEATURES)
        else:
            theme = np.random.default_rng(zlib.crc32(topic.encode())).normal(size=N_FEATURES)
            row = 3 * theme + self.noise * own.normal(size=N_FEATURES)
            row[:-WIDTH] += float(stance) * self.direction
            row[-WIDTH:] = theme[-WIDTH:]
        row[-WIDTH:] /= np.linalg.norm(row[-WIDTH:])
        return row


def planted_set(value, *, seed, n_ladders=30, shuffle=False):
    """Ladders of five rungs on a topic each; `shuffle` permutes the intensities within each."""
    rng = np.random.default_rng([seed, zlib.crc32(value.encode())])
    texts, intensities, ladders = [], [], []
    for ladder in range(n_ladders):
        rungs = np.array([-8.0, -4.0, 0.0, 4.0, 8.0]) + rng.uniform(-1, 1, 5)
        texts += [f"{rung:.4f} | {value} {seed} {ladder}" for rung in rungs]
        intensities += (rng.permutation(rungs) if shuffle else rungs).tolist()
        ladders += [f"{ladder}"] * 5
    return GradedSet(value, tuple(texts), np.array(intensities), tuple(ladders), 1.0)
