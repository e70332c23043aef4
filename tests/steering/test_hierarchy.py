import numpy as np
import pytest
import torch

from valueflow.errors import InvalidInput, UnknownName
from valueflow.steering.hierarchy import (
    OWN,
    concept_sharing,
    decompose,
    matched_differences,
    shuffled_sharing,
    siblings,
    tree_sharing,
    without_neighbours,
)
from valueflow.theories import steered_values

SVT = [value.id for value in steered_values("svt")]
EVERY = [value.id for value in steered_values()]
HIDDEN = 60
# A branch of a tree with three parents of four values each.
TREE = {
    "all": torch.ones(12, 1, dtype=torch.float64),
    "parent": torch.eye(3, dtype=torch.float64).repeat_interleave(4, 0),
}
LENGTHS = {"all": 0.5, "parent": 1.0, OWN: 0.4}
NOISE = 6.0


def normal(*shape, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def planted(n_ladders, *, seed, sharing=TREE, lengths=LENGTHS, noise=NOISE, hidden=HIDDEN):
    """Directions drawn from the tree, and ladders about them; variances are squared lengths."""
    n_values = len(next(iter(sharing.values())))
    members = sharing | {OWN: torch.eye(n_values, dtype=torch.float64)}
    truth = torch.zeros(n_values, hidden, dtype=torch.float64)
    for place, (kind, table) in enumerate(members.items()):
        parts = normal(table.shape[1], hidden, seed=1000 * seed + place)
        truth += (lengths[kind] / hidden) ** 0.5 * (table @ parts)
    counts = [n_ladders] * n_values if isinstance(n_ladders, int) else n_ladders
    rows = {
        f"v{i}": truth[i] + (noise / hidden) ** 0.5 * normal(n, hidden, seed=1000 * seed + 100 + i)
        for i, n in enumerate(counts)
    }
    return truth, rows


def cosines(found, truth):
    return torch.nn.functional.cosine_similarity(found.double(), truth.double(), dim=1)


def gains(n_ladders, *, sharing=TREE, seeds=range(20), **options):
    """Mean cosine with the truth of the plain means and of the shrunken ones."""
    plain, shrunken = [], []
    for seed in seeds:
        truth, rows = planted(n_ladders, seed=seed, sharing=sharing, **options)
        found = decompose(rows, sharing)
        plain.append(float(cosines(found.means, truth).mean()))
        shrunken.append(float(cosines(found.shrunken, truth).mean()))
    return float(np.mean(plain)), float(np.mean(shrunken))


def test_relatives_help_where_ladders_are_few():
    plain, shrunken = gains(4)
    assert 0.70 < plain < 0.80
    assert shrunken > plain + 0.08
    # And the fewer, the more.
    fewer = gains(2)
    assert fewer[1] - fewer[0] > shrunken - plain


def test_with_many_ladders_the_value_speaks_for_itself():
    truth, rows = planted(3000, seed=0)
    found = decompose(rows, TREE)
    assert float(cosines(found.shrunken, found.means).min()) > 0.9999
    assert float(cosines(found.shrunken, truth).min()) > 0.995
    assert float(found.weights.min()) > 0.98


def test_a_tree_that_is_not_there_costs_little_and_gives_nothing():
    """Values with nothing in common: the estimate must notice and leave the means as they are."""
    lengths = {"all": 0.0, "parent": 0.0, OWN: 1.5}
    plain, shrunken = gains(4, lengths=lengths)
    assert shrunken == pytest.approx(plain, abs=0.02)


def test_a_shuffled_tree_helps_less_than_the_true_one():
    rng = np.random.default_rng(0)
    lengths = {"all": 0.0, "parent": 1.2, OWN: 0.2}
    plain, shrunken = gains(4, lengths=lengths)
    wrong = [
        float(cosines(decompose(rows, shuffled_sharing(TREE, rng=rng)).shrunken, truth).mean())
        for s in range(20)
        for truth, rows in [planted(4, seed=s, lengths=lengths)]
    ]
    assert shrunken - plain > 0.1
    assert np.mean(wrong) - plain < 0.3 * (shrunken - plain)


def test_variances_are_found_without_bias():
    found = [decompose(planted(5, seed=s)[1], TREE) for s in range(60)]
    for kind, expected in LENGTHS.items():
        mean = np.mean([f.variances[kind] for f in found])
        assert mean == pytest.approx(expected, abs=0.12), kind
    assert np.mean([f.noise for f in found]) == pytest.approx(NOISE, rel=0.02)


def test_one_group_of_equal_size_is_james_stein():
    """All values under one root: the classic shrinkage towards the grand mean, by hand."""
    n, k = 5, 8
    everyone = {"all": torch.ones(k, 1, dtype=torch.float64)}
    lengths = {"all": 1.0, OWN: 1.0}
    _, rows = planted(n, seed=1, sharing=everyone, lengths=lengths)
    found = decompose(rows, everyone)
    means = torch.stack([row.mean(0) for row in rows.values()])
    grand = means.mean(0)
    within = sum(float((r - r.mean(0)).square().sum()) for r in rows.values()) / (k * (n - 1))
    between = float((means - grand).square().sum()) / (k - 1) - within / n
    assert found.noise == pytest.approx(within)
    assert found.variances[OWN] == pytest.approx(between)
    keep = between / (between + within / n)
    # Differences between values are shrunk by the factor, whatever happens to the grand mean.
    torch.testing.assert_close(
        found.shrunken - found.shrunken.mean(0), keep * (means - grand), rtol=1e-6, atol=1e-9
    )


def test_parts_are_what_a_normal_distribution_says():
    """The same from first principles, over all ladders instead of the values' means."""
    counts = [1, 2, 3, 4, 6, 2, 3, 9, 2, 2, 5, 3]
    _, rows = planted(counts, seed=3)
    found = decompose(rows, TREE)
    of = torch.repeat_interleave(torch.arange(12), torch.tensor(counts))
    kernels = {kind: table @ table.T for kind, table in TREE.items()}
    kernels[OWN] = torch.eye(12, dtype=torch.float64)
    prior = sum(found.variances[kind] * kernel for kind, kernel in kernels.items())
    every = prior[of][:, of] + found.noise * torch.eye(len(of), dtype=torch.float64)
    weights = torch.linalg.solve(every, torch.cat(list(rows.values())))
    for kind, kernel in kernels.items():
        expected = found.variances[kind] * kernel[:, of] @ weights
        torch.testing.assert_close(found.parts[kind], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found.shared + found.parts[OWN], found.shrunken)


def test_more_ladders_more_weight():
    counts = [2, 2, 2, 2, 8, 8, 8, 8, 40, 40, 40, 40]
    found = decompose(planted(counts, seed=0)[1], TREE)
    few, some, many = found.weights.reshape(3, 4).mean(1).tolist()
    assert 0 < few < some < many < 1


def test_known_variances():
    _, rows = planted(4, seed=0)
    # Nothing of its own: siblings are the same, and cousins are not.
    same = decompose(rows, TREE, variances={"all": 1.0, "parent": 1.0, OWN: 0.0})
    first = same.shrunken.reshape(3, 4, HIDDEN)
    torch.testing.assert_close(first, first[:, :1].expand(3, 4, HIDDEN))
    assert not torch.allclose(first[0], first[1])
    torch.testing.assert_close(same.parts[OWN], torch.zeros(12, HIDDEN, dtype=torch.float64))
    # Nothing shared: every direction is the plain one, only shorter.
    alone = decompose(rows, TREE, variances={"all": 0.0, "parent": 0.0, OWN: 1.0})
    keep = 1 / (1 + alone.noise / 4)
    torch.testing.assert_close(alone.shrunken, keep * alone.means)
    assert alone.weights.tolist() == pytest.approx([keep] * 12)
    # Own parts that are huge: nothing is taken from anyone.
    loud = decompose(rows, TREE, variances={"all": 1.0, "parent": 1.0, OWN: 1e9})
    torch.testing.assert_close(loud.shrunken, loud.means, rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInput, match="expected a variance of 0 or more for all, parent, own"):
        decompose(rows, TREE, variances={"all": 1.0, OWN: 1.0})


def test_without_noise_the_means_stand():
    truth, rows = planted(3, seed=0, noise=0.0)
    found = decompose(rows, TREE)
    torch.testing.assert_close(found.shrunken, truth, rtol=1e-6, atol=1e-8)


def test_turns_units_and_order_do_not_matter():
    _, rows = planted([2, 3, 4] * 4, seed=5)
    found = decompose(rows, TREE)
    turn = torch.linalg.qr(normal(HIDDEN, HIDDEN, seed=9)).Q
    turned = decompose({v: 7 * row @ turn for v, row in rows.items()}, TREE)
    torch.testing.assert_close(turned.shrunken, 7 * found.shrunken @ turn, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(turned.weights, found.weights, rtol=1e-5, atol=1e-7)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    names = list(rows)
    mixed = decompose(
        {names[i]: rows[names[i]] for i in order}, {k: t[order] for k, t in TREE.items()}
    )
    torch.testing.assert_close(mixed.shrunken, found.shrunken[order], rtol=1e-5, atol=1e-7)
    assert mixed.values == tuple(names[i] for i in order)


def test_a_kind_that_says_nothing_new_is_left_out():
    _, rows = planted(4, seed=0)
    doubled = TREE | {
        "again": TREE["parent"],
        "single": torch.eye(12, dtype=torch.float64),
        "none": torch.zeros(12, 2, dtype=torch.float64),
    }
    found, plain = decompose(rows, doubled), decompose(rows, TREE)
    assert list(found.variances) == ["all", "parent", OWN]
    torch.testing.assert_close(found.shrunken, plain.shrunken)


def test_what_cannot_be_decomposed():
    _, rows = planted(4, seed=0)
    with pytest.raises(InvalidInput, match="two or more"):
        decompose({value: row[:1] for value, row in rows.items()}, TREE)
    with pytest.raises(InvalidInput, match="one ladder or more"):
        decompose(rows | {"v0": rows["v0"][:0]}, TREE)
    with pytest.raises(InvalidInput, match="one hidden size"):
        decompose(rows | {"v0": rows["v0"][:, :5]}, TREE)
    with pytest.raises(InvalidInput, match="expected 12 rows"):
        decompose(rows, {"all": torch.ones(11, 1)})


def test_the_trees_of_the_theories():
    sharing = tree_sharing(EVERY)
    for members in sharing.values():
        held = members.sum(1)
        assert set(held.round(decimals=6).tolist()) <= {0.0, 1.0}
    alike = {kind: members @ members.T for kind, members in sharing.items()}
    place = {value: i for i, value in enumerate(EVERY)}

    def shares(kind, a, b):
        return float(alike[kind][place[a], place[b]])

    assert shares("all", "svt/power", "duty/justice") == 1
    assert shares("theory", "svt/power", "svt/humility") == 1
    assert shares("theory", "svt/power", "duty/justice") == 0
    assert shares("level 1", "right/civil", "right/political") == 1
    assert shares("level 1", "right/civil", "right/social") == 0
    # Hedonism stands between openness to change and self-enhancement, half in each.
    assert shares("level 2", "svt/hedonism", "svt/stimulation") == 0.5
    assert shares("level 2", "svt/hedonism", "svt/power") == 0.5
    assert shares("level 2", "svt/stimulation", "svt/power") == 0
    near = siblings(EVERY)
    assert torch.equal(near, near.T)
    assert not near.diagonal().any()
    for a in ("svt/power", "svt/hedonism"):
        assert near[place[a], place["svt/achievement"]]
    assert not near[place["svt/power"], place["svt/humility"]]
    with pytest.raises(UnknownName):
        tree_sharing(["svt/powr"])


def test_concepts_tie_theories():
    table = concept_sharing(EVERY)["concepts"]
    alike = table @ table.T
    place = {value: i for i, value in enumerate(EVERY)}
    lengths = alike.diagonal()
    assert set(lengths.round(decimals=6).tolist()) <= {0.0, 1.0}
    near = alike[place["svt/benevolence"], place["duty/beneficence"]]
    assert float(near) > 0.05
    assert float(near) > float(alike[place["svt/benevolence"], place["right/political"]])
    # Opposite sides of one concept.
    assert float(alike[place["svt/power"], place["mft/liberty-oppression"]]) < 0


def test_pooling_over_concepts_helps_where_theories_share_them():
    concepts = {"concepts": torch.eye(6, dtype=torch.float64).repeat(2, 1)}
    lengths = {"concepts": 1.2, OWN: 0.2}
    options = {"lengths": lengths, "seeds": range(15)}
    plain, pooled = gains(3, sharing=concepts, **options)
    assert pooled > plain + 0.05


def test_without_neighbours():
    directions = normal(4, 10, seed=0)
    near = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]).bool()
    found = without_neighbours(directions, near)
    units = directions / directions.norm(dim=1, keepdim=True)
    for i, others in enumerate(([1, 2], [0, 2], [0, 1])):
        common = units[others].mean(0)
        assert float(found[i] @ common) == pytest.approx(0, abs=1e-9)
        left = directions[i] - found[i]
        assert abs(float(cosines(left[None], common[None]))) == pytest.approx(1)
    assert torch.equal(found[3], directions[3])
    # How long the neighbours are is no matter.
    longer = directions * torch.tensor([1.0, 5.0, 1.0, 1.0])[:, None]
    torch.testing.assert_close(without_neighbours(longer, near)[0], found[0])


