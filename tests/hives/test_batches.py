from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from valueflow.errors import InvalidInput
from valueflow.hives.batches import anchor_batches, with_pairs
from valueflow.hives.labels import labels_for
from valueflow.hives.losses import hierarchical_contrastive, pair_losses
from valueflow.theories import get_theory

VALUES = ("svt/power", "svt/achievement", "svt/hedonism", "svt/security", "svt/benevolence",
          "svt/universalism", "duty/justice", "duty/fidelity", "duty/gratitude")  # fmt: skip


def planted(per_cell=20, values=VALUES, seed=0):
    rng = np.random.default_rng(seed)
    cells = [(v, d) for v in values for d in (1, -1) for _ in range(per_cell)]
    cells = [cells[i] for i in rng.permutation(len(cells))]
    return labels_for([v for v, _ in cells], [d for _, d in cells])


def rng(seed=0):
    return np.random.default_rng(seed)


def cell(labels, row):
    return labels.values[row], int(labels.directions[row])


def test_an_epoch_deals_every_text_once_but_for_the_filling():
    labels = planted()
    batches = anchor_batches(labels, batch_size=16, rng=rng())
    seen = Counter(row for batch in batches for row in batch)
    assert len(list(batches)) == len(batches) == 15 + 8
    assert all(len(batch) == len(set(batch)) == 16 for batch in batches)
    n_texts, dealt = len(labels), len(batches) * 16
    assert len(seen) >= 0.97 * n_texts
    assert sum(count > 1 for count in seen.values()) <= dealt - n_texts + (n_texts - len(seen))
    assert max(seen.values()) <= 3


def test_over_epochs_texts_of_rare_and_frequent_cells_are_seen_equally_often():
    values = ["svt/power"] * 90 + ["svt/power"] * 6 + ["svt/benevolence"] * 31 + ["svt/face"]
    labels = labels_for(values, [1] * 90 + [-1] * 6 + [1] * 31 + [1])
    batches = anchor_batches(labels, batch_size=12, rng=rng())
    seen = np.zeros(len(labels))
    for epoch in range(40):
        batches.set_epoch(epoch)
        for batch in batches:
            seen[batch] += 1
    assert seen.min() >= 36 and seen.max() <= 56
    assert seen[90:96].mean() == pytest.approx(seen[:90].mean(), rel=0.2)


def test_a_batch_is_an_anchor_its_positives_and_negatives_of_its_theory():
    labels = planted()
    crowded = 0
    for batch in anchor_batches(labels, batch_size=16, n_positives=4, rng=rng()):
        cells = [cell(labels, row) for row in batch]
        assert len({value.split("/")[0] for value, _ in cells}) == 1
        mates = [c == cells[0] for c in cells]
        assert mates[1]
        crowded += sum(mates) > 5
    # A theory's last batch takes what is left, of the anchor's cell too.
    assert crowded <= 2


def test_most_anchors_have_all_their_positives():
    labels = planted()
    batches = list(anchor_batches(labels, batch_size=16, n_positives=4, rng=rng()))
    full = [len({cell(labels, row) for row in batch[:5]}) == 1 for batch in batches]
    assert np.mean(full) > 0.7
    few = list(anchor_batches(labels, batch_size=16, n_positives=1, rng=rng()))
    third = [cell(labels, batch[2]) == cell(labels, batch[0]) for batch in few]
    assert np.mean(third) < 0.1


def test_hard_negatives_are_more_frequent_than_chance():
    labels = planted(per_cell=60)
    theory = get_theory("svt")
    other_direction, sibling = [], []
    for batch in anchor_batches(labels, batch_size=17, n_positives=4, rng=rng()):
        value, direction = cell(labels, batch[0])
        if not value.startswith("svt/"):
            continue
        cells = [cell(labels, row) for row in batch[5:]]
        other_direction.append(np.mean([c == (value, -direction) for c in cells]))
        near = theory.siblings(value)
        if set(near) & set(VALUES):
            sibling.append(np.mean([c[0] in near for c in cells]))
    # Chance: 1 of 11 other cells; of six values 0 to 2 are siblings.
    assert np.mean(other_direction) > 0.25
    assert np.mean(sibling) > 0.35


def test_the_generator_and_the_epoch_decide_all():
    labels = planted()

    def dealt(seed, epoch):
        batches = anchor_batches(labels, batch_size=16, rng=rng(seed))
        batches.set_epoch(epoch)
        return list(batches)

    assert dealt(0, 3) == dealt(0, 3)
    assert dealt(0, 3) != dealt(0, 4) and dealt(0, 3) != dealt(1, 3)
    batches = anchor_batches(labels, batch_size=16, rng=rng())
    assert list(batches) == list(batches) == dealt(0, 0)


