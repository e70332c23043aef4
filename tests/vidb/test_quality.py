import math
import re
from dataclasses import replace

import numpy as np
import pytest
from planted_vidb import CARE, POWER, ids_of, ladders_of, planted, read

from valueflow.errors import InvalidInput
from valueflow.vidb.build import build
from valueflow.vidb.planning import PlannedWindow, connected_windows
from valueflow.vidb.quality import ValueQuality, quality
from valueflow.vidb.store import Vidb

LADDERS = ladders_of(n=20)
TRUTH = planted(LADDERS, seed=0, spread=0.3)
PLANNED = connected_windows(LADDERS, per_text=6, rng=np.random.default_rng(0))
RECORDS = read(PLANNED, TRUTH, seed=0)


@pytest.fixture(scope="module")
def vidb():
    return Vidb(build(LADDERS, RECORDS))


def one(vidb, records=RECORDS, **options):
    (found,) = quality(vidb, LADDERS, records, **options)
    return found


def shaped(vidb, intensity):
    """The database with the intensities of all ladders set to those of five rungs."""
    return Vidb(vidb.frame.assign(intensity=np.tile(intensity, len(LADDERS))))


def test_planted_ladders_are_found_good(vidb):
    found = one(vidb)
    assert (found.value, found.texts, found.ladders) == (POWER, 100, 20)
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.signs > 0.97 and abs(found.zero) < 1
    assert found.stderr == pytest.approx(vidb.frame["stderr"].median())
    assert found.near_duplicates is None


def test_shares_zero_and_signs_are_those_of_the_frame(vidb):
    found = one(shaped(vidb, [-10.0, -3.0, 0.5, 1.0, 10.0]))
    assert found.shares == (0.2, 0.2, 0.4, 0.0, 0.2)
    assert found.zero == 0.5 and found.signs == 1.0
    crossed = one(shaped(vidb, [-10.0, 3.0, 0.5, 1.0, -1.0]))
    assert crossed.signs == 0.5


def test_rungs_are_ordered_by_cross_ladder_windows_alone(vidb):
    assert one(vidb).held_out > 0.97
    # Ladder windows read upside down change nothing: they are not looked at.
    turned = [
        replace(r, order=r.order[::-1])
        if r.window in {p.window for p in PLANNED if p.kind == "ladder"}
        else r
        for r in RECORDS
    ]
    assert one(vidb, turned).held_out == one(vidb).held_out
    chance = [
        replace(r, order=tuple(np.random.default_rng(i).permutation(r.shown).tolist()))
        if r.kind != "ladder"
        else r
        for i, r in enumerate(RECORDS)
    ]
    assert 0.3 < one(vidb, chance).held_out < 0.7
    flipped = read(PLANNED, {text_id: -theta for text_id, theta in TRUTH.items()}, seed=0)
    assert one(vidb, flipped).held_out < 0.03


def test_held_out_is_of_the_splits_asked_for(vidb):
    wrong = {
        text_id: -theta if ladder.split == "test" else theta
        for ladder in LADDERS
        for text_id in ids_of([ladder])
        for theta in [TRUTH[text_id]]
    }
    records = read(PLANNED, wrong, seed=0)
    assert one(vidb, records, splits=("validation",)).held_out > 0.95
    assert one(vidb, records, splits=("test",)).held_out < 0.05
    assert math.isnan(one(vidb, records, splits=()).held_out)


def test_held_out_is_not_known_without_cross_ladder_windows(vidb):
    ladders_only = [r for r in RECORDS if r.kind == "ladder"]
    assert math.isnan(one(vidb, ladders_only).held_out)


def window(name, shown, order, kind="cross", ranker="a"):
    ids = ids_of(LADDERS)
    (record,) = read([PlannedWindow(f"{POWER}/{name}", kind, (ids[0], ids[5]))], TRUTH, seed=0)
    place = dict(zip("abcde", ids[::5], strict=False))
    return replace(
        record,
        ranker=ranker,
        shown=tuple(place[s] for s in shown),
        order=tuple(place[s] for s in order),
    )


def test_planted_disagreement_is_found(vidb):
    records = [
        window("w1", "abcde", "abcde"),
        window("w2", "edcba", "abcde"),
        window("w3", "abc", "abc"),
        window("w1", "edcba", "bacde", "repeat", "b"),  # one pair of ten
        window("w2", "badce", "edcba", "repeat", "b"),  # all ten
        window("w9", "abc", "cba", "repeat", "b"),  # of no window that is there
    ]
    found = one(vidb, records)
    assert found.retest_pairs == 20
    assert found.retest == pytest.approx(9 / 20)
    assert found.other_reader
    # The same reader's memory neither adds to it nor counts where there is an independent one.
    own = window("w3", "cba", "cba", "repeat", "a")
    assert one(vidb, [*records, own]).retest == pytest.approx(9 / 20)
    alone = one(vidb, [*records[:3], own])
    assert (alone.retest, alone.retest_pairs, alone.other_reader) == (0.0, 3, False)


