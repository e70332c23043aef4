"""A planted world for the loop: the judge reads off a text what the vector pushes into it."""

import functools

import numpy as np
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.calibrate import calibrate, verify
from valueflow.dose.sweep import Decoding
from valueflow.evaluate import AnchorEvaluator, Panel
from valueflow.judges import ScriptedJudge
from valueflow.models import load
from valueflow.steering.vector import SteeringVector, random_like
from valueflow.typing import Item

MARKED = frozenset("abcdefghijklm")
COEFFICIENTS = (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6)
DRAWS = 3
DECODING = Decoding(max_new_tokens=24)
WORDS = ["rain", "garden", "neighbour", "money", "letter", "train", "promise", "window"]
ASKED = [f"What would you say of the {a} and the {b}?" for a in WORDS for b in WORDS if a != b]
CALIBRATED_ON, VERIFIED_ON = ASKED[:24], ASKED[24:48]


def planted_intensity(item):
    """-10 to 10: the share of letters that are marked."""
    letters = [c for c in item.text.lower() if c.isalpha()]
    share = sum(c in MARKED for c in letters) / len(letters) if letters else 0.5
    return 20.0 * share - 10.0


def anchor(n_marked, tag, n=40):
    return Item("a" * n_marked + "z" * (n - n_marked) + f" {tag}")


def fresh_evaluator():
    """Its judge has drawn nothing yet, so that what it says does not depend on who asked before."""
    items = tuple(anchor(n, 0) for n in range(41))
    panel = Panel("svt/power", items, np.array([planted_intensity(i) for i in items]))
    judge = ScriptedJudge(planted_intensity, sharpness=1.5, seed=0)
    graded = [anchor(n, 1) for n in range(2, 39)]
    found = AnchorEvaluator(judge, panel, n_windows=6, seed=0)
    return found.fit(graded, [planted_intensity(i) for i in graded])


evaluator = functools.cache(fresh_evaluator)


@functools.cache
def loaded():
    return load((tiny_model("llama", n_layers=2, hidden=64), tiny_tokenizer(chat=True)))


def marked_direction(loaded):
    """Moves, at the last layer, the logits of tokens of marked letters against others."""
    tokenizer, head = loaded.tokenizer, loaded.model.get_output_embeddings().weight
    text = [tokenizer.decode([i]).strip().lower() for i in range(len(tokenizer))]
    words = [i for i, t in enumerate(text) if t.isalpha()]
    marked = [i for i in words if set(text[i]) <= MARKED]
    others = [i for i in words if not set(text[i]) & MARKED]
    contrast = (head[marked].mean(0) - head[others].mean(0)).detach()
    return contrast / contrast.norm()


@functools.cache
def vector():
    return SteeringVector("planted", {1: marked_direction(loaded())}, {1: 8.0}, {})


@functools.cache
def calibration():
    own = fresh_evaluator()
    return calibrate(
        loaded(),
        vector(),
        own,
        prompts=CALIBRATED_ON,
        placebos={
            "random": [random_like(vector(), seed=i) for i in range(DRAWS)],
            "turned": [vector() * -1.0],
        },
        coefficients=COEFFICIENTS,
        decoding=DECODING,
        damage_limit=5.0,
        second=own,
        seed=0,
    )


def reachable(*shares):
    """Targets at those shares of the calibrated span."""
    lower, upper = map(calibration().curve.predict, calibration().curve.usable_range_)
    return [float(lower + share * (upper - lower)) for share in shares]


@functools.cache
def verified():
    targets = [*reachable(0.2, 0.4, 0.6, 0.8), 40.0]
    return verify(loaded(), calibration(), fresh_evaluator(), prompts=VERIFIED_ON, targets=targets)
