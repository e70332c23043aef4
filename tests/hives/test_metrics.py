import itertools
import json
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from valueflow.errors import InvalidInput, UnknownName
from valueflow.hives import _measures
from valueflow.hives.metrics import (
    knn_accuracy,
    level_distances,
    orthogonality,
    ranking_accuracy,
    report,
    similarity_correlation,
    value_vectors,
)
from valueflow.hives.space import labelled_space, vidb_space
from valueflow.theories import get_theory, steered_values
from valueflow.theories.levels import levels_of, shared_levels
from valueflow.vidb import Vidb

SVT = [v.id for v in steered_values("svt") if len(get_theory("svt").paths(v.id)) == 1]
MFT = [v.id for v in steered_values("mft")]
RIGHT = [v.id for v in steered_values("right")]
ALL_SVT = [v.id for v in steered_values("svt")]


def labels(values, n_ladders=3):
    """A supporting and an opposing text per ladder."""
    rows = [(v, d, f"{v}-{i}") for v in values for i in range(n_ladders) for d in (1, -1)]
    return [list(column) for column in zip(*rows, strict=True)]


def perfect(values, n_ladders=3, *, own_direction=False):
    """Cosine is shared levels plus 0.5 for the same direction, up to scale and a constant.

    With `own_direction` every value has its own axis of direction, at right angles to all others.
    """
    ids, directions, ladders = labels(values, n_ladders)
    nodes = sorted({node for v in ids for level in levels_of(v) for node in level})
    axes = [f"{v} axis" for v in values] if own_direction else ["axis"]
    names = nodes + axes
    rows = np.zeros((len(ids), len(names)))
    for row, value, direction in zip(rows, ids, directions, strict=True):
        for level in levels_of(value):
            row[[names.index(node) for node in level]] = 1
        row[names.index(f"{value} axis" if own_direction else "axis")] = 0.5 * direction
    return labelled_space(rows, ids, directions, ladders)


def noisy(values, n_ladders=4, *, seed, width=8, signal=0.0):
    """Random texts; with `signal`, values and directions that can be told apart."""
    rng = np.random.default_rng(seed)
    ids, directions, ladders = labels(values, n_ladders)
    centres = np.random.default_rng(99).normal(size=(len(values), 2, width))
    rows = rng.normal(size=(len(ids), width))
    topic = {ladder: rng.normal(size=width) for ladder in ladders}
    for row, v, d, ladder in zip(rows, ids, directions, ladders, strict=True):
        base, way = centres[values.index(v)]
        row += signal * (base + d * way) + 0.5 * topic[ladder]
    return labelled_space(rows, ids, directions, ladders)


def rng():
    return np.random.default_rng(7)


def moved(space, rows=None, rotation=None):
    rows = range(len(space)) if rows is None else rows
    embeddings = space.embeddings if rotation is None else space.embeddings @ rotation
    return labelled_space(
        embeddings[list(rows)],
        [space.values[i] for i in rows],
        [int(space.directions[i]) for i in rows],
        [space.ladders[i] for i in rows],
    )


def shuffled(space, seed):
    """The same embeddings under the labels of others."""
    order = np.random.default_rng(seed).permutation(len(space))
    return labelled_space(
        space.embeddings[order], space.values, space.directions.tolist(), space.ladders
    )


@pytest.mark.parametrize(
    ("a", "b", "levels"),
    [
        ("power", "power", 3),
        ("power", "achievement", 2),
        ("power", "security", 1),
        ("power", "benevolence", 0),
        ("hedonism", "power", 2),
        ("hedonism", "stimulation", 2),
        ("hedonism", "humility", 1),
        ("hedonism", "security", 1),
        ("humility", "face", 2),
        ("svt/power", "svt/power-dominance", 3),
        ("mft/care-harm", "mft/fairness-cheating", 0),
        ("right/civil", "right/political", 1),
        ("duty/justice", "svt/power", -1),
    ],
)
def test_values_share_a_level_if_any_of_their_nodes_there_agree(a, b, levels):
    assert shared_levels(a, b) == shared_levels(b, a) == levels


