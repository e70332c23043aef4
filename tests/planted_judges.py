"""Judges with planted faults, who know the database's texts by their grades."""

import functools
import zlib

import numpy as np

from valueflow.judges import ScriptedJudge, Unranked
from valueflow.vidb import load_starter


@functools.cache
def grades(value="power"):
    frame = load_starter().of(value).frame
    return dict(zip(frame["text"], frame["intensity"].astype(float), strict=True))


class Planted(ScriptedJudge):
    """Reads a text as grade + misreading, then adds what place and company do to it.

    `place`: intensity points added per place further up; `company`: per point of the others' mean,
    plus for one text and minus for another.
    """

    name = "planted"

    def __init__(self, *, sharpness=1.0, misreading=0.0, place=0.0, company=0.0, seed=0, **rest):
        super().__init__(self.known, sharpness=sharpness, seed=seed, **rest)
        self.misreading, self.place, self.company = misreading, place, company

    def known(self, item):
        noise = np.random.default_rng(zlib.crc32(item.text.encode())).standard_normal()
        return grades()[item.text] + self.misreading * noise

    def fingerprint(self):
        return f"{self.sharpness} {self.misreading} {self.place} {self.company}"

    def _read(self, window):
        own = np.array(super()._read(window))
        signs = np.array([1 - 2 * (zlib.crc32(item.text.encode()) % 2) for item in window])
        others = (own.sum() - own) / (len(own) - 1)
        places = (len(own) - 1) / 2 - np.arange(len(own))
        return (own + self.company * signs * others + self.place * places).tolist()


class Silent(Planted):
    name = "silent"

    def rank(self, value, windows):
        return [Unranked("no comment")] * len(windows)


class Rating(Planted):
    """Also rates: coarsely, with noise of its own and a push to the positive side."""

    name = "rating"

    def __init__(self, *, noise, push=0.0, silent_on=0, **rest):
        super().__init__(**rest)
        self.noise, self.push, self.silent_on = noise, push, silent_on
        self.asked = []

    def rate(self, value, items):
        self.asked.append(list(items))
        found = []
        for n, item in enumerate(items):
            number = self.known(item) + self.push + self.noise * self._rng.standard_normal()
            silent = n < self.silent_on
            found.append(Unranked("refused") if silent else float(np.clip(round(number), -10, 10)))
        return found
