"""Texts steered both ways by each vector, scored for all values, and what else changed in them.

Texts are generated once per vector and scored once per text: both are kept in a folder, vector by
vector, so that a killed run goes on where it was.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from valueflow.artifacts import write_file
from valueflow.dose.arms import intensities_of
from valueflow.dose.calibrate import Stage
from valueflow.dose.sweep import Decoding, Grid
from valueflow.errors import ArtifactError, InvalidInput
from valueflow.evaluate.evaluator import AnchorEvaluator
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector
from valueflow.study.kept import kept_sweep
from valueflow.study.specificity import EffectMatrix, effects
from valueflow.study.tone import Tone
from valueflow.typing import Item

LOW, UNSTEERED, HIGH = range(3)
"""Cells of every grid here."""

Ends = Mapping[str, tuple[float, float]]
"""Name of a vector -> the coefficients at which its effect is measured, lower and upper."""


@dataclass(frozen=True)
class SideEffects:
    """What else steering one vector changes; `change` is upper end minus lower end, over prompts.

    Attributes:
        ends: coefficients.
        words: mean length in words at the lower end, unsteered and at the upper end.
        words_change: with the half width of its 95% interval.
        tone: mean tone (`valueflow.study.tone`) at the same three, NaN without a measure.
        tone_change: with the half width of its 95% interval.
        degenerate: share of empty or looping texts at the same three.
        damage: mean nats per token above the unsteered texts, at the two ends.
    """

    ends: tuple[float, float]
    words: tuple[float, float, float]
    words_change: tuple[float, float]
    tone: tuple[float, float, float]
    tone_change: tuple[float, float]
    degenerate: tuple[float, float, float]
    damage: tuple[float, float]


def steered_texts(
    loaded: LoadedModel,
    vectors: Mapping[str, SteeringVector],
    ends: Ends,
    *,
    prompts: Sequence[str],
    folder: str | Path,
    decoding: Decoding | None = None,
    stage: Stage | None = None,
) -> dict[str, Grid]:
    """Per vector the answers at its lower end, unsteered and at its upper end.

    One file per vector in `folder`, and one of the unsteered answers, which all share.

    Raises:
        InvalidInput: a vector without ends, or ends that are not on either side of 0.
        StaleArtifact: the folder holds texts of another run; names what differs.
    """
    for name in vectors:
        low, high = ends.get(name, (0.0, 0.0))
        if not low < 0 < high:
            raise InvalidInput(
                f"{name}: expected coefficients on either side of 0, got {low, high}"
            )
    folder = Path(folder)
    base = kept_sweep(folder / "unsteered.jsonl.gz", loaded, {}, [{}], prompts, decoding=decoding)
    found = {}
    for n, (name, vector) in enumerate(vectors.items(), start=1):
        cells = [{"vector": float(end)} for end in ends[name]]
        progress = stage and stage(f"{name} ({n} of {len(vectors)})")
        more = kept_sweep(
            folder / f"{slug(name)}.jsonl.gz",
            loaded,
            {"vector": vector},
            cells,
            prompts,
            decoding=decoding,
            progress=progress,
        )
        found[name] = base.joined(more).at([1, 0, 2])
    return found


def at_ends(grid: Grid, usable: tuple[float, float], *, arm: str = "vector") -> Grid:
    """Three cells of a finer sweep: the outermost coefficients within a range, and 0 between.

    Raises:
        InvalidInput: no coefficient below 0, at 0 or above 0 was swept within the range.
    """
    given = [cell.get(arm, 0.0) for cell in grid.cells]
    inside = [c for c in given if usable[0] - 1e-9 <= c <= usable[1] + 1e-9]
    if 0.0 not in inside or not min(inside, default=0.0) < 0 < max(inside, default=0.0):
        raise InvalidInput(f"no coefficients on both sides of 0 in {usable}; swept were {given}")
    return grid.at([given.index(c) for c in (min(inside), 0.0, max(inside))])


def score_all(
    grids: Mapping[str, Grid],
    evaluators: Mapping[str, AnchorEvaluator],
    *,
    folder: str | Path | None = None,
    stage: Stage | None = None,
) -> dict[str, Float[np.ndarray, "values cells prompts"]]:
    """Intensities of every text for every value; NaN where a text was not ranked.

    Args:
        grids: by name of the vector.
        evaluators: by value id, in the order of the result.
        folder: where scores are kept, one file per vector; None for nowhere. A file whose texts
            or evaluators differ is scored again.
        stage: progress.
    """
    found = {}
    for n, (name, grid) in enumerate(grids.items(), start=1):
        key = _key(grid, evaluators)
        path = None if folder is None else Path(folder) / f"{slug(name)}.json"
        known = None if path is None else _read_scores(path, key)
        if known is None:
            progress = stage and stage(f"score {name} ({n} of {len(grids)})")
            known = _scored(grid, evaluators, progress)
            if path is not None:
                _write_scores(path, key, known, list(evaluators))
        found[name] = known
    return found


def effect_matrix(
    scores: Mapping[str, Float[np.ndarray, "values cells prompts"]], values: Sequence[str]
) -> EffectMatrix:
    """Effects of vectors (by name) from their scores at low, unsteered and high.

    Raises:
        InvalidInput: no vectors.
    """
    if not scores:
        raise InvalidInput("expected scores of one or more vectors, got none")
    stacked = np.stack(list(scores.values()))
    return effects(stacked[:, :, HIGH], stacked[:, :, LOW], list(scores), values)


def side_effects(grid: Grid, tone: Tone | None = None, *, arm: str = "vector") -> SideEffects:
    """Length, tone, degenerate texts and damage of three cells: low, unsteered, high."""
    words = np.array([[len(text.split()) for text in row] for row in grid.texts], dtype=float)
    scored = np.full(words.shape, np.nan)
    if tone is not None:
        flat = [text for row in grid.texts for text in row]
        scored = np.asarray(tone.score(flat), dtype=float).reshape(words.shape)
    damage = grid.nll - grid.nll[UNSTEERED]
    change = EffectMatrix(
        ("vector",), ("words", "tone"), np.stack([words, scored])[None, :, HIGH]
        - np.stack([words, scored])[None, :, LOW],
    )  # fmt: skip
    (w, t), (w_half, t_half) = change.means[0].tolist(), change.half_widths[0].tolist()
    return SideEffects(
        ends=(grid.cells[LOW].get(arm, 0.0), grid.cells[HIGH].get(arm, 0.0)),
        words=_three(words.mean(axis=1)),
        words_change=(w, w_half),
        tone=_three(scored.mean(axis=1)),
        tone_change=(t, t_half),
        degenerate=_three(grid.degenerate.mean(axis=1)),
        damage=(_nan_mean(damage[LOW]), _nan_mean(damage[HIGH])),
    )


def slug(name: str) -> str:
    """A value's id, or another name, as the name of a file."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def _scored(
    grid: Grid, evaluators: Mapping[str, AnchorEvaluator], progress: Any
) -> Float[np.ndarray, "values cells prompts"]:
    _read_ahead(grid, evaluators)
    tables = []
    for n, evaluator in enumerate(evaluators.values(), start=1):
        tables.append(intensities_of(evaluator, grid, range(len(grid.cells)))[0])
        if progress is not None:
            progress(n, len(evaluators))
    return np.stack(tables)


