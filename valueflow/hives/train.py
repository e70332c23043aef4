"""Training the default judge's head: `python -m valueflow.hives.train --corpus NAME=FILE`.

Pairs of texts of one value are pushed apart in the order of their intensities (logistic loss,
weight growing with the gap); half of the weight goes to pairs within a ladder, where nothing but
the value differs. Middle rungs of other values join as neutral texts, so that a text that is about
something else does not pass for support; graded public corpora may join too.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput
from valueflow.hives.encoder import FrozenEncoder, load_frozen_encoder
from valueflow.hives.head import Head, save_head
from valueflow.hives.judge import value_features
from valueflow.theories import get_value, steered_values
from valueflow.vidb import Vidb, load_starter
from valueflow.vidb.schema import N_RUNGS

if TYPE_CHECKING:
    import pandas as pd

MIDDLE_RUNG = (N_RUNGS + 1) // 2

EXTREME = 8.0
"""Intensity of a corpus text with grade 1: that of a typical extreme rung."""

NEUTRAL_TEXTS = 60
NEUTRAL_WEIGHT = CORPUS_WEIGHT = 0.3
PROTOTYPE_WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class GradedSet:
    """Graded texts of one value; ladders are None for texts that stand alone."""

    value: str
    texts: tuple[str, ...]
    intensities: NDArray[np.float64]
    ladders: tuple[str, ...] | None
    weight: float


def vidb_sets(vidb: Vidb, split: str) -> list[GradedSet]:
    """One set per value of the database."""
    sets = []
    for value in vidb.values:
        frame = vidb.of(value, split).frame
        intensities = frame["intensity"].to_numpy(dtype=np.float64)
        sets.append(
            GradedSet(value, tuple(frame["text"]), intensities, tuple(frame["ladder"]), 1.0)
        )
    return sets


def neutral_sets(vidb: Vidb, split: str, *, n: int = NEUTRAL_TEXTS, seed: int) -> list[GradedSet]:
    """Per value its own texts and `n` middle rungs of other values, taken as neutral in this one.

    A database of one value gives none.
    """
    sets = []
    for value in vidb.values:
        own, frame = vidb.of(value, split).frame, vidb.frame
        others = frame[
            (frame["value"] != value) & (frame["split"] == split) & (frame["rung"] == MIDDLE_RUNG)
        ]
        if others.empty:
            continue
        drawn = others.sample(min(n, len(others)), random_state=np.random.default_rng(seed))
        texts = (*own["text"], *drawn["text"])
        intensities = np.append(own["intensity"].to_numpy(dtype=np.float64), np.zeros(len(drawn)))
        sets.append(GradedSet(value, texts, intensities, None, NEUTRAL_WEIGHT))
    return sets


def corpus_sets(rows: "pd.DataFrame", *, weight: float = CORPUS_WEIGHT) -> list[GradedSet]:
    """The graded texts of an imported corpus (`valueflow.vidb.importers`), one set per value.

    Intensity is `EXTREME` times the grade, or half of that times the direction where there is no
    grade. Rows without either are left out, and so are values with fewer than 8 texts or with
    texts of one intensity alone.
    """
    known = rows[rows["grade"].notna() | rows["direction"].notna()]
    sets = []
    for value, own in known.groupby("value", sort=True):
        half = own["direction"].astype(float) * EXTREME / 2
        intensities = (own["grade"].astype(float) * EXTREME).fillna(half).to_numpy(dtype=np.float64)
        if len(own) >= 8 and len(np.unique(intensities)) > 1:
            sets.append(GradedSet(str(value), tuple(own["text"]), intensities, None, weight))
    return sets


def pair_weights(graded: GradedSet) -> NDArray[np.float64]:
    """Weight of each ordered pair (i above j), summing to 1.

    Where there are ladders, half is spread over all pairs and half over those within a ladder.

    Raises:
        InvalidInput: no two texts (of a ladder) are far enough apart to be a pair.
    """
    gap = graded.intensities[:, None] - graded.intensities[None, :]
    weights = np.where(gap > 1.5, np.minimum(gap, 8.0), 0.0)
    within = weights
    if graded.ladders is not None:
        ladders = np.array(graded.ladders, dtype=object)
        within = weights * (ladders[:, None] == ladders[None, :])
    if not within.any():
        raise InvalidInput(f"{graded.value}: no two texts of a ladder are more than 1.5 apart")
    return 0.5 * weights / weights.sum() + 0.5 * within / within.sum()


def train_head(
    encoder: FrozenEncoder,
    sets: Sequence[GradedSet],
    validation: Sequence[GradedSet],
    *,
    rank: int = 32,
    epochs: int = 120,
    dropout: float = 0.5,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    seed: int,
) -> Head:
    """Fit the low-rank product on `sets`, then choose the prototype's weight on `validation`.

    The largest prototype weight whose validation agreement is within 0.01 of the best is taken:
    the prototype knows the value's topic in texts unlike any ladder.
    """
    import torch

    statistics = _statistics(encoder, sets)
    # Initial weights and dropout take no generator; the caller's state comes back afterwards.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        P, Q, q = _optimise(
            encoder, sets, statistics, rank, epochs, dropout, learning_rate, weight_decay
        )
    heads = [
        Head(**statistics["arrays"], P=P, Q=Q, q=q, prototype=_prototype(statistics, weight))
        for weight in PROTOTYPE_WEIGHTS
    ]
    scores = [agreement(encoder, head, validation) for head in heads]
    best = max(i for i, score in enumerate(scores) if score >= max(scores) - 0.01)
    return heads[best]


def agreement(
    encoder: FrozenEncoder, head: Head, sets: Sequence[GradedSet], *, gap: float = 3.0
) -> float:
    """Mean over values of the share of pairs more than `gap` apart that the head orders right."""
    shares = []
    for graded in sets:
        scores = head.score(
            encoder.features(graded.texts), value_features(encoder, get_value(graded.value))
        )
        far = graded.intensities[:, None] - graded.intensities[None, :] > gap
        shares.append(float((scores[:, None] > scores[None, :])[far].mean()))
    return float(np.mean(shares))


def _statistics(encoder: FrozenEncoder, sets: Sequence[GradedSet]) -> dict[str, Any]:
    # Ladders decide what an ordinary text is; constant features must not blow up.
    own = [s for s in sets if s.ladders is not None]
    features = np.concatenate([encoder.features(s.texts) for s in own])
    values = np.stack([value_features(encoder, v) for v in steered_values()])
    products = np.concatenate(
        [
            encoder.embed(s.texts) @ value_features(encoder, get_value(s.value))[: encoder.width]
            for s in own
        ]
    )
    arrays = {
        "text_mean": features.mean(0),
        "text_sd": np.maximum(features.std(0), 1e-3),
        "value_mean": values.mean(0),
        "value_sd": np.maximum(values.std(0), 1e-3),
    }
    return {"arrays": arrays, "products": (float(products.mean()), float(products.std()))}


def _prototype(statistics: dict[str, Any], weight: float) -> NDArray[np.float32]:
    return np.array([*statistics["products"], weight], dtype=np.float32)


def _optimise(
    encoder: FrozenEncoder,
    sets: Sequence[GradedSet],
    statistics: dict[str, Any],
    rank: int,
    epochs: int,
    dropout: float,
    learning_rate: float,
    weight_decay: float,
) -> tuple[NDArray, NDArray, NDArray]:
    import torch
    from torch.nn import functional

    a = statistics["arrays"]
    data = [
        (
            torch.tensor((encoder.features(s.texts) - a["text_mean"]) / a["text_sd"]),
            torch.tensor(
                (value_features(encoder, get_value(s.value)) - a["value_mean"]) / a["value_sd"]
            ),
            torch.tensor(pair_weights(s), dtype=torch.float32),
            s.weight,
        )
        for s in sets
    ]
    text = torch.nn.Linear(data[0][0].shape[1], rank, bias=False)
    value = torch.nn.Linear(data[0][1].shape[0], rank)
    parameters = [*text.parameters(), *value.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay)
    for _ in range(epochs):
        optimiser.zero_grad()
        loss = torch.zeros(())
        for x, v, weights, share in data:
            gate = torch.tanh(value(functional.dropout(v, dropout)))
            scores = (text(functional.dropout(x, dropout)) * gate).sum(1) / rank**0.5
            loss = (
                loss + share * (functional.softplus(scores[None] - scores[:, None]) * weights).sum()
            )
        loss.backward()
        optimiser.step()
    return (
        text.weight.detach().numpy().copy(),
        value.weight.detach().numpy().copy(),
        value.bias.detach().numpy().copy(),
    )


def main() -> None:
    """Train on the starter database (and corpora, if given) and write the head."""
    from valueflow.vidb.importers import IMPORTERS, import_corpus

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vidb, encoder = load_starter(), load_frozen_encoder()
    sets = vidb_sets(vidb, "judge") + neutral_sets(vidb, "judge", seed=options.seed)
    used = ["VIDB starter, judge split"]
    for name, _, path in (corpus.partition("=") for corpus in options.corpus):
        sets += corpus_sets(import_corpus(name, path))
        used.append(f"{IMPORTERS[name].title} ({IMPORTERS[name].licence})")
    head = train_head(encoder, sets, vidb_sets(vidb, "validation"), seed=options.seed)
    card = {
        "encoder": encoder.name,
        "data": used,
        "vidb": vidb.fingerprint(),
        "seed": options.seed,
        "prototype_weight": float(head.prototype[2]),
        "validation_agreement": agreement(encoder, head, vidb_sets(vidb, "validation")),
        "test_agreement": agreement(encoder, head, vidb_sets(vidb, "test")),
    }
    save_head(head, options.out, card)


if __name__ == "__main__":
    main()
