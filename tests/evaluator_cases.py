"""Evaluators of scripted judges, and texts whose intensity can be read off them."""

import numpy as np

from valueflow.evaluate import AnchorEvaluator, Panel
from valueflow.judges import ScriptedJudge
from valueflow.typing import Item

SHARPNESS = 0.5


def at(intensity, tag=""):
    """A text whose intensity the judge can read off it."""
    return Item(f"{tag}@{intensity:.6f}")


def read(item):
    return float(item.text.rpartition("@")[2])


def texts(n, *, seed, low=-8.0, high=8.0):
    known = np.random.default_rng(seed).uniform(low, high, n)
    return [at(x, f"text {seed} {i}") for i, x in enumerate(known)], known


ANCHORS = np.linspace(-10, 10, 61)
PANEL = Panel("svt/power", tuple(at(x, "anchor") for x in ANCHORS), ANCHORS)


def evaluator(*, sharpness=SHARPNESS, judge=None, panel=PANEL, judge_seed=0, seed=0, **settings):
    judge = judge or ScriptedJudge(read, sharpness=sharpness, seed=judge_seed)
    return AnchorEvaluator(judge, panel, seed=seed, **settings)


def fitted(*, n=100, **settings):
    items, known = texts(n, seed=99)
    return evaluator(**settings).fit(items, known.tolist())
