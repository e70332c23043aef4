"""Graded texts of several values for tiny models, and activations with planted directions."""

import pandas as pd
import torch

from valueflow.steering.activations import Activations
from valueflow.vidb import Vidb

RUNGS = [(-8.0, "zz no"), (-4.0, "no"), (0.0, "rain"), (4.0, "yes"), (8.0, "yes QQ")]
SPLITS = ("steer", "validation", "test")


def texts_of(values, *, n_ladders, splits=SPLITS):
    """A database with as many ladders per value and split, five texts each."""
    rows = [
        {
            "id": f"{value}/rule-{split}-{n:03}/{rung}",
            "value": value,
            "ladder": f"{value}/rule-{split}-{n:03}",
            "register": "rule",
            "context": None,
            "text": f"{word} {value} {n} of {split}",
            "intensity": intensity,
            "split": split,
        }
        for value in values
        for split in splits
        for n in range(n_ladders)
        for rung, (intensity, word) in enumerate(RUNGS)
    ]
    return Vidb(pd.DataFrame(rows))


def worded(rungs, places):
    """A steering ladder of power per place, its texts worded by rung: pairs (intensity, words)."""
    rows = [
        {
            "id": f"svt/power/rule-{n:02}/{rung}",
            "value": "svt/power",
            "ladder": f"svt/power/rule-{n:02}",
            "register": "rule",
            "context": None,
            "text": text.format(place),
            "intensity": intensity,
            "split": "steer",
        }
        for n, place in enumerate(places, start=1)
        for rung, (intensity, text) in enumerate(rungs, start=1)
    ]
    return Vidb(pd.DataFrame(rows))


def planted_reader(truths, *, strength, scenario=1.0, seed=0):
    """In place of `answer_activations`: intensity along each value's truth, noise, scenarios."""

    def read(loaded, contrasts, layers, **_):
        draw = torch.Generator().manual_seed(seed)
        hidden = len(next(iter(truths.values())))
        offsets, rows = {}, []
        for contrast in contrasts:
            if contrast.ladder not in offsets:
                offsets[contrast.ladder] = scenario * torch.randn(hidden, generator=draw)
            truth = truths[contrast.ladder.rsplit("/", 1)[0]]
            noise = torch.randn(hidden, generator=draw)
            rows.append(
                offsets[contrast.ladder] + strength * contrast.intensity / 6 * truth + noise
            )
        by_layer = {layer: torch.stack(rows) * (1 + layer / 10) for layer in layers}
        return Activations(by_layer, {layer: 10.0 + layer for layer in layers}, loaded.n_layers)

    return read
