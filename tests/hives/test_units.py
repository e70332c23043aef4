from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from valueflow.errors import InvalidInput
from valueflow.hives.labels import labels_for
from valueflow.hives.texts import UNIT, TrainingTexts
from valueflow.hives.units import unit_batches

VALUES = ("svt/power", "svt/achievement", "svt/benevolence", "duty/justice", "duty/fidelity")
MORAL, CIVIC = ("mft/care-harm", "mft/loyalty-betrayal"), ("right/civil",)


def planted(ladders, alone=0, touching=None, seed=0):
    """Ladders and texts that stand alone of each of `VALUES`, texts by what was asked; shuffled."""
    rows = [(v, f"{v}/{n}", ()) for v in VALUES for n in range(ladders) for _ in range(UNIT)]
    rows += [(v, None, ()) for v in VALUES for _ in range(alone)]
    rows += [(asked[0], None, asked) for asked, n in (touching or {}).items() for _ in range(n)]
    rows = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    return TrainingTexts(
        tuple(f"text {i}" for i in range(len(rows))),
        labels_for([value for value, _, _ in rows], [0] * len(rows)),
        tuple(scene for _, scene, _ in rows),
        np.full(len(rows), -1),
        tuple(asked[:1] for _, _, asked in rows),
        tuple(asked for _, _, asked in rows),
        ("planted",),
    )


def rng(seed=0):
    return np.random.default_rng(seed)


def parted(texts, batches):
    """The batches of units and those of texts that touch; none is mixed."""
    kinds = {True: [], False: []}
    for batch in batches:
        (touching,) = {bool(texts.asked[row]) for row in batch}
        kinds[touching].append(batch)
    return kinds[False], kinds[True]


def test_every_text_is_dealt_once_an_epoch_where_batches_come_out_even():
    # 8 ladders and 2 units of texts alone a value: 30 and 20 units, in batches of 5.
    texts = planted(ladders=8, alone=9, touching={MORAL: 60, CIVIC: 25})
    batches = unit_batches(texts, n_units=5, rng=rng())
    for epoch in range(3):
        batches.set_epoch(epoch)
        dealt = list(batches)
        assert sorted(row for batch in dealt for row in batch) == list(range(len(texts)))
        assert len(dealt) == len(batches) == 6 + 4 + 3 + 1