@pytest.mark.parametrize(
    ("values", "bins", "depth"), [(SVT, 5, 3), (MFT, 3, 1), (RIGHT, 4, 2)], ids="smr"
)
def test_a_perfect_space_reaches_the_best_of_every_measure(values, bins, depth):
    space = perfect(values)
    ranks = ranking_accuracy(space, rng=rng())
    assert (ranks["pairs"], ranks["strict"]) == (1, 1)
    assert ranks["strict_chance"] == pytest.approx(1 / np.prod(np.arange(1, bins + 1)))
    assert similarity_correlation(space, rng=rng()) == pytest.approx({"spearman": 1, "pearson": 1})
    assert knn_accuracy(space, k=2) == {f"level_{i + 1}": 1 for i in range(depth)} | {
        "direction": 1
    }


def test_orthogonality_knows_one_line_right_angles_and_what_lies_between():
    assert orthogonality(perfect(SVT)) == pytest.approx(0)
    assert orthogonality(perfect(SVT, own_direction=True)) == pytest.approx(1)
    angle = np.pi / 3
    rows = np.array([[1, 0], [-1, 0], [-np.cos(angle), np.sin(angle)], [0.5, -np.sin(angle)]])
    two = labelled_space(rows, [SVT[0]] * 2 + [SVT[1]] * 2, [1, -1, 1, -1])
    assert orthogonality(two) == pytest.approx(1 - 0.5)


def test_distances_of_the_perfect_space_are_the_planted_ones():
    planted = {
        f"shared_{level}_{word}": 1 - (level + sign * 0.25) / 3.25
        for level in range(4)
        for word, sign in (("same", 1), ("other", -1))
    }
    assert level_distances(perfect(SVT), rng=rng()) == pytest.approx(planted)


def one_neighbour_chance(space, level):
    """That a text of another ladder, drawn blindly, shares the level; mean over texts."""
    names = list(space.names)
    shared = np.array([[shared_levels(a, b) for b in names] for a in names])
    value = [names.index(v) for v in space.values]
    ladder = np.array(space.ladders)
    right = shared[np.ix_(value, value)] >= level
    return np.mean([row[ladder != own].mean() for row, own in zip(right, ladder, strict=True)])


