import math
from collections import Counter

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from valueflow.errors import InvalidInput
from valueflow.ranking.windows import bucketed_anchors, cross_windows, group_windows

LADDERS = [ladder for ladder in range(12) for _ in range(5)]


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("per_item", [1, 2, 3, 7])
@pytest.mark.parametrize("n_groups", [5, 6, 23])
@pytest.mark.parametrize("group_size", [1, 4])
def test_cross_windows_are_full_balanced_and_never_hold_two_of_a_group(
    per_item, n_groups, group_size
):
    groups = [f"ladder {g}" for g in range(n_groups) for _ in range(group_size)]
    windows = cross_windows(groups, size=5, per_item=per_item, rng=rng(per_item))
    for window in windows:
        assert len(window) == 5 == len({groups[i] for i in window})
    counts = np.bincount([i for w in windows for i in w], minlength=len(groups))
    assert counts.min() >= per_item
    assert counts.max() - counts.min() <= 2
    assert len(windows) <= per_item * len(groups) / 5 + 2


def test_items_of_a_large_group_all_get_their_windows():
    groups = ["large"] * 9 + list("abcde")
    windows = cross_windows(groups, size=4, per_item=3, rng=rng())
    counts = np.bincount([i for w in windows for i in w], minlength=len(groups))
    assert counts.min() >= 3 and counts[:9].max() <= 4
    assert all(sum(i < 9 for i in w) <= 1 for w in windows)


@pytest.mark.parametrize("seed", range(10))
def test_two_windows_each_connect_all_items(seed):
    met = np.zeros((60, 60))
    for window in cross_windows(LADDERS, per_item=2, rng=rng(seed)):
        met[np.ix_(window, window)] = 1
    assert connected_components(met, directed=False)[0] == 1


def test_windows_so_far_count():
    so_far = [4] * 30 + [1] * 30
    windows = cross_windows(LADDERS, per_item=4, so_far=so_far, rng=rng())
    counts = np.array(so_far) + np.bincount([i for w in windows for i in w], minlength=60)
    assert counts.min() == 4 and counts.max() <= 5 + 2
    # 30 items lack 3 windows each, and a place of each window ties them to the others.
    assert math.ceil(90 / 4) <= len(windows) <= math.ceil(90 / 4) + 2
    assert all(len({LADDERS[i] for i in w}) == 5 for w in windows)
    assert cross_windows(LADDERS, per_item=4, so_far=[4] * 60, rng=rng()) == []
    none_yet = cross_windows(LADDERS, per_item=4, so_far=[0] * 60, rng=rng())
    assert none_yet == cross_windows(LADDERS, per_item=4, rng=rng())


@pytest.mark.parametrize("seed", range(10))
def test_new_items_meet_old_ones_and_old_ones_take_turns(seed):
    so_far = np.array([3] * 30 + [0] * 30)
    windows = cross_windows(LADDERS, per_item=3, so_far=so_far.tolist(), rng=rng(seed))
    met = np.zeros((60, 60))
    met[:30, :30] = 1
    for window in windows:
        assert min(window) < 30 <= max(window)
        met[np.ix_(window, window)] = 1
    assert connected_components(met, directed=False)[0] == 1
    shown = np.bincount([i for w in windows for i in w], minlength=60)[:30]
    assert shown.max() - shown.min() <= 1


@pytest.mark.parametrize("lacking", [[0], [0, 1], [0, 5, 10, 15, 20, 25], [0, 59]])
def test_items_that_share_their_group_with_all_others_lacking_or_not_come_to_an_end(lacking):
    so_far = np.full(60, 2)
    so_far[lacking] = 0
    windows = cross_windows(LADDERS, per_item=2, so_far=so_far.tolist(), rng=rng())
    counts = so_far + np.bincount([i for w in windows for i in w], minlength=60)
    assert counts.min() == 2 and len(windows) <= 2 * len(lacking)
    # Nobody but the group of the one that lacks has enough: there is nothing to tie it to.
    groups = [0, 0, 1, 2]
    alone = cross_windows(groups, size=2, per_item=1, so_far=[0, 1, 0, 0], rng=rng())
    assert {0, 2, 3} <= {i for w in alone for i in w}