def test_an_anchor_whose_mates_are_all_dealt_is_given_one_again():
    labels = labels_for(["svt/power"] * 2 + ["svt/face"] * 7, [1] * 9)
    for seed in range(30):
        for batch in anchor_batches(labels, batch_size=3, n_positives=1, rng=rng(seed)):
            assert cell(labels, batch[0]) == cell(labels, batch[1])


def test_lonely_texts_and_small_theories_give_batches_without_repetition():
    labels = labels_for(["duty/justice", "svt/power", "svt/power", "svt/face"], [1, 1, 1, -1])
    batches = anchor_batches(labels, batch_size=8, rng=rng())
    assert len(batches) == 2
    assert sorted(sorted(batch) for batch in batches) == [[0], [1, 2, 3]]


def test_a_data_loader_takes_it_as_batch_sampler():
    labels = planted(per_cell=4)
    batches = anchor_batches(labels, batch_size=8, rng=rng())
    loader = DataLoader(list(range(len(labels))), batch_sampler=batches)
    assert len(loader) == len(batches)
    assert [batch.tolist() for batch in loader] == list(batches)


def grouped(labels, *, n_instances=6, n_concepts=5):
    instances = [row % (n_instances + 1) - 1 for row in range(len(labels))]
    concepts = [row % (n_concepts + 2) - 2 for row in range(len(labels))]
    return instances, concepts