@pytest.mark.parametrize("n_units", [4, 7])
@pytest.mark.parametrize(("ladders", "alone"), [(3, 0), (3, 7), (0, 11)])
def test_uneven_numbers_repeat_no_more_than_fills_the_last_batch_of_a_theory(
    ladders, alone, n_units
):
    texts = planted(ladders, alone, touching={MORAL: 2 * UNIT * n_units + 1})
    batches = unit_batches(texts, n_units=n_units, rng=rng())
    units, touching = parted(texts, batches)
    per_value = ladders + -(-alone // UNIT)
    full = [-(-per_value * n // n_units) for n in (3, 2)]
    assert len(units) == sum(full) and len(touching) == 3 and len(batches) == sum(full) + 3
    seen = Counter(row for batch in [*units, *touching] for row in batch)
    assert set(seen) == set(range(len(texts)))
    assert max(seen.values()) <= 2
    filled = sum(full) * n_units - per_value * len(VALUES)
    assert sum(seen.values()) - len(seen) <= UNIT * filled
    assert all(len(batch) == len(set(batch)) <= batches.batch_size for batch in batches)


@pytest.mark.parametrize("n_units", [2, 4, 7])
def test_ladders_are_never_split(n_units):
    texts = planted(ladders=5, alone=7)
    for batch in unit_batches(texts, n_units=n_units, n_same=1, rng=rng()):
        scenes = [texts.scenes[row] for row in batch]
        counts = Counter(scene for scene in scenes if scene)
        assert set(counts.values()) <= {UNIT}
        for scene in counts:
            first = scenes.index(scene)
            assert scenes[first : first + UNIT] == [scene] * UNIT


def test_a_unit_of_texts_alone_is_up_to_five_of_one_value():
    texts = planted(ladders=0, alone=12)
    sizes = Counter()
    for batch in unit_batches(texts, n_units=2, n_same=1, rng=rng()):
        values = [texts.labels.values[row] for row in batch]
        # Two units, of one value as long as it has two.
        assert all(n in (2, 5, 7, 10) for n in Counter(values).values())
        sizes[len(batch)] += 1
    assert set(sizes) <= {4, 7, 10} and sizes[7] + sizes[10] > 4


def test_a_batch_holds_one_theory_and_is_built_around_units_of_one_value():
    texts = planted(ladders=12)
    together = 0
    dealt = list(unit_batches(texts, n_units=4, n_same=2, rng=rng()))
    for batch in dealt:
        assert len({texts.labels.theories[row] for row in batch}) == 1
        units = [{texts.labels.values[row] for row in batch[i : i + UNIT]} for i in range(0, 20, 5)]
        assert all(len(values) == 1 for values in units)
        assert units[0] == units[1]
        together += units[0] == units[2]
    assert together / len(dealt) > 0.7


def test_texts_that_touch_come_in_batches_of_one_question():
    texts = planted(ladders=4, touching={MORAL: 33, CIVIC: 7})
    batches = unit_batches(texts, n_units=3, rng=rng())
    assert batches.batch_size == 15
    _, touching = parted(texts, batches)
    sizes = {MORAL: [], CIVIC: []}
    for batch in touching:
        (asked,) = {texts.asked[row] for row in batch}
        sizes[asked].append(len(batch))
    assert sorted(sizes[MORAL]) == [3, 15, 15] and sizes[CIVIC] == [7]
    rows = [row for batch in touching for row in batch]
    assert sorted(rows) == [row for row, asked in enumerate(texts.asked) if asked]


def test_the_generator_and_the_epoch_decide_all():
    texts = planted(ladders=6, alone=8, touching={MORAL: 30})

    def dealt(seed, epoch):
        batches = unit_batches(texts, n_units=4, rng=rng(seed))
        batches.set_epoch(epoch)
        return list(batches)

    assert dealt(0, 3) == dealt(0, 3)
    for other in (dealt(0, 4), dealt(1, 3)):
        # The units and the texts that touch are dealt anew, not only put in another order.
        for one, another in zip(parted(texts, dealt(0, 3)), parted(texts, other), strict=True):
            assert {frozenset(batch) for batch in one} != {frozenset(batch) for batch in another}
    batches = unit_batches(texts, n_units=4, rng=rng())
    assert list(batches) == list(batches) == dealt(0, 0)


def test_kinds_of_batches_are_mixed_over_an_epoch():
    texts = planted(ladders=12, touching={MORAL: 300})
    kinds = [bool(texts.asked[batch[0]]) for batch in unit_batches(texts, n_units=4, rng=rng())]
    assert kinds.count(True) == 15 == kinds.count(False)
    assert sum(a != b for a, b in zip(kinds, kinds[1:], strict=False)) > 5


def test_a_data_loader_takes_them_as_batch_sampler():
    texts = planted(ladders=3, alone=4, touching={CIVIC: 11})
    batches = unit_batches(texts, n_units=3, rng=rng())
    loader = DataLoader(torch.arange(len(texts)), batch_sampler=batches)
    assert len(loader) == len(batches)
    assert [batch.tolist() for batch in loader] == list(batches)


def test_fewer_units_than_a_batch_takes_make_one_batch_of_them_all():
    texts = planted(ladders=1)
    batches = unit_batches(texts, n_units=8, rng=rng())
    assert sorted(len(batch) for batch in batches) == [2 * UNIT, 3 * UNIT]
    assert sorted(row for batch in batches for row in batch) == list(range(len(texts)))


def test_batches_without_room_or_without_units_are_refused():
    texts = planted(ladders=2)
    for n_units, n_same in ((2, 2), (4, 0), (0, 1)):
        with pytest.raises(InvalidInput, match="positives"):
            unit_batches(texts, n_units=n_units, n_same=n_same, rng=rng())
    for empty in (planted(ladders=0), planted(ladders=0, touching={MORAL: 9})):
        with pytest.raises(InvalidInput, match="at least one text"):
            unit_batches(empty, n_units=4, rng=rng())