@pytest.mark.parametrize("make", [
    lambda s: noisy(SVT, 6, seed=s, width=40),
    lambda s: shuffled(perfect(SVT, 6), s),
], ids=["random", "shuffled"])  # fmt: skip
def test_random_spaces_and_shuffled_labels_are_at_chance(make):
    spaces = [make(seed) for seed in range(8)]
    space = spaces[0]
    ranks = [ranking_accuracy(s, rng=rng()) for s in spaces]
    assert np.mean([r["pairs"] for r in ranks]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([r["strict"] for r in ranks]) < 5 * ranks[0]["strict_chance"]
    found = [similarity_correlation(s, rng=rng()) for s in spaces]
    assert np.abs(np.mean([[f["spearman"], f["pearson"]] for f in found], axis=0)).max() < 0.03
    near = [knn_accuracy(s, k=1) for s in spaces]
    for k in (1, 2, 3):
        chance = one_neighbour_chance(space, k)
        assert np.mean([n[f"level_{k}"] for n in near]) == pytest.approx(chance, abs=0.06)
    assert np.mean([n["direction"] for n in near]) == pytest.approx(0.5, abs=0.08)


def _shared(space, i, j):
    return shared_levels(space.values[i], space.values[j])


def test_random_value_vectors_are_as_orthogonal_as_their_width_allows():
    found = [orthogonality(noisy(ALL_SVT, 3, seed=s, width=50)) for s in range(6)]
    assert np.mean(found) == pytest.approx(1 - np.sqrt(2 / (np.pi * 50)), abs=0.015)


def pairs_by_hand(space):
    for i, j in itertools.combinations(range(len(space)), 2):
        if space.ladders[i] != space.ladders[j] and _shared(space, i, j) >= 0:
            same = space.directions[i] == space.directions[j]
            yield float(space.embeddings[i] @ space.embeddings[j]), _shared(space, i, j), same


def test_correlation_and_distances_are_those_of_a_slow_loop():
    space = noisy(["hedonism", "power", "mft/care-harm", "mft/liberty-oppression"], seed=1)
    cosine, shared, same = (np.array(x) for x in zip(*pairs_by_hand(space), strict=True))
    target = shared + 0.5 * same
    found = similarity_correlation(space, rng=rng())
    assert found["spearman"] == pytest.approx(stats.spearmanr(cosine, target).statistic)
    assert found["pearson"] == pytest.approx(stats.pearsonr(cosine, target).statistic)
    slow = {
        f"shared_{s}_{'same' if e else 'other'}": np.mean(1 - cosine[(shared == s) & (same == e)])
        for s, e in set(zip(shared.tolist(), same.tolist(), strict=True))
    }
    assert level_distances(space, rng=rng()) == pytest.approx(slow)


def test_drawn_pairs_tell_what_all_pairs_tell():
    space = noisy(SVT, 6, seed=2, signal=0.7)
    every = similarity_correlation(space, rng=rng())
    drawn = similarity_correlation(space, max_pairs=4000, rng=rng())
    assert drawn != every
    assert drawn == pytest.approx(every, abs=0.05)


def test_weights_count_like_repeated_pairs():
    space = noisy(SVT[:4], seed=3)
    pairs = _measures.text_pairs(space, 10**6, rng())
    counts = rng().integers(0, 4, size=len(pairs.i))
    again = np.repeat(np.arange(len(pairs.i)), counts)
    found = _measures.correlations(pairs, counts.astype(float))
    slow = stats.spearmanr(pairs.cosine[again], pairs.target[again]).statistic
    assert found["spearman"] == pytest.approx(slow)
    slow = stats.pearsonr(pairs.cosine[again], pairs.target[again]).statistic
    assert found["pearson"] == pytest.approx(slow)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_knn_is_that_of_a_slow_loop(k):
    space = noisy(["power", "achievement", "security", "stimulation"], seed=4, signal=0.5)
    paths = {v: get_theory("svt").paths(v)[0] for v in space.names}
    right = Counter()
    for i in range(len(space)):
        others = [j for j in range(len(space)) if space.ladders[j] != space.ladders[i]]
        near = sorted(others, key=lambda j: -(space.embeddings[i] @ space.embeddings[j]))[:k]
        for name, of in {
            **{f"level_{n + 1}": lambda j, n=n: paths[space.values[j]][n] for n in range(3)},
            "direction": lambda j: space.directions[j],
        }.items():
            seen = [of(j) for j in near]
            best = max(Counter(seen).values())
            winner = next(x for x in seen if seen.count(x) == best)
            right[name] += winner == of(i)
    slow = {name: right[name] / len(space) for name in knn_accuracy(space, k=k)}
    assert knn_accuracy(space, k=k) == pytest.approx(slow)


def test_a_neighbour_with_two_parents_votes_for_both():
    rows = np.array([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]])
    space = labelled_space(rows, ["power", "hedonism", "stimulation", "hedonism"], [1] * 4)
    assert knn_accuracy(space, k=1) == {"level_1": 1, "level_2": 1, "level_3": 0, "direction": 1}


def test_ranking_accuracy_is_the_expectation_over_all_draws():
    space = noisy(["power", "achievement", "security", "benevolence"], 2, seed=5, signal=0.6)
    pairs, strict = [], []
    for q in range(len(space)):
        bins = [[] for _ in range(5)]
        for j in range(len(space)):
            if space.ladders[j] == space.ladders[q]:
                continue
            own = space.values[j] == space.values[q]
            split = int(space.directions[j] != space.directions[q])
            bins[split if own else 4 - _shared(space, q, j)].append(
                float(space.embeddings[j] @ space.embeddings[q])
            )
        drawn = np.array(list(itertools.product(*[b for b in bins if b])))
        falls = np.diff(drawn, axis=1) < 0
        strict.append(falls.all(axis=1).mean())
        couples = itertools.combinations(range(drawn.shape[1]), 2)
        pairs.append(np.mean([(drawn[:, a] > drawn[:, b]).mean() for a, b in couples]))
    found = ranking_accuracy(space, n_draws=2000, rng=rng())
    assert found["pairs"] == pytest.approx(np.mean(pairs), abs=0.01)
    assert found["strict"] == pytest.approx(np.mean(strict), abs=0.01)