def topics(n_topics, *, seed, signal=1.0):
    """Two ladders per topic; activations hold topic, pole and noise, embeddings the topic."""
    draw = torch.Generator().manual_seed(seed)
    topic = torch.arange(n_topics).repeat_interleave(4)
    sign = torch.tensor([1.0, -1.0]).repeat(2 * n_topics)
    about = 3 * torch.randn(n_topics, 12, generator=draw)
    truth = torch.nn.functional.normalize(torch.randn(12, generator=draw), dim=0)
    rows = about[topic] + signal * sign[:, None] * truth
    rows = rows + 0.1 * torch.randn(rows.shape, generator=draw)
    places = torch.randn(n_topics, 6, generator=draw)[topic]
    places = places + 0.01 * torch.randn(places.shape, generator=draw)
    return rows, places, 5 * sign, [f"{i // 2:03}" for i in range(4 * n_topics)], truth


def test_matching_finds_the_other_ladder_of_the_topic():
    rows, places, intensities, ladders, truth = topics(15, seed=0)
    found = matched_differences(rows, places, intensities, ladders)
    assert found.shape == (30, 12)
    assert float(cosines(found.mean(0)[None], truth[None])) > 0.99
    # Embeddings that say nothing of the topic leave the topics in the differences.
    blind = torch.randn(places.shape, generator=torch.Generator().manual_seed(1))
    noisy = matched_differences(rows, blind, intensities, ladders)
    assert float(noisy.var(0).sum()) > 20 * float(found.var(0).sum())