def test_repeated_reading_of_a_noisy_reader_agrees_as_often_as_its_noise_says(vidb):
    again = [replace(p, kind="repeat") for p in PLANNED if p.kind == "cross"]
    chance = dict.fromkeys(TRUTH, 0.0)
    cross = [r for r in RECORDS if r.kind != "repeat"]
    found = one(vidb, [*cross, *read(again, chance, seed=1, ranker="another")])
    n_pairs = 10 * len(again)
    assert found.retest_pairs == n_pairs
    # Pairs of a window hang together; 2 is more than the design effect of five items.
    assert abs(found.retest - 0.5) < 4 * math.sqrt(2 * 0.25 / n_pairs)


def test_without_repeats_there_is_no_agreement(vidb):
    found = one(vidb, [r for r in RECORDS if r.kind != "repeat"])
    assert math.isnan(found.retest) and found.retest_pairs == 0 and not found.other_reader


def test_planted_order_bias_is_found(vidb):
    fair = [window(f"w{i}", s, "abcde") for i, s in enumerate(["abcde", *["bacde"] * 4])]
    found = one(vidb, fair)
    assert (found.first_first, found.order_bias) == (0.2, pytest.approx(0.0))
    always = [window(f"w{i}", "abcde", "abcde") for i in range(25)]
    found = one(vidb, always)
    assert found.first_first == 1.0
    # 25 wins where 5 were due, with a variance of 25 * 0.2 * 0.8.
    assert found.order_bias == pytest.approx(20 / 2)
    mixed = [window("w1", "ab", "ab"), window("w2", "abcd", "abcd")]
    due, variance = 1 / 2 + 1 / 4, 1 / 4 + 3 / 16
    assert one(vidb, mixed).order_bias == pytest.approx((2 - due) / math.sqrt(variance))


def test_a_reader_without_bias_shows_none_and_one_with_bias_does(vidb):
    assert abs(one(vidb).order_bias) < 3
    lazy = [replace(r, order=r.shown) if i % 4 == 0 else r for i, r in enumerate(RECORDS)]
    found = one(vidb, lazy)
    assert found.order_bias > 4 and 0.3 < found.first_first < 0.55


def fake_embed(twins):
    """Orthogonal unit vectors, but each twin's is its original's, turned by the cosine given."""

    def embed(texts):
        vectors = np.eye(len(texts) + 1)[:, : len(texts) + 1][: len(texts)]
        for copy, (original, cosine) in twins.items():
            vectors[copy] = cosine * vectors[original]
            vectors[copy, -1] = math.sqrt(1 - cosine**2)
        return vectors

    return embed


def test_near_duplicates_of_different_ladders_are_found(vidb):
    ids = vidb.frame["id"].tolist()
    found = one(vidb, embed=fake_embed({7: (1, 0.96), 3: (2, 0.99), 60: (41, 0.94)}))
    # 3 and 2 are rungs of one ladder, 60 and 41 are not alike enough.
    assert found.near_duplicates == ((ids[1], ids[7]),)
    assert one(vidb, embed=fake_embed({})).near_duplicates == ()


def test_every_value_is_measured_by_its_own(vidb):
    other = ladders_of(CARE, 5)
    truth = planted(other, seed=1, spread=0.3)
    planned = connected_windows(other, per_text=2, rng=np.random.default_rng(1))
    records = [*read(planned, truth, seed=1), *RECORDS]
    both = Vidb(build([*LADDERS, *other], records))
    care, power = quality(both, [*LADDERS, *other], records)
    assert (care.value, care.texts) == (CARE, 25)
    assert power == one(vidb)


def test_a_value_without_ladders_is_refused(vidb):
    with pytest.raises(InvalidInput, match="svt/power is in the database but has no ladders"):
        quality(vidb, ladders_of(CARE, 5), RECORDS)


GOOD = ValueQuality(
    value=POWER,
    texts=100,
    ladders=20,
    shares=(0.2,) * 5,
    zero=0.0,
    signs=1.0,
    stderr=1.0,
    retest=1.0,
    retest_pairs=100,
    other_reader=True,
    first_first=0.2,
    order_bias=0.0,
    held_out=1.0,
    near_duplicates=(),
)


@pytest.mark.parametrize(
    ("poor", "told"),
    [
        ({"shares": (0.11, 0.3, 0.2, 0.2, 0.19)}, "only 11% of the texts in one fifth"),
        ({"zero": -1.04}, "middle rungs are at -1.0 on average"),
        ({"signs": 0.94}, "only 94% of the leaning rungs"),
        ({"held_out": 0.9}, "cross-ladder windows order 90% of rung pairs"),
        ({"held_out": math.nan}, "cross-ladder windows alone do not tell"),
        ({"near_duplicates": (("x", "y"), ("x", "z"))}, "2 near-duplicates .* e.g. x and y"),
    ],
)
def test_each_shortcoming_is_told_in_a_line(poor, told):
    assert GOOD.problems == ()
    (problem,) = replace(GOOD, **poor).problems
    assert "\n" not in problem
    assert re.search(told, problem)


def test_bounds_themselves_are_good_enough():
    assert replace(GOOD, shares=(0.12, 0.22, 0.22, 0.22, 0.22), zero=1.0).problems == ()
    assert replace(GOOD, signs=0.95, held_out=0.95, near_duplicates=None).problems == ()
    everything = {"shares": (0.0,) * 5, "zero": 9.0, "signs": 0.0, "held_out": 0.0}
    assert len(replace(GOOD, **everything, near_duplicates=(("x", "y"),)).problems) == 5
