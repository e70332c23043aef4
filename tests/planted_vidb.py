"""Ladders of texts with planted positions, and a reader who knows them but for noise."""

import json
from dataclasses import asdict

import numpy as np

from valueflow.ranking.simulate import simulate_rankings
from valueflow.vidb.schema import Ladder, RankingRecord

POWER, CARE = "svt/power", "mft/care-harm"


def ladders_of(value=POWER, n=12, *, start=0):
    """Every other one is an answer to a question; `start` is the first one's number."""
    return [
        Ladder(
            f"{value}/{'answer' if i % 2 else 'post'}-{i // 2 + 1:02}",
            "answer" if i % 2 else "post",
            f"scenario {i}",
            f"question {i}?" if i % 2 else None,
            tuple(f"{value} {i} {rung}" for rung in range(1, 6)),
        )
        for i in range(start, start + n)
    ]


def ids_of(ladders):
    return [ladder.text_id(rung) for ladder in ladders for rung in range(1, 6)]


def planted(ladders, *, seed, spread=1.0):
    """Positions in logits by text id; rungs are 3 apart, and `spread` off their places."""
    rungs = np.tile([-6.0, -3.0, 0.0, 3.0, 6.0], len(ladders))
    noise = np.random.default_rng(seed).normal(0, spread, len(rungs))
    return dict(zip(ids_of(ladders), (rungs + noise).tolist(), strict=True))


def read(planned, truth, *, seed, ranker="simulated"):
    """A ranking of each planned window."""
    rng = np.random.default_rng(seed)
    records = []
    for p in planned:
        theta = [truth[text_id] for text_id in p.shown]
        (ranking,) = simulate_rankings(theta, [tuple(range(len(theta)))], rng=rng)
        order = tuple(p.shown[i] for i in ranking)
        records.append(RankingRecord(p.window, p.kind, ranker, tuple(p.shown), order))
    return records


def write_folder(folder, ladders, records=()):
    """A folder as `build_folder` reads it, a file of ladders per value."""
    (folder / "ladders").mkdir(parents=True)
    for value in {ladder.value for ladder in ladders}:
        own = [asdict(ladder) for ladder in ladders if ladder.value == value]
        write_lines(folder / "ladders" / f"{value.replace('/', '-')}.jsonl", own)
    if records:
        (folder / "rankings").mkdir()
        write_lines(folder / "rankings" / "all.jsonl", map(asdict, records))
    return folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
