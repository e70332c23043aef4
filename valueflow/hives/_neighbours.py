"""The sums behind `valueflow.hives.profile`: texts, their neighbours and what those weigh."""

import numpy as np
from jaxtyping import Float, Int

from valueflow.errors import InvalidInput
from valueflow.hives.space import unit_rows
from valueflow.vidb import Vidb
from valueflow.vidb.quality import Embed

_CHUNK = 256


def embedded(embed: Embed, texts: list[str]) -> Float[np.ndarray, "texts width"]:
    rows = np.asarray(embed(texts))
    if rows.ndim != 2 or len(rows) != len(texts):
        raise InvalidInput(f"embed gave shape {rows.shape} for {len(texts)} texts; one row each")
    return unit_rows(rows)


def neighbours(
    own: Float[np.ndarray, "texts width"],
    known: Float[np.ndarray, "rows width"],
    k: int,
    min_similarity: float,
) -> tuple[Int[np.ndarray, "texts k"], Float[np.ndarray, "texts k"]]:
    """Rows of the database nearest to each text, and their weights."""
    near = np.empty((len(own), k), dtype=int)
    weights = np.empty((len(own), k))
    for start in range(0, len(own), _CHUNK):
        part = slice(start, start + _CHUNK)
        cosine = own[part] @ known.T
        near[part] = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        weights[part] = np.take_along_axis(cosine, near[part], axis=1)
    return near, np.where(weights > max(min_similarity, 0.0), weights, 0.0)


def sums(
    near: Int[np.ndarray, "texts k"], weights: Float[np.ndarray, "texts k"], vidb: Vidb
) -> tuple[Float[np.ndarray, "texts values"], Float[np.ndarray, "texts values"]]:
    """Per text and value the sum of weights, and of weights times intensities."""
    codes = np.searchsorted(np.array(vidb.values), vidb.frame["value"].to_numpy(str))[near]
    intensities = vidb.frame["intensity"].to_numpy(float)[near]
    mass, total = np.zeros((2, len(near), len(vidb.values)))
    rows = np.arange(len(near))[:, None]
    np.add.at(mass, (rows, codes), weights)
    np.add.at(total, (rows, codes), weights * intensities)
    return mass, total
