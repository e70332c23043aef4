"""Many coefficients and arms in few generate calls: every batch row has its own dose."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from valueflow.backends.base import Backend, Positions
from valueflow.backends.hf import HFBackend
from valueflow.dose.damage import generated_nll, is_degenerate
from valueflow.dose.turns import cut_turn, until_next_turn
from valueflow.errors import InvalidInput
from valueflow.models.chat import (
    Template,
    check_length,
    check_template,
    checked_texts,
    encode,
    format_prompts,
    format_used,
)
from valueflow.models.loading import LoadedModel
from valueflow.steering.vector import SteeringVector, intervention

Cell = Mapping[str, float]
"""Arm -> coefficient; arms that are not named have 0."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Decoding:
    """How text is generated: part of what a dose curve holds for.

    Attributes:
        max_new_tokens: at most so many per answer.
        repetition_penalty: as in transformers; small models loop without one.
        positions: tokens that get the addition.
        template: the format of prompts (`valueflow.models.chat.format_prompts`). In the plain one
            an answer ends where the model goes on to ask itself another question.

    Raises:
        UnknownName: no such template; names near misses.
    """

    max_new_tokens: int = 48
    repetition_penalty: float = 1.1
    positions: Positions = "all"
    template: Template = "auto"

    def __post_init__(self) -> None:
        check_template(self.template)


@dataclass(frozen=True)
class Grid:
    """Texts of a sweep.

    Attributes:
        cells: the doses.
        prompts: asked at every dose.
        texts: (cells, prompts).
        nll: nats per generated token under the unsteered model, the end-of-turn token included,
            (cells, prompts).
        degenerate: empty or looping, (cells, prompts).
    """

    cells: tuple[Cell, ...]
    prompts: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    nll: Float[np.ndarray, "cells prompts"]
    degenerate: Bool[np.ndarray, "cells prompts"]

    def at(self, rows: Sequence[int]) -> "Grid":
        """Some of its cells."""
        own = list(rows)
        return Grid(
            tuple(self.cells[i] for i in own),
            self.prompts,
            tuple(self.texts[i] for i in own),
            self.nll[own],
            self.degenerate[own],
        )

    def joined(self, other: "Grid") -> "Grid":
        """Its cells, then those of another sweep over the same prompts.

        Raises:
            InvalidInput: other prompts.
        """
        if self.prompts != other.prompts:
            raise InvalidInput("only sweeps over the same prompts can be joined")
        return Grid(
            self.cells + other.cells,
            self.prompts,
            self.texts + other.texts,
            np.concatenate([self.nll, other.nll]),
            np.concatenate([self.degenerate, other.degenerate]),
        )


def sweep(
    loaded: LoadedModel,
    arms: Mapping[str, SteeringVector],
    cells: Sequence[Cell],
    prompts: Sequence[str],
    *,
    asked: Sequence[Sequence[str]] | None = None,
    decoding: Decoding | None = None,
    batch_rows: int = 144,
    backend: Backend | None = None,
    progress: Progress | None = None,
) -> Grid:
    """Answer every prompt at every dose, greedily.

    Args:
        loaded: the model.
        arms: vectors by name, all for this model.
        cells: doses; rows of one generate call may belong to different cells.
        prompts: user messages; the format that the decoding names is added.
        asked: what the model is given instead, formatted, (cells, prompts): the prompts under an
            instruction. The losses of the answers are those after the prompt as it is: an
            instruction is a way of steering, and what it costs is counted like any other's.
        decoding: None for `Decoding()`.
        batch_rows: rows per generate call; the longest prompts go together.
        backend: what runs the model; None for transformers with hooks.
        progress: called with rows done and all rows.

    Raises:
        InvalidInput: no prompts or cells, prompts that are no list of strings, a cell that names
            no arm, a chat format that the tokenizer lacks, `asked` of another shape, less than 1
            row a batch, or a prompt that is too long for the model with the tokens to generate.
    """
    decoding = decoding or Decoding()
    _check(arms, cells, prompts, asked)
    if batch_rows < 1:
        raise InvalidInput(f"batch_rows: expected 1 row or more per call, got {batch_rows}")
    if backend is None:
        backend = HFBackend(loaded.model, loaded.blocks)
    table = torch.tensor([[float(cell.get(name, 0.0)) for name in arms] for cell in cells])
    formatted = format_prompts(loaded.tokenizer, prompts, template=decoding.template)
    given = asked if asked is not None else [formatted] * len(cells)
    _check_lengths(loaded, prompts, [formatted, *(asked or ())], decoding.max_new_tokens)
    rows = [(c, p) for p in range(len(prompts)) for c in range(len(cells))]
    rows.sort(key=lambda row: len(given[row[0]][row[1]]))
    texts = np.empty((len(cells), len(prompts)), dtype=object)
    nll = np.full(texts.shape, np.nan)
    for start in range(0, len(rows), batch_rows):
        batch = rows[start : start + batch_rows]
        answers, losses = _answer(
            backend,
            loaded,
            list(arms.values()),
            table[[c for c, _ in batch]],
            [given[c][p] for c, p in batch],
            [formatted[p] for _, p in batch],
            decoding,
        )
        for (c, p), answer, loss in zip(batch, answers, losses.tolist(), strict=True):
            texts[c, p], nll[c, p] = answer, loss
        if progress is not None:
            progress(min(start + batch_rows, len(rows)), len(rows))
    broken = np.array([[is_degenerate(text) for text in row] for row in texts])
    return Grid(tuple(cells), tuple(prompts), tuple(map(tuple, texts)), nll, broken)


