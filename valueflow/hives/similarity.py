"""How alike two texts must be before it means anything: learned from a database, not chosen."""

import hashlib

import numpy as np
from jaxtyping import Float

from valueflow.errors import InvalidInput
from valueflow.hives.space import unit_rows
from valueflow.theories.levels import shared_levels
from valueflow.vidb import Vidb

UNRELATED = 0.95
"""Share of the unrelated pairs that must not pass for neighbours."""

N_TEXTS = 2000
_DECIMALS = 3


def unrelated_cosine(embeddings: Float[np.ndarray, "rows width"], vidb: Vidb) -> float:
    """The cosine that `UNRELATED` of the unrelated pairs of a database do not exceed.

    A pair of texts is unrelated if their values stand in different theories or share no level of
    their tree. So it is a number of the encoder and the database alone: encoders differ in how
    alike they find any two texts. Of more than `N_TEXTS` texts those are taken whose ids have the
    lowest hashes, which neither chance nor the order of the rows decides. Rounded to 0.001, so
    that an encoder's rounding errors do not make two profiles incomparable.

    It bounds a pair drawn at random. The nearest of thousands of texts is nearer than that, so a
    text that speaks of no value may pass it, the more so the less an encoder tells values apart.

    Args:
        embeddings: one row per text of the database, of any length but 0.
        vidb: the database.

    Raises:
        InvalidInput: another number of rows, no unrelated pair, what `unit_rows` refuses.
    """
    if len(embeddings) != len(vidb):
        raise InvalidInput(f"expected {len(vidb)} embeddings, one per text, got {len(embeddings)}")
    rows = _sample(vidb.frame["id"].tolist())
    names = vidb.values
    codes = np.searchsorted(np.array(names), vidb.frame["value"].to_numpy(str)[rows])
    apart = np.array([[shared_levels(a, b) <= 0 for b in names] for a in names], dtype=bool)
    pairs = np.triu(apart[codes][:, codes], k=1)
    if not pairs.any():
        raise InvalidInput(
            "no two texts of the database have values of different theories or without a shared "
            "level, so what is unlike cannot be learned from it; give min_similarity"
        )
    known = unit_rows(embeddings[rows])
    # The inverted distribution function: no more than the rest lies above, however many tie.
    found = np.quantile((known @ known.T)[pairs], UNRELATED, method="inverted_cdf")
    return round(float(found), _DECIMALS)


def _sample(ids: list[str]) -> list[int]:
    by_hash = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    return by_hash[:N_TEXTS]
