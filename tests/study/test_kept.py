"""Sweeps on disk: what comes back, and what is refused."""

import dataclasses

import numpy as np
import pytest
from planted_loop import ASKED, DECODING, loaded, vector
from tiny import tiny_model, tiny_tokenizer

from valueflow.dose.sweep import Grid
from valueflow.errors import ArtifactError, StaleArtifact
from valueflow.models import load
from valueflow.study import kept
from valueflow.study.kept import kept_sweep, read_sweep, write_sweep

HOSTILE = ("line\u2028apart\x85and\rmore\n", '"}{\\', "", "\ud800 lone", "Ünïcödé 漢字")


def made():
    n = len(HOSTILE)
    nll = np.linspace(0.1, 2.0, 2 * n).reshape(2, n)
    nll[1, 2] = np.nan
    broken = np.zeros((2, n), dtype=bool)
    broken[:, 2] = True
    prompts = tuple(f"prompt {i}" for i in range(n))
    return Grid(({"vector": -0.1}, {}), prompts, (HOSTILE, HOSTILE[::-1]), nll, broken)


def test_a_grid_comes_back_as_it_was(tmp_path):
    grid = made()
    asked = {"cells": [dict(c) for c in grid.cells], "prompts": list(grid.prompts)}
    write_sweep(tmp_path / "a.gz", grid, asked)
    found, again = read_sweep(tmp_path / "a.gz")
    assert found == asked
    assert again.texts == grid.texts and again.cells == grid.cells
    assert np.array_equal(again.nll, grid.nll, equal_nan=True)
    assert np.array_equal(again.degenerate, grid.degenerate)
    write_sweep(tmp_path / "b.gz", again, asked)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_damage_is_noticed(tmp_path):
    grid = made()
    asked = {"cells": [dict(c) for c in grid.cells], "prompts": list(grid.prompts)}
    path = tmp_path / "a.gz"
    write_sweep(path, grid, asked)
    whole = path.read_bytes()
    for content in (whole[:-20], b"", b"not gzip", whole[:20] + b"\0\0" + whole[22:]):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="delete it"):
            read_sweep(path)
    path.unlink()
    with pytest.raises(ArtifactError, match="no sweep there; run again what makes it"):
        read_sweep(path)


def test_only_what_was_asked_before_is_given_back(tmp_path, monkeypatch):
    path, prompts = tmp_path / "a.gz", ASKED[:2]
    cells = [{"vector": 0.2}]
    asked = {"prompts": prompts, "decoding": DECODING}
    first = kept_sweep(path, loaded(), {"vector": vector()}, cells, **asked)

    def never(*arguments, **options):
        pytest.fail("generated again")

    monkeypatch.setattr(kept, "sweep", never)
    again = kept_sweep(path, loaded(), {"vector": vector()}, cells, **asked)
    assert again.texts == first.texts
    other = load((tiny_model("llama", n_layers=2, hidden=64, seed=5), tiny_tokenizer(chat=True)))
    longer = dataclasses.replace(DECODING, max_new_tokens=25)
    for name, arguments, options in (
        ("model", (other, {"vector": vector()}, cells), asked),
        ("vectors", (loaded(), {"vector": vector() * -1.0}, cells), asked),
        ("cells", (loaded(), {"vector": vector()}, [{"vector": 0.3}]), asked),
        ("prompts", (loaded(), {"vector": vector()}, cells), asked | {"prompts": ASKED[2:4]}),
        ("decoding", (loaded(), {"vector": vector()}, cells), asked | {"decoding": longer}),
    ):
        with pytest.raises(StaleArtifact, match=f"other {name} than"):
            kept_sweep(path, *arguments, **options)