def mixed_batches(labels, instances, anchors, *, batch_size, n_positives=4, rng):
    """Half of a batch is tree, a quarter instances, a quarter anchors, as in the paper."""
    tree = anchor_batches(labels, batch_size=batch_size // 2, n_positives=n_positives, rng=rng)
    return with_pairs(tree, labels, instances, anchors, pairs=batch_size // 8, rng=rng)


def test_mixed_batches_are_half_tree_a_quarter_instances_a_quarter_concepts():
    labels = planted()
    instances, concepts = grouped(labels)
    batches = mixed_batches(labels, instances, concepts, batch_size=32, rng=rng())
    assert batches.sizes == (16, 8, 8) and batches.batch_size == 32
    assert len(list(batches)) == len(batches) == len(anchor_batches(labels, batch_size=16,
                                                                   rng=rng()))  # fmt: skip
    for batch in batches:
        assert len(batch) == 32
        tree, instance, anchor = batch[:16], batch[16:24], batch[24:]
        assert len({labels.theories[row] for row in tree}) == 1
        for rows, groups in ((instance, instances), (anchor, concepts)):
            pairs = [(groups[a], groups[b]) for a, b in zip(rows[::2], rows[1::2], strict=True)]
            assert all(a == b >= 0 for a, b in pairs) and len(set(pairs)) == 4
            assert len(set(rows)) == 8
        for a, b in zip(anchor[::2], anchor[1::2], strict=True):
            assert labels.theories[a] != labels.theories[b]


def test_the_parts_of_a_mixed_batch_are_what_the_loss_of_stage_two_takes():
    labels = planted()
    instances, concepts = (torch.tensor(groups) for groups in grouped(labels))
    batches = mixed_batches(labels, instances.tolist(), concepts.tolist(), batch_size=32, rng=rng())
    first, second = batches.sizes[0], sum(batches.sizes[:2])
    features = torch.randn(len(labels), 8, generator=torch.Generator().manual_seed(0))
    for batch in list(batches)[:5]:
        tree = hierarchical_contrastive(features[batch[:first]], labels.take(batch[:first]))
        pairs = pair_losses(
            features[batch[first:]], instances[batch[first:second]], concepts[batch[second:]]
        )
        assert set(pairs) == {"instances", "anchors"}
        assert 3 < tree + sum(pairs.values()) < 100


def test_groups_come_up_equally_often_and_epochs_differ():
    labels = planted()
    instances, concepts = grouped(labels)
    batches = mixed_batches(labels, instances, concepts, batch_size=16, rng=rng())
    for rows, groups in ((slice(8, 12), instances), (slice(12, 16), concepts)):
        used = Counter(groups[row] for batch in batches for row in batch[rows])
        assert max(used.values()) - min(used.values()) <= 2
    first = list(batches)
    batches.set_epoch(1)
    second = list(batches)
    assert all(
        [batch[part] for batch in first] != [batch[part] for batch in second]
        for part in (slice(8), slice(8, 12), slice(12, 16))
    )
    again = mixed_batches(labels, instances, concepts, batch_size=16, rng=rng())
    assert list(again) == first


def test_groups_that_cannot_give_a_pair_are_left_out():
    labels = planted(values=("svt/power", "duty/justice"))
    svt = [row for row, theory in enumerate(labels.theories) if theory == "svt"]
    duty = [row for row, theory in enumerate(labels.theories) if theory == "duty"]
    instances, concepts = [-1] * len(labels), [-1] * len(labels)
    for row, group in ((svt[0], 0), (svt[1], 0), (svt[2], 1)):
        instances[row] = group
    for row, group in ((svt[0], 0), (duty[0], 0), (svt[1], 1), (svt[2], 1)):
        concepts[row] = group
    for batch in mixed_batches(labels, instances, concepts, batch_size=8, n_positives=2, rng=rng()):
        assert set(batch[4:6]) == {svt[0], svt[1]} and set(batch[6:]) == {svt[0], duty[0]}
    with pytest.raises(InvalidInput, match="instances: a batch needs 2 groups .* got 1"):
        mixed_batches(labels, instances, concepts, batch_size=16, rng=rng())


class ListedBatches:
    """Batches as they are given, by epoch; the last ones may be short."""

    batch_size = 3

    def __init__(self, *epochs):
        self.epochs, self.epoch = epochs, 0

    def __len__(self):
        return len(self.epochs[0])

    def __iter__(self):
        return iter(self.epochs[self.epoch])

    def set_epoch(self, epoch):
        self.epoch = epoch


def test_pairs_follow_each_batch_of_the_tree_whatever_its_length():
    labels = planted(per_cell=4)
    instances, concepts = grouped(labels)
    epochs = [[0, 1, 2], [3, 4, 5], [6]], [[6, 0, 4], [2, 3, 1], [5]]
    batches = with_pairs(ListedBatches(*epochs), labels, instances, concepts, pairs=2, rng=rng())
    assert batches.sizes == (3, 4, 4) and batches.batch_size == 11 and len(batches) == 3
    for epoch, trees in enumerate(epochs):
        batches.set_epoch(epoch)
        assert [batch[:-8] for batch in batches] == trees
        for batch in batches:
            for rows, groups in ((batch[-8:-4], instances), (batch[-4:], concepts)):
                first, second = rows[:2], rows[2:]
                assert first[0] != first[1] and second[0] != second[1]
                assert groups[first[0]] == groups[first[1]] >= 0
                assert groups[second[0]] == groups[second[1]] >= 0
                assert groups[first[0]] != groups[second[0]]
            for a, b in (batch[-4:-2], batch[-2:]):
                assert labels.theories[a] != labels.theories[b]


def test_no_pairs_leave_the_tree_as_it_is():
    labels = planted(per_cell=4)
    nothing = [-1] * len(labels)
    tree = anchor_batches(labels, batch_size=8, rng=rng())
    batches = with_pairs(tree, labels, nothing, nothing, pairs=0, rng=rng())
    assert batches.sizes == (8, 0, 0) and list(batches) == list(tree)


def test_too_few_groups_that_can_give_a_pair_are_refused():
    labels = labels_for(["svt/power", "svt/power", "svt/face", "duty/justice"] * 2, [1] * 8)
    two, alone, across = [0, 0, 1, 1] * 2, list(range(8)), [0, 1, 2, 0] * 2

    def paired(instances, anchors, pairs):
        return with_pairs(ListedBatches([[0, 1]]), labels, instances, anchors, pairs=pairs,
                          rng=rng())  # fmt: skip

    for instances, anchors, pairs, message in (
        (two, across, 3, "instances: a batch needs 3 .* got 2"),
        (alone, across, 1, "instances: a batch needs 1 .* got 0"),
        # Of the concepts 0, 1 and 2 only the first has texts of two theories.
        (two, across, 2, "anchors: a batch needs 2 .* got 1"),
        (two, [-1] * 8, 1, "anchors: a batch needs 1 .* got 0"),
    ):
        with pytest.raises(InvalidInput, match=message):
            paired(instances, anchors, pairs)
    ((*tree, a, b, c, d),) = paired(two, across, 1)
    assert tree == [0, 1] and two[a] == two[b] and {c % 4, d % 4} == {0, 3}


@pytest.mark.parametrize(("batch_size", "n_positives"), [(4, 4), (1, 1), (8, 0), (0, 1)])
def test_batches_without_room_are_refused(batch_size, n_positives):
    with pytest.raises(InvalidInput, match="positives"):
        anchor_batches(planted(2), batch_size=batch_size, n_positives=n_positives, rng=rng())


def test_hostile_input_is_refused():
    with pytest.raises(InvalidInput, match="at least one text"):
        anchor_batches(labels_for([], []), batch_size=8, rng=rng())
    labels = planted(2)
    instances, concepts = grouped(labels)
    for groups in (([0], concepts), (instances, [0])):
        with pytest.raises(InvalidInput, match="1 instances|1 anchors"):
            mixed_batches(labels, *groups, batch_size=16, rng=rng())
