"""What a person's texts say of their values: a value profile read off the nearest texts of VIDB.

Each text is embedded and its k nearest texts of the database are found, over all values, by
cosine. A neighbour at distance d = 1 - cosine has weight 1 - d; those with a cosine of
`min_similarity` or less have none. The intensity of value v is the weighted mean

    I_v = sum of w * s / sum of w

over all neighbours that are texts of v, of all the person's texts; s is the neighbour's intensity.
So a text counts for a value by how much of its neighbourhood speaks of it. After the value
profiles of the paper, which does not say over what the weights are normalised.

A text that is itself in the database is a neighbour like any other, with weight 1: its grade is
known, and without it the other rungs of its ladder, graded apart, would speak in its place. So
whoever tests profiles against the grades must give a database without the ladders tested with.

A mean of neighbours is drawn to the middle of the scale: differences between people and the order
of values mean more than the numbers themselves.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives._neighbours import embedded, neighbours, sums
from valueflow.hives.encoder import ValueEncoder, load_value_encoder
from valueflow.hives.similarity import unrelated_cosine
from valueflow.registry import unknown_name
from valueflow.theories import get_value
from valueflow.vidb import Vidb, load_starter
from valueflow.vidb.quality import Embed

Status = Literal["ok", "single", "silent"]

N_BOOTSTRAP = 500
N_EVIDENCE = 3


@dataclass(frozen=True)
class Evidence:
    """One of the person's texts and what it contributed to a value.

    Attributes:
        text: as given.
        weight: its share of the value's weight, 0 to 1.
        intensity: what it says of the value alone.
    """

    text: str
    weight: float
    intensity: float


@dataclass(frozen=True)
class ValueScore:
    """What a person's texts say of one value.

    Attributes:
        value: id.
        intensity: on the scale of VIDB, -10 to 10; NaN if silent.
        stderr: by a bootstrap over the texts, corrected for their small number by sqrt(n / (n - 1))
            with n = n_texts; NaN unless "ok". The errors of VIDB's own intensities are not in it.
        n_texts: texts that have a neighbour of the value.
        share: of the weight of all values, this one's; the shares of a profile sum to 1.
        status: "ok"; "single" if one text alone speaks of it; "silent" if none does.
        evidence: the texts of largest weight, the largest first.
    """

    value: str
    intensity: float
    stderr: float
    n_texts: int
    share: float
    status: Status
    evidence: tuple[Evidence, ...]

    @property
    def emphasis(self) -> float:
        """Intensity times share: what the value adds to the mean intensity of all neighbours.

        NaN if silent. It is the intensity with weights normalised over the neighbours of all
        values, and tells what somebody's texts are about better than the intensity does: one
        passing remark can be as strong as twenty.
        """
        return self.intensity * self.share


@dataclass(frozen=True)
class ValueDifference:
    """How two profiles differ in one value: first minus second, NaN where either is silent."""

    value: str
    difference: float
    stderr: float


@dataclass(frozen=True)
class ValueProfile:
    """A person's or group's values, as their texts tell them.

    Attributes:
        scores: by value id, for all values of the database, in its order.
        n_texts: how many texts it was made from.
        k: neighbours per text.
        min_similarity: cosine that a neighbour must exceed.
        vidb: fingerprint of the database.
        encoder: name of the encoder, for the record.
    """

    scores: Mapping[str, ValueScore]
    n_texts: int
    k: int
    min_similarity: float
    vidb: str
    encoder: str

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        *,
        embed: Embed | None = None,
        vidb: Vidb | None = None,
        k: int = 10,
        min_similarity: float | None = None,
        encoder: str | None = None,
        seed: int,
    ) -> "ValueProfile":
        """The profile of one person's texts; see the module for the method.

        Args:
            texts: statements, answers or posts, one or more; each is a unit of the bootstrap.
            embed: any encoder; it is asked for the texts and for the whole database each time, so
                let it remember (`Encoder.embed` does). None for a trained one, which is kept
                loaded until another is asked for.
            vidb: the graded texts; None for the starter database.
            k: neighbours per text, 1 to the size of the database.
            min_similarity: cosine that a neighbour must exceed, -1 to 1, below 0 as 0. None for
                what 95% of the unrelated pairs of the database do not exceed (`unrelated_cosine`).
            encoder: the name of `embed`, "unnamed" if None; without `embed` the trained encoder to
                load, see `load_value_encoder`.
            seed: of the bootstrap.

        Raises:
            InvalidInput: no texts, an empty one, an empty database, k or min_similarity out of
                range, embeddings that are not finite or not one per text, a database from which
                min_similarity cannot be learned.
            ArtifactError: the trained encoder is missing or damaged.
        """
        vidb = load_starter() if vidb is None else vidb
        _check(texts, vidb, k, min_similarity)
        if embed is None:
            trained = _trained(encoder)
            embed, encoder = trained.embed, trained.name
        own = embedded(embed, list(texts))
        known = embedded(embed, vidb.frame["text"].tolist())
        if own.shape[1] != known.shape[1]:
            raise InvalidInput(f"embeddings of width {own.shape[1]} and {known.shape[1]} mixed")
        if min_similarity is None:
            min_similarity = max(unrelated_cosine(known, vidb), 0.0)
        near, weights = neighbours(own, known, k, min_similarity)
        mass, total = sums(near, weights, vidb)
        scores = _scores(list(texts), vidb.values, mass, total, np.random.default_rng(seed))
        name = encoder or "unnamed"
        return cls(scores, len(texts), k, min_similarity, vidb.fingerprint(), name)

    def __getitem__(self, value: str) -> ValueScore:
        """The score of a value, by any of its names; raises UnknownName if it has none."""
        value_id = get_value(value).id
        if value_id not in self.scores:
            raise unknown_name("value of the profile", value_id, self.scores)
        return self.scores[value_id]

    @property
    def silent(self) -> tuple[str, ...]:
        """Ids of the values that none of the texts speaks of."""
        return tuple(value for value, s in self.scores.items() if s.status == "silent")

    def top(self, n: int) -> list[ValueScore]:
        """The `n` values of largest emphasis, largest first; fewer if the others are silent.

        Values with a single text come after those with several, whatever their emphasis.
        """
        if n < 0:
            raise InvalidInput(f"expected how many values to name, 0 or more, got {n}")
        heard = [s for s in self.scores.values() if s.status != "silent"]
        return sorted(heard, key=lambda s: (s.status != "ok", -s.emphasis))[:n]

    def to_json(self) -> str:
        """JSON that `from_json` reads back; NaN is written as null."""
        from valueflow.hives.profile_json import dump  # it builds on this module

        return dump(self)

    @classmethod
    def from_json(cls, text: str) -> "ValueProfile":
        """The profile that `to_json` wrote.

        Raises:
            InvalidInput: not JSON, fields missing or of another kind, numbers out of range.
            UnknownName: a value that no theory has.
        """
        from valueflow.hives.profile_json import parse

        return parse(text)


def compare(a: ValueProfile, b: ValueProfile) -> dict[str, ValueDifference]:
    """Differences a - b per value, with standard errors.

    The two are taken for independent: made from different texts. The standard error is NaN where
    one of them has a single text.

    Raises:
        InvalidInput: made with different databases, encoders or settings.
    """
    for name in ("vidb", "encoder", "k", "min_similarity"):
        if getattr(a, name) != getattr(b, name):
            raise InvalidInput(
                f"profiles compare only if made alike: {name} is {getattr(a, name)!r} in one and "
                f"{getattr(b, name)!r} in the other"
            )
    return {
        value: ValueDifference(
            value,
            a.scores[value].intensity - b.scores[value].intensity,
            math.hypot(a.scores[value].stderr, b.scores[value].stderr),
        )
        for value in a.scores
    }


@functools.lru_cache(maxsize=1)
def _trained(name: str | None) -> ValueEncoder:
    return load_value_encoder(name)


def _check(texts: Sequence[str], vidb: Vidb, k: int, min_similarity: float | None) -> None:
    if isinstance(texts, str) or not texts:
        raise InvalidInput("expected a list of one or more texts of the person")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"text {i} is empty or no text: {text!r:.80}; leave it out")
    if not 1 <= k <= len(vidb):
        raise InvalidInput(f"expected k from 1 to the {len(vidb)} texts of the database, got {k}")
    if min_similarity is not None and not -1 <= min_similarity <= 1:
        raise InvalidInput(f"min_similarity is a cosine, -1 to 1, got {min_similarity}")


def _scores(
    texts: list[str],
    values: Sequence[str],
    mass: Float[np.ndarray, "texts values"],
    total: Float[np.ndarray, "texts values"],
    rng: np.random.Generator,
) -> dict[str, ValueScore]:
    even = np.full(len(texts), 1 / len(texts))
    drawn = rng.multinomial(len(texts), even, size=N_BOOTSTRAP)
    with np.errstate(invalid="ignore"):
        resamples, estimates = (drawn @ total) / (drawn @ mass), total.sum(0) / mass.sum(0)
        single, share = total / mass, mass / mass.sum(axis=0)
    everything = mass.sum() or 1.0
    scores = {}
    for v, value in enumerate(values):
        n = int((mass[:, v] > 0).sum())
        status: Status = "ok" if n > 1 else ("single" if n else "silent")
        heaviest = [t for t in np.argsort(-mass[:, v], kind="stable") if mass[t, v] > 0]
        scores[value] = ValueScore(
            value,
            float(estimates[v]),
            _stderr(resamples[:, v], n),
            n,
            float(mass[:, v].sum() / everything),
            status,
            tuple(
                Evidence(texts[t], float(share[t, v]), float(single[t, v]))
                for t in heaviest[:N_EVIDENCE]
            ),
        )
    return scores


def _stderr(resamples: Float[np.ndarray, " resamples"], n: int) -> float:
    """Resamples that miss the value altogether are left out."""
    known = resamples[np.isfinite(resamples)]
    if n < 2 or len(known) < 2:
        return math.nan
    return float(known.std(ddof=1)) * math.sqrt(n / (n - 1))