def test_texts_that_are_all_alike_tie():
    ids, directions, ladders = labels(SVT)
    space = labelled_space(np.ones((len(ids), 3)), ids, directions, ladders)
    ranks = ranking_accuracy(space, rng=rng())
    assert (ranks["pairs"], ranks["strict"]) == (0.5, 0)
    assert np.isnan(list(similarity_correlation(space, rng=rng()).values())).all()
    assert value_vectors(space) == {}
    assert np.isnan(orthogonality(space))


def exact(space):
    return {
        **similarity_correlation(space, rng=rng()),
        **level_distances(space, rng=rng()),
        **knn_accuracy(space, k=3),
        "orthogonality": orthogonality(space),
    }


def test_rotations_and_the_order_of_rows_do_not_matter():
    space = noisy(SVT, seed=6, signal=0.5)
    rotation = np.linalg.qr(rng().normal(size=(8, 8)))[0]
    turned = moved(space, rotation=rotation)
    mixed = moved(space, rows=rng().permutation(len(space)))
    assert exact(turned) == pytest.approx(exact(space))
    assert exact(mixed) == pytest.approx(exact(space))
    assert ranking_accuracy(turned, rng=rng()) == pytest.approx(ranking_accuracy(space, rng=rng()))
    many = [ranking_accuracy(s, n_draws=300, rng=rng())["pairs"] for s in (space, mixed)]
    assert many[0] == pytest.approx(many[1], abs=0.01)


def test_value_vectors_are_unit_length_and_follow_the_rotation():
    space = noisy(SVT[:3], seed=7, signal=1.0)
    rotation = np.linalg.qr(rng().normal(size=(8, 8)))[0]
    turned = value_vectors(moved(space, rotation=rotation))
    for name, vector in value_vectors(space).items():
        own = np.array(space.values) == name
        up, down = (space.embeddings[own & (space.directions == d)].mean(0) for d in (1, -1))
        np.testing.assert_allclose(vector, (up - down) / np.linalg.norm(up - down))
        np.testing.assert_allclose(turned[name], vector @ rotation)