def _read_ahead(grid: Grid, evaluators: Mapping[str, AnchorEvaluator]) -> None:
    """All texts to each judge at once, where it can read ahead of ranking."""
    items = [
        Item(text, prompt)
        for row in grid.texts
        for text, prompt in zip(row, grid.prompts, strict=True)
    ]
    for judge in {id(e.judge): e.judge for e in evaluators.values()}.values():
        read = getattr(judge, "read_ahead", None)
        if read is not None:
            read(items)


def _key(grid: Grid, evaluators: Mapping[str, AnchorEvaluator]) -> str:
    told = {
        "texts": grid.texts,
        "prompts": grid.prompts,
        "evaluators": {value: e.fingerprint() for value, e in evaluators.items()},
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _write_scores(path: Path, key: str, table: np.ndarray, values: Sequence[str]) -> None:
    numbers = np.ma.masked_invalid(table).tolist()  # None where it was not ranked
    content = {"key": key, "values": list(values), "intensities": numbers}
    write_file(path, json.dumps(content).encode())


def _read_scores(path: Path, key: str) -> np.ndarray | None:
    """The scores kept there, if they are of these texts by these evaluators."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != key:
            return None
        return np.array(content["intensities"], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no readable scores ({error}); delete it") from None


def _three(row: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = row.tolist()
    return low, middle, high


def _nan_mean(row: np.ndarray) -> float:
    known = row[np.isfinite(row)]
    return float(known.mean()) if len(known) else float("nan")