def _answer(
    backend: Backend,
    loaded: LoadedModel,
    vectors: list[SteeringVector],
    coefficients: Float[Tensor, "rows arms"],
    given: list[str],
    plain: list[str],
    decoding: Decoding,
) -> tuple[list[str], Float[Tensor, " rows"]]:
    """Answers to what is given, and their losses after the plain prompts."""
    tokenizer, device = loaded.tokenizer, loaded.device
    encoded = encode(tokenizer, given)
    ids, mask = encoded["input_ids"].to(device), encoded["attention_mask"].to(device)
    new = backend.generate(
        ids,
        mask,
        intervention(vectors, coefficients, positions=decoding.positions) if vectors else None,
        max_new_tokens=decoding.max_new_tokens,
        repetition_penalty=decoding.repetition_penalty,
        pad_token_id=tokenizer.pad_token_id,
    )
    real = _until_end(new, _end_ids(loaded))
    by_turns = format_used(tokenizer, decoding.template) == "plain"
    if by_turns:
        real = until_next_turn(tokenizer, new, real)
    if given != plain:
        encoded = encode(tokenizer, plain)
        ids, mask = encoded["input_ids"].to(device), encoded["attention_mask"].to(device)
    losses = generated_nll(backend, ids, mask, new, real)
    # Up to the end only: a pad token need not be a special one.
    answers = [row[keep] for row, keep in zip(new, real, strict=True)]
    texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
    return [(cut_turn(text) if by_turns else text).strip() for text in texts], losses.cpu()


def _end_ids(loaded: LoadedModel) -> list[int]:
    end = loaded.model.generation_config.eos_token_id
    if end is None:
        end = loaded.tokenizer.eos_token_id
    return [] if end is None else list(end) if isinstance(end, list) else [end]


def _until_end(ids: Int[Tensor, "rows new"], end_ids: Sequence[int]) -> Bool[Tensor, "rows new"]:
    """Tokens up to and with the first end-of-turn token; what follows is padding."""
    ended = torch.isin(ids, torch.tensor(end_ids, device=ids.device, dtype=ids.dtype))
    return (ended.cumsum(1) - ended.long()) == 0


def _check(
    arms: Mapping[str, SteeringVector],
    cells: Sequence[Cell],
    prompts: Sequence[str],
    asked: Sequence[Sequence[str]] | None,
) -> None:
    checked_texts("prompts", prompts)
    for row in asked or ():
        checked_texts("texts in each row of asked", row)
    if not cells or not prompts:
        raise InvalidInput(f"a sweep needs cells and prompts, got {len(cells)} and {len(prompts)}")
    for cell in cells:
        unknown = set(cell) - set(arms)
        if unknown:
            raise InvalidInput(f"cell names arm {sorted(unknown)[0]!r}; arms are {sorted(arms)}")
    shape = None if asked is None else [len(row) for row in asked]
    if shape is not None and shape != [len(prompts)] * len(cells):
        raise InvalidInput(
            f"asked: expected {len(prompts)} texts for each of {len(cells)} cells, got {shape}"
        )


def _check_lengths(
    loaded: LoadedModel, prompts: Sequence[str], rows: Sequence[Sequence[str]], new_tokens: int
) -> None:
    """Refuse what does not fit into the model with its answer; each row has all prompts' texts."""
    texts, told = [text for row in rows for text in row], list(prompts) * len(rows)
    check_length(loaded.model, loaded.tokenizer, texts, told=told, new_tokens=new_tokens)
