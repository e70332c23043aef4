"""Training the default judge's head: `python -m valueflow.hives.train --corpus FILE`.

Pairs of texts of one value are pushed apart in the order of their intensities (logistic loss,
weight growing with the gap); half of the weight goes to pairs within a ladder, where nothing but
the value differs. An optional public corpus (ValueLens synthetic, MIT: texts with a Schwartz value
and one of five grades) adds values that the database does not have.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives.encoder import FrozenEncoder, load_frozen_encoder
from valueflow.hives.head import Head, save_head
from valueflow.hives.judge import value_features
from valueflow.theories import get_value, steered_values
from valueflow.vidb import Vidb, load_starter

GRADES = {
    "strong_support": 8.0,
    "mild_support": 4.0,
    "neutral": 0.0,
    "mild_resistance": -4.0,
    "strong_resistance": -8.0,
}
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


def valuelens_sets(path: str | Path, *, weight: float = 0.3) -> list[GradedSet]:
    """Texts of the ValueLens synthetic file (`model###text###[value]###[grade]`), by value.

    Rows of other values, of several values or of unknown grade are left out, and so are values
    with fewer than 8 texts or with texts of one grade alone.
    """
    grouped: dict[str, list[tuple[str, float]]] = {}
    for line in Path(path).read_text(encoding="utf-8").split("\n"):
        fields = line.split("###")
        if len(fields) != 4 or fields[3].strip("[]") not in GRADES:
            continue
        try:
            value = get_value(fields[2].strip("[]"))
        except (UnknownName, InvalidInput):
            continue
        if value.steered:
            grade = GRADES[fields[3].strip("[]")]
            grouped.setdefault(value.id, []).append((fields[1], grade))
    return [
        GradedSet(value, tuple(t for t, _ in rows), np.array([g for _, g in rows]), None, weight)
        for value, rows in sorted(grouped.items())
        if len(rows) >= 8 and len({grade for _, grade in rows}) > 1
    ]


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
    epochs: int = 60,
    dropout: float = 0.3,
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
    """Train on the starter database (and a corpus, if given) and write the head."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, help="ValueLens synthetic file (Schwartz, 1992)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    vidb, encoder = load_starter(), load_frozen_encoder()
    sets = vidb_sets(vidb, "judge")
    if options.corpus is not None:
        sets += valuelens_sets(options.corpus)
    head = train_head(encoder, sets, vidb_sets(vidb, "validation"), seed=options.seed)
    card = {
        "encoder": encoder.name,
        "data": ["VIDB starter, judge split"]
        + (["ValueLens synthetic (MIT)"] if options.corpus is not None else []),
        "vidb": vidb.fingerprint(),
        "seed": options.seed,
        "prototype_weight": float(head.prototype[2]),
        "validation_agreement": agreement(encoder, head, vidb_sets(vidb, "validation")),
        "test_agreement": agreement(encoder, head, vidb_sets(vidb, "test")),
    }
    save_head(head, options.out, card)


if __name__ == "__main__":
    main()
