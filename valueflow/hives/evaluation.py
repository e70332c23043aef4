"""How good a value space is, on texts that it has not learned from.

An encoder with axes scores a text by the axis of a value; one without by the axis between what
supports and what opposes the value, so that trained spaces and bases are measured alike. Nothing
here depends on the length or the origin of scores, nor on rotations of the space.

Intervals are the estimate plus and minus 1.96 standard deviations of a bootstrap, cut to the
measure's range; values are taken as they are, never resampled. Equal seeds draw equal resamples
for all encoders.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from valueflow.errors import InvalidInput
from valueflow.hives import _figures, metrics
from valueflow.hives._figures import ByValue as ByValue
from valueflow.hives._figures import Figure as Figure
from valueflow.hives.encoder import Encoder
from valueflow.hives.profile import ValueProfile
from valueflow.hives.questions import rows_as_read
from valueflow.hives.space import vidb_space
from valueflow.theories import get_value
from valueflow.vidb.schema import N_RUNGS, SPLITS, Split
from valueflow.vidb.store import Vidb

if TYPE_CHECKING:
    import pandas as pd

HELD_OUT: tuple[Split, ...] = ("validation", "test")
"""Splits of a database that neither steering vectors nor value spaces learn from."""

GAP = 3.0
N_RESAMPLES = 200
MAX_PAIRS = 20_000
_MIDDLE = (N_RUNGS + 1) // 2


@dataclass(frozen=True)
class Recovery:
    """Whether profiles made of one value's texts name that value.

    Attributes:
        first: share of values that came first in their own profile, with a Wilson interval; n
            values.
        ranks: each value's place in its own profile, 1 for the highest; None if it was silent.
        n_texts: of each profile.
    """

    first: Figure
    ranks: Mapping[str, int | None]
    n_texts: Mapping[str, int]


def held_out(vidb: Vidb, splits: Sequence[Split] = HELD_OUT) -> Vidb:
    """The texts of some splits, of all values."""
    return Vidb(vidb.frame.loc[vidb.frame["split"].isin(list(splits))].reset_index(drop=True))


def geometry(
    encoder: Encoder,
    vidb: Vidb,
    *,
    n_resamples: int = 40,
    max_pairs: int = MAX_PAIRS,
    seed: int,
) -> dict[str, Figure]:
    """How well the space follows the theories' trees: `metrics.report` on a database's texts.

    Returns:
        The measures of all theories together under their names there, and "orthogonality svt" and
        so on for each theory; n texts. What cannot be measured is absent.
    """
    _figures.check_resamples(n_resamples)
    space = vidb_space(vidb, encoder.embed)
    rng = np.random.default_rng(seed)
    found = metrics.report(space, n_bootstrap=n_resamples, max_pairs=max_pairs, rng=rng)
    measured = {name: (row, len(space)) for name, row in found["overall"].items()}
    for theory, rows in found["theories"].items():
        if "orthogonality" in rows:
            measured[f"orthogonality {theory}"] = rows["orthogonality"], len(space.of(theory))
    figures = {}
    for name, (row, n) in measured.items():
        low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
        figures[name] = Figure(row["estimate"], low, high, n)
    return figures


def ladder_agreement(
    encoder: Encoder,
    vidb: Vidb,
    *,
    gap: float | int = GAP,
    n_resamples: int = N_RESAMPLES,
    seed: int,
) -> dict[str, ByValue]:
    """Share of a value's pairs of texts that its scores order as their intensities do.

    Pairs more than `gap` apart count, equal scores as half. Answers are read with their questions.
    Ladders are resampled within a value.

    Args:
        encoder: with axes or without.
        vidb: texts it has not learned from, see `held_out`.
        gap: of intensities.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        "all": over all pairs; "within": over pairs of one ladder, where nothing but the value
        differs. n pairs.
    """
    _figures.check_resamples(n_resamples)
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, tuple[np.ndarray, int]]] = {"all": {}, "within": {}}
    for value in vidb.values:
        rows = vidb.of(value).frame
        scores = encoder.score(get_value(value), rows_as_read(rows))
        right, pairs = _figures.pair_sums(
            rows["intensity"].to_numpy(float), scores, rows["ladder"].tolist(), gap
        )
        counts = _figures.resample_counts(len(pairs), n_resamples, rng)
        found["all"][value] = _figures.shares(
            _figures.totals(right, counts), _figures.totals(pairs, counts)
        )
        found["within"][value] = _figures.shares(counts @ np.diag(right), counts @ np.diag(pairs))
    return {name: _figures.by_value(rows) for name, rows in found.items()}


def sample_agreement(
    encoder: Encoder,
    graded: Mapping[str, tuple[Sequence[str], Sequence[float]]],
    *,
    gap: float | int = GAP,
    n_resamples: int = N_RESAMPLES,
    seed: int,
) -> ByValue:
    """As `ladder_agreement` over all pairs, for texts without ladders that others graded.

    Args:
        encoder: with axes or without.
        graded: value -> texts and their intensities.
        gap: of intensities.
        n_resamples: of the bootstrap, over texts.
        seed: of the bootstrap.

    Raises:
        InvalidInput: not as many intensities as texts; what `Encoder.score` refuses.
        UnknownName: a value that no theory has.
    """
    _figures.check_resamples(n_resamples)
    rng = np.random.default_rng(seed)
    found = {}
    for value, (texts, intensities) in graded.items():
        if len(texts) != len(intensities):
            raise InvalidInput(f"{value}: {len(texts)} texts but {len(intensities)} intensities")
        scores = encoder.score(get_value(value), texts)
        grades = np.asarray(intensities, dtype=np.float64)
        right, pairs = _figures.pair_sums(grades, scores, range(len(texts)), gap)
        counts = _figures.resample_counts(len(pairs), n_resamples, rng)
        found[get_value(value).id] = _figures.shares(
            _figures.totals(right, counts), _figures.totals(pairs, counts)
        )
    return _figures.by_value(found)


def touch_auc(
    encoder: Encoder,
    rows: "pd.DataFrame",
    vidb: Vidb,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int,
) -> ByValue:
    """Whether texts that touch a value, for or against, are farther from its middle than others.

    Area under the ROC curve of |score - middle|, ties counting half; chance is 0.5. The middle is
    the median score of the middle rungs of the value in `vidb`. Texts are read with what they
    answer, here and there.

    Args:
        encoder: with axes or without.
        rows: of an imported corpus that says which texts touch which values; a text touches what
            any of its rows names, and none of the corpus's other values.
        vidb: values that it lacks are left out.
        n_resamples: of the bootstrap, over texts.
        seed: of the bootstrap.

    Raises:
        InvalidInput: no rows.

    Returns:
        Of the values that some texts touch and others do not; n distinct texts for the mean, n
        texts that touch the value for a single one.
    """
    return _touch(encoder, rows, vidb, lambda x, y: _figures.auc(x, y > 0), n_resamples, seed)


def touch_correlation(
    encoder: Encoder,
    rows: "pd.DataFrame",
    vidb: Vidb,
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int,
) -> ByValue:
    """Spearman correlation of |score - middle| with how many annotators chose the value.

    As `touch_auc`, for corpora that count (`agreeing`); a text without a row of the value has 0.
    Absent where all texts have the same count or score.
    """
    return _touch(encoder, rows, vidb, _figures.spearman, n_resamples, seed, lowest=-1.0)


def profile_recovery(
    encoder: Encoder,
    vidb: Vidb,
    *,
    n_texts: int = 20,
    splits: Sequence[Split] = HELD_OUT,
    seed: int,
) -> Recovery:
    """Of how many values the texts of strongest support give a profile that names them first.

    A profile is made of up to `n_texts` top rungs of a value, drawn from `splits`; its neighbours
    are the texts of the other splits.

    Args:
        encoder: with axes or without; the embeddings alone are used.
        vidb: all splits.
        n_texts: per value; fewer where there are fewer.
        splits: of the texts of the profiles.
        seed: of the drawing.

    Raises:
        InvalidInput: no texts outside `splits`, or none of strongest support within.
    """
    own = held_out(vidb, splits).frame
    tops = own[own["rung"] == N_RUNGS]
    known = held_out(vidb, [split for split in SPLITS if split not in splits])
    if not len(known) or not len(tops) or n_texts < 1:
        raise InvalidInput(
            f"expected top rungs in {', '.join(splits)}, texts in other splits, and n_texts of 1 "
            f"or more; got {len(tops)}, {len(known)} and {n_texts}"
        )
    rng = np.random.default_rng(seed)
    ranks: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    for value in sorted(set(tops["value"])):
        rows = tops[tops["value"] == value]
        texts = rng.permutation(sorted(rows["text"]))[:n_texts].tolist()
        profile = ValueProfile.from_texts(
            texts, embed=encoder.embed, vidb=known, k=min(10, len(known)), seed=seed
        )
        order = [score.value for score in profile.top(len(profile.scores))]
        ranks[value] = order.index(value) + 1 if value in order else None
        sizes[value] = len(texts)
    return Recovery(_figures.proportion(list(ranks.values()).count(1), len(ranks)), ranks, sizes)


def _touch(
    encoder: Encoder,
    rows: "pd.DataFrame",
    vidb: Vidb,
    statistic: Callable[[np.ndarray, np.ndarray], np.ndarray],
    n_resamples: int,
    seed: int,
    lowest: float = 0.0,
) -> ByValue:
    """A statistic of |score - middle| and the number of people who say that a text touches."""
    _figures.check_resamples(n_resamples)
    if not len(rows):
        raise InvalidInput("expected rows of a corpus, got none; see its `left_out`")
    rows = rows.assign(read=rows_as_read(rows))
    texts = sorted(set(rows["read"]))
    rng = np.random.default_rng(seed)
    # Indices of texts; the first row is the sample itself.
    draws = [np.arange(len(texts)), *rng.integers(len(texts), size=(n_resamples, len(texts)))]
    found = {}
    for value, own in rows.groupby("value"):
        frame = vidb.frame.loc[(vidb.frame["value"] == value) & (vidb.frame["rung"] == _MIDDLE)]
        if len(frame):
            known = get_value(str(value))
            middle = np.median(encoder.score(known, rows_as_read(frame)))
            size = np.abs(encoder.score(known, texts) - middle)
            # Corpora that do not count them have None; whoever touches is then one.
            chosen = own["agreeing"].astype(float).fillna(1.0).groupby(own["read"]).max()
            counts = np.array([chosen.get(text, 0.0) for text in texts])
            found[str(value)] = statistic(size[draws], counts[draws]), int((counts > 0).sum())
    return _figures.by_value(found, n=len(texts), lowest=lowest)
