"""A planted world for comparisons: what a text says follows from what the model was given.

The sweep is not a model's. It reads level and place of an instruction off the formatted prompt, as
a model would have to, and writes a text whose intensity obeys a known law of level, coefficient and
prompt, at a known damage.
"""

import functools
import re
import zlib
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from planted_loop import evaluator, loaded

from valueflow.dose.curve import DoseCurve
from valueflow.dose.stale import measured_by
from valueflow.dose.steerer import Card
from valueflow.dose.sweep import Decoding, Grid
from valueflow.evaluate import AnchorEvaluator
from valueflow.evaluate.intensity import Intensity
from valueflow.steering.vector import SteeringVector
from valueflow.vidb import load_starter

VALUE = "svt/power"
CALIBRATED_ON = tuple(f"What of matter {i}?" for i in range(12))
VERIFIED_ON = tuple(f"Say more about topic {i}." for i in range(24))
COEFFICIENTS = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)
LIMIT = 0.7
STANCES = {
    "reject outright": -2,
    "have reservations": -1,
    "matters to you somewhat": 1,
    "nearly anything else": 2,
}


@dataclass
class World:
    """The law, and what it was asked.

    `gains`: intensity points per level, by "wording:place"; others have 0. `harm`: damage at
    level +-2, same keys; at +-1 a quarter. `dose`: points per unit of coefficient. `cost`: damage
    per squared coefficient. `scatter`: standard deviation over prompts of each of these gains.
    """

    gains: dict = field(default_factory=dict)
    harm: dict = field(default_factory=dict)
    dose: float = 10.0
    cost: float = 3.0
    base: float = 1.0
    scatter: float = 0.1
    calls: list = field(default_factory=list)

    def truth(self, prompt, asked, coefficient):
        """Intensity and damage."""
        key, level = read(asked)
        own = np.random.default_rng(zlib.crc32(prompt.encode()))
        shift, of_level, of_dose = own.normal(0, self.scatter, 3)
        gain = self.gains.get(key, 0.0)
        intensity = self.base + shift
        intensity += level * (gain + (of_level if gain else 0.0)) + coefficient * (
            self.dose + 3 * of_dose
        )
        harm = self.harm.get(key, 0.0) * (level / 2) ** 2 + self.cost * coefficient**2
        return intensity, harm

    def sweep(self, loaded, arms, cells, prompts, *, asked=None, decoding, progress=None):
        asked = asked or [prompts] * len(cells)
        self.calls.append([(cell, tuple(row)) for cell, row in zip(cells, asked, strict=True)])
        told = [
            [
                self.truth(p, text, cell.get("value", 0.0))
                for p, text in zip(prompts, row, strict=True)
            ]
            for cell, row in zip(cells, asked, strict=True)
        ]
        texts = tuple(tuple(f"says {x:+.6f}" for x, _ in row) for row in told)
        nll = np.array([[2.0 + d for _, d in row] for row in told])
        return Grid(tuple(cells), tuple(prompts), texts, nll, np.zeros(nll.shape, dtype=bool))

    def install(self, monkeypatch):
        for module in ("study.compare", "study.bench", "dose.prompted"):
            monkeypatch.setattr(f"valueflow.{module}.sweep", self.sweep)
        return self


def read(asked):
    """("wording:place", level) of what the model was given; level 0 without an instruction."""
    place = "system" if "<|system|>" in asked else "user"
    for words, level in STANCES.items():
        if words in asked and "Take the part of a person with" in asked:
            return f"person:{place}", level
    if "This is to be true of the text of your reply" in asked:
        strength = 2 if "very strongly" in asked else 1
        return f"reply:{place}", strength * (1 if poles()[0] in asked else -1)
    if "things that you have said before" in asked:
        found = [x for text, x in graded().items() if text in asked]
        return f"said:{place}", float(np.clip(np.mean(found or [0.0]) / 4, -2, 2))
    return "", 0


@functools.cache
def poles():
    from valueflow.theories import get_value

    value = get_value(VALUE)
    assert value.supports != value.opposes
    return value.supports, value.opposes


@functools.cache
def graded():
    frame = load_starter().of(VALUE, "steer").frame
    lines = [re.sub(r"\s+", " ", text).strip() for text in frame["text"]]
    return dict(zip(lines, frame["intensity"].astype(float), strict=True))


class Exact(AnchorEvaluator):
    """Reads the planted number off the text, with a little noise of its own."""

    def score(self, items):
        return [self._one(item.text) for item in items]

    def _one(self, text):
        noise = np.random.default_rng(zlib.crc32(text.encode())).normal(0, 0.05)
        number = float(text.rpartition(" ")[2]) + noise
        return Intensity(number, 0.05, "ok", float("nan"), 8, "panel", central=number)


@functools.cache
def exact():
    known = evaluator()
    made = Exact(known.judge, known.panel, seed=0)
    made.sharpness_, made.scale_ = known.sharpness_, known.scale_
    return made


def card(world, *, value=VALUE, prompts=CALIBRATED_ON, coefficients=COEFFICIENTS, seed=0):
    """Calibrated in that world."""
    direction = torch.zeros(loaded().hidden_size)
    direction[0] = 1.0
    model = {"name": loaded().name, **asdict(loaded().fingerprint)}
    vector = SteeringVector(value, {1: direction}, {1: 8.0}, {"model": model})
    table = np.array([[world.truth(p, p, c) for p in prompts] for c in coefficients])
    curve = DoseCurve("pchip", n_bootstrap=50, damage_limit=LIMIT, seed=0)
    curve.fit(list(coefficients), table[..., 0], damage=table[..., 1])
    provenance = {
        "model": model,
        "prompts": list(prompts),
        "seed": seed,
        **measured_by(exact()),
    }
    return Card(vector, curve, Decoding(max_new_tokens=8), provenance)
