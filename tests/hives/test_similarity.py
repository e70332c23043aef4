import itertools
import math

import numpy as np
import pandas as pd
import pytest

from valueflow.errors import InvalidInput
from valueflow.hives.similarity import N_TEXTS, unrelated_cosine
from valueflow.theories import get_theory, get_value
from valueflow.vidb import Vidb

VALUES = ("duty/justice", "mft/care-harm", "svt/face", "svt/hedonism", "svt/power", "svt/security")


def database(per_value, values=VALUES):
    rows = [
        (f"{v}/post-{i:04}/1", v, f"{v} {i}", None, 0.0) for v in values for i in range(per_value)
    ]
    return Vidb(pd.DataFrame(rows, columns=["id", "value", "text", "context", "intensity"]))


def embeddings(vidb, common=1.0, seed=0):
    rng = np.random.default_rng(seed)
    axes = dict(zip(vidb.values, rng.normal(size=(len(vidb.values), 8)), strict=True))
    return np.stack([axes[v] for v in vidb.frame["value"]]) + common * rng.normal(
        size=(len(vidb), 8)
    )


def nodes_at(value, level):
    theory = get_theory(get_value(value).theory)
    return {path[level] for path in theory.paths(value) if len(path) > level}


def unrelated(a, b):
    if a.partition("/")[0] != b.partition("/")[0]:
        return True
    return not any(nodes_at(a, level) & nodes_at(b, level) for level in range(9))


@pytest.mark.parametrize("common", [0.3, 1.0, 3.0])
def test_the_cosine_is_that_of_a_slow_loop(common):
    vidb = database(12)
    rows = embeddings(vidb, common)
    texts = list(zip(vidb.frame["value"], rows, strict=True))
    cosines = sorted(
        float(x @ y / math.sqrt((x @ x) * (y @ y)))
        for (a, x), (b, y) in itertools.combinations(texts, 2)
        if unrelated(a, b)
    )
    assert 0 < len(cosines) < math.comb(len(texts), 2) - 6 * math.comb(12, 2)
    expected = cosines[math.ceil(0.95 * len(cosines)) - 1]
    assert unrelated_cosine(rows, vidb) == pytest.approx(expected, abs=5.1e-4)


def test_values_that_share_a_level_do_not_count():
    vidb = database(5, ("mft/care-harm", "svt/hedonism", "svt/power", "svt/stimulation"))
    apart = {"svt/power": [1, 0, 0], "svt/stimulation": [1, 0, 0], "mft/care-harm": [0, 0, 1]}
    # Hedonism shares levels with both; power and stimulation share none with each other.
    rows = np.array([apart.get(v, [0, 1, 0]) for v in vidb.frame["value"]], dtype=float)
    assert unrelated_cosine(rows, vidb) == 1.0
    rows[(vidb.frame["value"] == "svt/stimulation").to_numpy()] = [0, 1, 0]
    assert unrelated_cosine(rows, vidb) == 0.0


def test_order_of_rows_lengths_and_rotations_do_not_matter():
    vidb = database(N_TEXTS // 4)
    assert len(vidb) > N_TEXTS
    rows = embeddings(vidb)
    found = unrelated_cosine(rows, vidb)
    order = np.random.default_rng(1).permutation(len(vidb))
    shuffled = Vidb(vidb.frame.iloc[order].reset_index(drop=True))
    rotation = np.linalg.qr(np.random.default_rng(2).normal(size=(8, 8)))[0]
    lengths = np.random.default_rng(3).uniform(0.1, 9, size=(len(vidb), 1))
    assert unrelated_cosine(rows[order], shuffled) == found
    assert unrelated_cosine(lengths * rows @ rotation, vidb) == pytest.approx(found, abs=1.1e-3)


def test_a_sample_of_a_large_database_is_enough():
    small, large = database(300), database(1500)
    found = unrelated_cosine(embeddings(large), large)
    assert found == pytest.approx(unrelated_cosine(embeddings(small), small), abs=0.02)


def test_what_has_no_unrelated_pairs_or_other_rows_is_refused():
    alone = database(9, ("svt/power",))
    with pytest.raises(InvalidInput, match="give min_similarity"):
        unrelated_cosine(embeddings(alone), alone)
    with pytest.raises(InvalidInput, match="expected 9 embeddings"):
        unrelated_cosine(np.ones((8, 3)), alone)
    with pytest.raises(InvalidInput, match="zero or not finite"):
        unrelated_cosine(np.zeros((18, 3)), database(9, ("svt/power", "mft/care-harm")))
