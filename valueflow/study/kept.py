"""Sweeps that are kept on disk: what was generated once is read back, not generated again.

One gzipped JSONL file per sweep: a line that says what was asked, then one line per text. A killed
run loses the sweep it was in and no other.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from valueflow.artifacts import write_file
from valueflow.dose.sweep import Cell, Decoding, Grid, Progress, sweep
from valueflow.errors import ArtifactError, StaleArtifact
from valueflow.models.loading import LoadedModel
from valueflow.steering.store import vector_hash
from valueflow.steering.vector import SteeringVector

SCHEMA = 1


def kept_sweep(
    path: str | Path,
    loaded: LoadedModel,
    arms: Mapping[str, SteeringVector],
    cells: Sequence[Cell],
    prompts: Sequence[str],
    *,
    decoding: Decoding | None = None,
    batch_rows: int = 144,
    progress: Progress | None = None,
) -> Grid:
    """`sweep`, read from `path` if it is there, else made and written to it.

    Raises:
        StaleArtifact: the file holds a sweep of another model, vector, decoding, prompts or doses;
            names the first that differs.
        ArtifactError: the file is damaged.
    """
    path, decoding = Path(path), decoding or Decoding()
    asked = _asked(loaded, arms, cells, prompts, decoding)
    if path.exists():
        found, grid = read_sweep(path)
        differing = [name for name, value in asked.items() if found.get(name) != value]
        if differing:
            raise StaleArtifact(
                f"{path}: holds texts of other {', '.join(differing)} than asked for; "
                "delete it, or use another folder"
            )
        return grid
    grid = sweep(
        loaded, arms, cells, prompts, decoding=decoding, batch_rows=batch_rows, progress=progress
    )
    write_sweep(path, grid, asked)
    return grid


def write_sweep(path: str | Path, grid: Grid, asked: Mapping[str, Any]) -> None:
    """Write a grid; the file appears whole or not at all, and equal grids are equal files."""
    head = {"schema": SCHEMA, "asked": dict(asked)}
    rows = [
        {
            "cell": c,
            "prompt": p,
            "text": grid.texts[c][p],
            "nll": None if np.isnan(grid.nll[c, p]) else float(grid.nll[c, p]),
            "degenerate": bool(grid.degenerate[c, p]),
        }
        for c in range(len(grid.cells))
        for p in range(len(grid.prompts))
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [head, *rows])
    write_file(Path(path), gzip.compress(lines.encode(errors="surrogatepass"), mtime=0))


def read_sweep(path: str | Path) -> tuple[dict[str, Any], Grid]:
    """What was asked, and the grid.

    Raises:
        ArtifactError: missing, damaged, or of another schema.
    """
    if not Path(path).is_file():
        raise ArtifactError(f"{path}: no sweep there; run again what makes it, or name its folder")
    try:
        content = gzip.decompress(Path(path).read_bytes()).decode(errors="surrogatepass")
        head, *rows = (json.loads(line) for line in content.split("\n") if line)
        if head["schema"] != SCHEMA:
            raise ValueError(f"schema {head['schema']!r}, this version reads {SCHEMA}")
        return head["asked"], _grid(head["asked"], rows)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, IndexError) as error:
        raise ArtifactError(f"{path}: no readable sweep ({error}); delete it") from None


def _grid(asked: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Grid:
    cells, prompts = asked["cells"], asked["prompts"]
    if len(rows) != len(cells) * len(prompts):
        raise ValueError(f"{len(rows)} texts, expected {len(cells) * len(prompts)}")
    texts = np.empty((len(cells), len(prompts)), dtype=object)
    nll, broken = np.full(texts.shape, np.nan), np.zeros(texts.shape, dtype=bool)
    for row in rows:
        at = row["cell"], row["prompt"]
        texts[at], broken[at] = row["text"], row["degenerate"]
        nll[at] = np.nan if row["nll"] is None else row["nll"]
    return Grid(tuple(cells), tuple(prompts), tuple(map(tuple, texts)), nll, broken)


def _asked(
    loaded: LoadedModel,
    arms: Mapping[str, SteeringVector],
    cells: Sequence[Cell],
    prompts: Sequence[str],
    decoding: Decoding,
) -> dict[str, Any]:
    return {
        "model": asdict(loaded.fingerprint),
        "vectors": {name: vector_hash(vector) for name, vector in arms.items()},
        "decoding": asdict(decoding),
        "cells": [{name: float(c) for name, c in cell.items()} for cell in cells],
        "prompts": list(prompts),
    }