def test_ladders_are_never_compared_with_themselves():
    """Texts of a ladder are twins; were they neighbours, every level would be right."""
    ids, directions, ladders = labels(SVT, 2)
    topics = rng().normal(size=(len(ids) // 2, 200))
    space = labelled_space(np.repeat(topics, 2, axis=0), ids, directions, ladders)
    alone = labelled_space(np.repeat(topics, 2, axis=0), ids, directions)
    assert knn_accuracy(alone, k=1)["level_3"] == 1
    assert knn_accuracy(space, k=1)["level_3"] < 0.4
    distances = level_distances(space, rng=rng())
    assert min(distances.values()) > 0.8


def test_the_report_holds_every_measure_per_theory_and_their_mean():
    values = [*SVT, *MFT]
    space = noisy(values, 3, seed=8, signal=0.6)
    found = report(space, k=3, n_bootstrap=30, rng=rng())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["n_texts"], found["n_ladders"]) == (len(space), 3 * len(values))
    svt, mft = found["theories"]["svt"], found["theories"]["mft"]
    own = space.of("svt")
    assert svt["pearson"]["estimate"] == pytest.approx(
        similarity_correlation(own, rng=rng())["pearson"]
    )
    assert svt["orthogonality"]["estimate"] == pytest.approx(orthogonality(own))
    for level in (1, 2, 3):
        expected = knn_accuracy(own, k=3)[f"level_{level}"]
        assert svt[f"knn_level_{level}"]["estimate"] == pytest.approx(expected)
    assert "knn_level_2" not in mft
    mean = np.mean([svt["orthogonality"]["estimate"], mft["orthogonality"]["estimate"]])
    assert found["overall"]["orthogonality"]["estimate"] == pytest.approx(mean)
    assert found["overall"]["knn_level_2"] == svt["knn_level_2"]
    for measures in (*found["theories"].values(), found["overall"]):
        assert all(m["low"] <= m["estimate"] <= m["high"] for m in measures.values())


def test_a_report_is_repeatable_and_a_perfect_space_leaves_no_doubt():
    space = perfect(SVT, 2)
    first, again = (report(space, k=1, n_bootstrap=20, rng=rng()) for _ in range(2))
    assert first == again
    for name in ("ranking_pairs", "ranking_strict", "pearson", "spearman", "knn_direction"):
        row = first["overall"][name]
        assert (row["low"], row["high"]) == pytest.approx((1, 1))


@pytest.mark.slow
def test_intervals_cover_what_holds_for_very_many_texts():
    values = ["power", "achievement", "security", "benevolence"]
    signal = {"signal": 0.6, "width": 12}
    big = noisy(values, 250, seed=1000, **signal)
    truth = {
        "pearson": similarity_correlation(big, rng=rng())["pearson"],
        "ranking_pairs": ranking_accuracy(big, rng=rng())["pairs"],
    }
    inside = Counter()
    for seed in range(25):
        space = noisy(values, 16, seed=seed, **signal)
        found = report(space, n_draws=3, n_bootstrap=40, rng=np.random.default_rng(seed))
        rows = found["overall"]
        for name, value in truth.items():
            inside[name] += rows[name]["low"] <= value <= rows[name]["high"]
    assert all(inside[name] / 25 >= 0.8 for name in truth), inside


def test_vidb_texts_that_lean_neither_way_are_left_out():
    import pandas as pd

    rows = [("svt/power", f"svt/power/post-0{i}", f"text {i}", x) for i, x in
            enumerate([-8.0, -1.0, 0.0, 1.9, 2.0, 9.0], start=1)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["value", "ladder", "text", "intensity"])
    space = vidb_space(Vidb(frame), lambda texts: np.eye(9)[: len(texts)])
    assert space.directions.tolist() == [-1, 1, 1]
    assert space.ladders == tuple(f"svt/power/post-0{i}" for i in (1, 5, 6))
    with pytest.raises(InvalidInput, match="intensity of 9.5 or more"):
        vidb_space(Vidb(frame), lambda texts: np.eye(9)[: len(texts)], neutral=9.5)


ROW = np.array([[1.0, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("embeddings", "values", "directions", "ladders", "says"),
    [
        (ROW[:0], [], [], None, "one or more texts"),
        (ROW, ["power"], [1, 1], None, "got 2, 1, 2, 1"),
        (ROW, ["power"] * 2, [1, 0], None, "leave neutral texts out"),
        (ROW, ["power", "face"], [1, 1], ["a", "a"], "'a' has texts of several values"),
        (ROW * [[1], [np.nan]], ["power"] * 2, [1, 1], None, "embedding 1 is zero or not finite"),
        (ROW * [[0], [1]], ["power"] * 2, [1, 1], None, "embedding 0 is zero or not finite"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(embeddings, values, directions, ladders, says):
    with pytest.raises(InvalidInput, match=says):
        labelled_space(embeddings, values, directions, ladders)


def test_a_value_with_texts_of_one_direction_has_no_vector():
    space = labelled_space(np.eye(4), ["power", "power", "face", "face"], [1, -1, 1, 1])
    assert list(value_vectors(space)) == ["svt/power"]
    assert np.isnan(orthogonality(space))
    assert "orthogonality" not in report(space, rng=rng())["overall"]


def test_other_hostile_input():
    space = perfect(SVT[:2])
    with pytest.raises(UnknownName):
        labelled_space(ROW, ["no such value"] * 2, [1, 1])
    with pytest.raises(InvalidInput, match="no text of theory 'duty', only of svt"):
        space.of("duty")
    with pytest.raises(InvalidInput, match="k=0"):
        knn_accuracy(space, k=0)
    with pytest.raises(InvalidInput, match="got 5 and"):
        report(space, n_bootstrap=5, rng=rng())
    one = labelled_space(ROW[:1], ["power"], [1])
    assert np.isnan(ranking_accuracy(one, rng=rng())["pairs"])
    assert report(one, rng=rng())["overall"] == {}