def slow_matched(rows, places, intensities, ladders, k):
    units = places / places.norm(dim=1, keepdim=True)
    result = []
    for ladder in sorted(set(ladders)):
        sides = []
        for sign in (1, -1):
            against = []
            for i, name in enumerate(ladders):
                if name == ladder and sign * intensities[i] > 2:
                    others = [
                        j
                        for j in range(len(ladders))
                        if ladders[j] != ladder and sign * intensities[j] < -2
                    ]
                    others.sort(key=lambda j, i=i: -float(units[i] @ units[j]))
                    against.append(sign * (rows[i] - rows[others[:k]].mean(0)))
            sides.append(torch.stack(against).mean(0))
        result.append((sides[0] + sides[1]) / 2)
    return torch.stack(result)


@pytest.mark.parametrize("k", [1, 3])
def test_matching_as_a_loop_does_it(k):
    rng = np.random.default_rng(0)
    rows, places = normal(30, 5, seed=0), normal(30, 4, seed=1)
    intensities = torch.tensor(np.tile([-8.0, -5.0, 0.0, 6.0, 8.0], 6))
    intensities[7] = -3.0
    ladders = [f"l{i // 5}" for i in range(30)]
    order = rng.permutation(30).tolist()
    mixed = (rows[order], places[order], intensities[order], [ladders[i] for i in order])
    expected = slow_matched(rows, places, intensities.tolist(), ladders, k)
    torch.testing.assert_close(matched_differences(*mixed, neighbours=k), expected)


def test_what_cannot_be_matched():
    rows, places, intensities, ladders, _ = topics(1, seed=0)
    with pytest.raises(InvalidInput, match="2 ladders"):
        matched_differences(rows[:2], places[:2], intensities[:2], ladders[:2])
    with pytest.raises(InvalidInput, match="got 3 embeddings"):
        matched_differences(rows, places[:3], intensities, ladders)
    with pytest.raises(InvalidInput, match="0 neighbours"):
        matched_differences(rows, places, intensities, ladders, neighbours=0)