@pytest.mark.parametrize("so_far", [[], [1] * 59, [1] * 61])
def test_one_count_per_item_is_expected(so_far):
    with pytest.raises(InvalidInput, match=f"each of 60 items, got {len(so_far)}"):
        cross_windows(LADDERS, per_item=2, so_far=so_far, rng=rng())


def test_place_in_a_window_does_not_tell_how_often_an_item_was_shown():
    # One of the large group is in each window, and always the one least shown so far.
    windows = cross_windows(["large"] * 9 + list("abc"), size=4, per_item=200, rng=rng())
    places = np.bincount([[i < 9 for i in window].index(True) for window in windows])
    n = len(windows)
    assert n == 9 * 200
    assert np.abs(places - n / 4).max() < 4.5 * np.sqrt(n * 0.25 * 0.75)


def test_the_generator_decides_who_meets():
    draws = [cross_windows(LADDERS, per_item=2, rng=rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("groups", [[], ["a"] * 20, list("abcdabcd")])
def test_too_few_groups_are_refused(groups):
    with pytest.raises(InvalidInput, match=f"at least 5 groups, got {len(set(groups))}"):
        cross_windows(groups, size=5, per_item=1, rng=rng())


def test_group_windows_hold_whole_groups_in_the_order_they_were_met():
    groups = list("bbacacbb")
    windows = group_windows(groups, rng=rng())
    assert [sorted(w) for w in windows] == [[0, 1, 6, 7], [2, 4], [3, 5]]


def test_group_windows_are_shuffled():
    drawn = Counter(group_windows(["a"] * 3, rng=rng(seed))[0] for seed in range(600))
    assert len(drawn) == 6 and min(drawn.values()) > 60
    assert group_windows(LADDERS, rng=rng(3)) == group_windows(LADDERS, rng=rng(3))


def test_one_anchor_per_bucket_and_any_of_it_as_often():
    intensities = np.array([-10.0, -9, -8, -5, -4, -1, 0, 0.5, 1, 3, 5, 7, 8, 9, 10])
    buckets = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 4])
    n = 4000
    drawn = Counter()
    generator = rng(5)
    for _ in range(n):
        anchors = bucketed_anchors(intensities, size=5, rng=generator)
        assert buckets[anchors].tolist() == [0, 1, 2, 3, 4]
        drawn.update(anchors.tolist())
    for anchor, bucket in enumerate(buckets):
        p = 1 / (buckets == bucket).sum()
        assert drawn[anchor] / n == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5)


def test_an_empty_bucket_takes_the_nearest_anchor_left():
    # Bucket [-2, 2) is empty; of the two anchors at 2.5 the next bucket leaves it one.
    intensities = np.array([-10.0, -9, -4.5, -4, 2.5, 2.5, 9, 10])
    for seed in range(20):
        anchors = bucketed_anchors(intensities, size=5, rng=rng(seed)).tolist()
        assert {anchors[2], anchors[3]} == {4, 5}


def test_an_empty_bucket_never_robs_another_of_its_only_anchor():
    # Buckets 1 and 2 are empty, and nearest to them is the only anchor of bucket 3.
    intensities = np.array([-10.0, -9.5, -9, 3, 10])
    for seed in range(20):
        anchors = bucketed_anchors(intensities, size=5, rng=rng(seed))
        assert anchors[3] == 3 and anchors[4] == 4
        assert sorted(anchors) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(20))
def test_anchors_are_distinct_and_fixed_by_the_generator(seed):
    intensities = rng(seed).choice([-9.0, -8.5, 0.0, 9.0], size=12)
    first, again = (bucketed_anchors(intensities, size=6, rng=rng(seed + 50)) for _ in range(2))
    assert len(set(first.tolist())) == 6
    assert first.tolist() == again.tolist()


def test_equal_anchors_and_a_panel_just_large_enough():
    assert sorted(bucketed_anchors(np.full(4, 2.0), size=4, rng=rng())) == [0, 1, 2, 3]
    with pytest.raises(InvalidInput, match="needs 5 anchors, the panel has 4"):
        bucketed_anchors(np.full(4, 2.0), size=5, rng=rng())
