"""Whether an encoder reads answers with their questions, on pairs kept out of all training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives import _figures
from valueflow.hives._figures import Figure
from valueflow.hives.encoder import Encoder
from valueflow.hives.questions import QUESTION_KINDS, QuestionPair, as_read, rows_as_read
from valueflow.theories import get_value
from valueflow.vidb.schema import N_RUNGS
from valueflow.vidb.store import Vidb

N_RESAMPLES = 500


@dataclass(frozen=True)
class Answering:
    """How often tone, politeness and negation did not mislead.

    Attributes:
        pairs: share of pairs whose supporting item scores above the opposing one, ties as half; n
            pairs.
        sides: share of items on their side of the value's middle, the median score of the middle
            rungs of a database; n items. Harder than `pairs`: a pair with both items on one side
            may be in order.
        kinds: `sides` by kind of pair.
    """

    pairs: Figure
    sides: Figure
    kinds: dict[str, Figure]


def question_agreement(
    encoder: Encoder,
    pairs: Sequence[QuestionPair],
    vidb: Vidb,
    *,
    alone: bool = False,
    n_resamples: int = N_RESAMPLES,
    seed: int,
) -> Answering:
    """Whether scores tell on which side of a value answers are.

    Args:
        encoder: with axes or without.
        pairs: it has not learned from, `load_questions("kept")`.
        vidb: its middle rungs, each read with its question, are the middle of a value.
        alone: leave the questions of the pairs out, to see what they are worth; a pair of kind
            "flip" is then one text twice.
        n_resamples: of the bootstrap over pairs.
        seed: of the bootstrap.

    Raises:
        InvalidInput: no pairs, or a value without middle rungs in `vidb`.
    """
    _figures.check_resamples(n_resamples)
    if not pairs:
        raise InvalidInput("expected question pairs, got none")
    by_value: dict[str, list[QuestionPair]] = {}
    for pair in pairs:
        by_value.setdefault(pair.value, []).append(pair)
    high, low = np.concatenate([_above_middle(encoder, own, vidb, alone)
                                for own in by_value.values()]).T  # fmt: skip
    order = (np.sign(high - low) + 1) / 2
    sides = ((high > 0) * 1.0 + (low < 0)) / 2
    kinds = np.array([pair.kind for own in by_value.values() for pair in own])
    rng = np.random.default_rng(seed)
    counts = _figures.resample_counts(len(pairs), n_resamples, rng)
    return Answering(
        _share(order, counts, len(pairs)),
        _share(sides, counts, 2 * len(pairs)),
        {
            kind: _share(sides, counts * (kinds == kind), 2 * int((kinds == kind).sum()))
            for kind in QUESTION_KINDS
            if (kinds == kind).any()
        },
    )


def _above_middle(
    encoder: Encoder, pairs: Sequence[QuestionPair], vidb: Vidb, alone: bool
) -> Float[np.ndarray, "pairs 2"]:
    """How far the supporting and the opposing item of each pair are above the value's middle."""
    frame, value = vidb.frame, pairs[0].value
    rows = frame.loc[(frame["value"] == value) & (frame["rung"] == (N_RUNGS + 1) // 2)]
    if not len(rows):
        raise InvalidInput(f"{value}: the database has no middle rungs to compare with")
    known = rows_as_read(rows)
    items = [item for pair in pairs for item in (pair.supports, pair.opposes)]
    own = [item.text if alone else as_read(*item) for item in items]
    scores = encoder.score(get_value(value), [*own, *known])
    return (scores[: len(own)] - np.median(scores[len(own) :])).reshape(-1, 2)


def _share(credit: np.ndarray, counts: np.ndarray, n: int) -> Figure:
    with np.errstate(invalid="ignore"):
        return _figures.figure((counts @ credit) / counts.sum(axis=1), n)
