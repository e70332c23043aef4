import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from planted_vidb import CARE, POWER, ids_of, ladders_of, planted, read, write_lines
from scipy.sparse.csgraph import connected_components

from valueflow.errors import InvalidInput
from valueflow.vidb.build import build
from valueflow.vidb.planning import (
    PlannedWindow,
    adaptive_windows,
    connected_windows,
    random_windows,
    read_plan,
    write_plan,
)
from valueflow.vidb.store import Vidb

LADDERS = ladders_of(n=14)


def rng(seed=0):
    return np.random.default_rng(seed)


def connected(ladders, records=(), *, seed=0, **options):
    return connected_windows(ladders, records, rng=rng(seed), **options)


def first_readings(ladders, *, seed=0, per_text=3):
    """Rankings of connected windows."""
    planned = connected(ladders, seed=seed, per_text=per_text)
    return read(planned, planted(ladders, seed=seed), seed=seed)


def cross_counts(windows, ids):
    met = Counter(text_id for w in windows if w.kind == "cross" for text_id in w.shown)
    return np.array([met[text_id] for text_id in ids])


def on_the_scale(frame, truth):
    """Planted positions as intensities, by the rule that `build` follows."""
    theta = np.array([truth[text_id] for text_id in frame["id"]])
    rung = frame["rung"].to_numpy()
    theta -= np.median(theta[rung == 3])
    unit = np.median(np.abs(theta[(rung == 1) | (rung == 5)])) / np.arctanh(0.8)
    return 10 * np.tanh(theta / unit)


def n_islands(windows, ids):
    position = {text_id: i for i, text_id in enumerate(ids)}
    met = np.zeros((len(ids), len(ids)))
    for window in windows:
        rows = [position[text_id] for text_id in window.shown]
        met[np.ix_(rows, rows)] = 1
    return connected_components(met, directed=False)[0]


def ladder_of(text_id):
    return text_id.rpartition("/")[0]


def assert_no_two_of_a_ladder(windows):
    cross = [w for w in windows if w.kind == "cross"]
    assert cross
    for window in cross:
        assert len({ladder_of(text_id) for text_id in window.shown}) == len(window.shown)


@pytest.mark.parametrize("size", [2, 5])
@pytest.mark.parametrize("per_text", [1, 5])
@pytest.mark.parametrize("n", [5, 14])
def test_connected_windows_show_every_ladder_and_tie_every_text(n, per_text, size):
    ladders = ladders_of(n=n)
    planned = connected(ladders, per_text=per_text, size=size)
    own = [w.shown for w in planned if w.kind == "ladder"]
    assert sorted(tuple(sorted(ids)) for ids in own) == sorted(
        tuple(ids_of([ladder])) for ladder in ladders
    )
    assert {len(w.shown) for w in planned if w.kind == "cross"} == {size}
    assert_no_two_of_a_ladder(planned)
    counts = cross_counts(planned, ids_of(ladders))
    assert counts.min() == per_text and counts.max() <= per_text + 2
    assert n_islands(planned, ids_of(ladders)) == 1


def test_a_tenth_is_shown_again_in_another_order():
    planned = connected(LADDERS)
    once = {w.window: w.shown for w in planned if w.kind != "repeat"}
    again = {w.window: w.shown for w in planned if w.kind == "repeat"}
    assert len(once) + len(again) == len(planned)
    assert len(again) == math.ceil(0.1 * len(once))
    for window, shown in again.items():
        assert sorted(shown) == sorted(once[window]) and shown != once[window]


def test_even_windows_of_two_are_shown_again_the_other_way_round():
    planned = connected(LADDERS, size=2, repeat_share=1.0)
    once = {w.window: w.shown for w in planned if w.kind == "cross"}
    again = {w.window: w.shown for w in planned if w.kind == "repeat" and w.window in once}
    assert again == {window: shown[::-1] for window, shown in once.items()}


@pytest.mark.parametrize("share", [0.0, 0.07, 1.0])
def test_any_share_is_shown_again(share):
    kinds = Counter(w.kind for w in connected(LADDERS, repeat_share=share))
    assert kinds["repeat"] == round(share * (kinds["ladder"] + kinds["cross"]) + 0.4999)


def test_the_share_shown_again_is_not_rounded_up_from_a_rounding_error():
    # 0.07 * 100 > 7 in floating point; 20 ladders and 80 cross windows are 100.
    kinds = Counter(w.kind for w in connected(ladders_of(n=20), per_text=4, repeat_share=0.07))
    assert kinds == {"ladder": 20, "cross": 80, "repeat": 7}


def test_with_everything_there_nothing_is_planned():
    assert connected(LADDERS, first_readings(LADDERS), per_text=3, seed=9) == []


def test_only_what_is_missing_is_planned():
    records = first_readings(LADDERS)
    lost = [r for r in records if r.window.endswith(("w0003", "w0021", "w0030"))]
    assert {r.kind for r in lost} >= {"ladder", "cross"}
    kept = [r for r in records if r not in lost]
    planned = connected(LADDERS, kept, per_text=3)
    assert [set(w.shown) for w in planned if w.kind == "ladder"] == [
        set(r.shown) for r in lost if r.kind == "ladder"
    ]
    assert cross_counts([*kept, *planned], ids_of(LADDERS)).min() == 3
    # Ten texts lack a window; each new window holds one text more that ties it to the others.
    assert 2 <= sum(w.kind == "cross" for w in planned) <= 4
    assert connected(LADDERS, [*kept, *read(planned, planted(LADDERS, seed=0), seed=1)]) != planned


def test_a_second_round_ends_what_a_first_began():
    truth = planted(LADDERS, seed=0)
    records = read(connected(LADDERS, per_text=2), truth, seed=0)
    planned = connected(LADDERS, records, per_text=5)
    assert not any(w.kind == "ladder" for w in planned)
    records += read(planned, truth, seed=1)
    assert connected(LADDERS, records, per_text=5) == []
    kinds = Counter(r.kind for r in records)
    assert kinds["repeat"] == math.ceil(0.1 * (kinds["ladder"] + kinds["cross"]))


@pytest.mark.parametrize("seed", range(5))
def test_new_ladders_are_tied_to_the_old_ones(seed):
    old, new = ladders_of(n=10), ladders_of(n=10, start=10)
    records = first_readings(old, seed=seed)
    planned = connected([*old, *new], records, per_text=3, seed=seed)
    ids = ids_of([*old, *new])
    assert n_islands([*records, *planned], ids) == 1
    assert cross_counts(planned, ids_of(new)).min() >= 3
    known = {ladder.id for ladder in old}
    cross = [w for w in planned if w.kind == "cross"]
    assert all(known & {ladder_of(text_id) for text_id in w.shown} for w in cross)
    truth = planted([*old, *new], seed=seed) | planted(old, seed=seed)
    frame = build([*old, *new], [*records, *read(planned, truth, seed=seed)])
    # And tied by so much that the two are not shifted against each other.
    miss = (frame["intensity"] - on_the_scale(frame, truth)).groupby(frame["ladder"].isin(known))
    assert abs(miss.mean()[True] - miss.mean()[False]) < 0.8


def test_islands_that_were_ranked_apart_are_brought_together():
    left, right = ladders_of(n=8), ladders_of(n=6, start=8)
    both = [*left, *right]
    apart = first_readings(left) + [
        replace(r, window=f"{r.window}-b") for r in first_readings(right)
    ]
    assert n_islands(apart, ids_of(both)) == 2
    planned = connected(both, apart, per_text=3)
    assert n_islands([*apart, *planned], ids_of(both)) == 1
    assert cross_counts(planned, ids_of(right)).min() == 3
    rest = [*apart, *read(planned, planted(both, seed=0), seed=0)]
    assert connected(both, rest, per_text=3) == []


def test_windows_are_numbered_on_from_the_last():
    records = [replace(r, window=f"{POWER}/w0{r.window[-3:]}") for r in first_readings(LADDERS)]
    records.append(replace(records[0], window=f"{POWER}/w1200", kind="review"))
    more = [
        *random_windows(LADDERS, records, n=3, rng=rng()),
        *adaptive_windows(Vidb(build(LADDERS, records)), records, n=3, rng=rng()),
        *[w for w in connected(LADDERS, records, per_text=4) if w.kind == "cross"],
    ]
    numbers = [w.window for w in more]
    assert numbers[:6] == [f"{POWER}/w{n}" for n in (1201, 1202, 1203)] * 2
    assert numbers[6] == f"{POWER}/w1201" and len(set(numbers[6:])) == len(numbers[6:])
    assert connected(LADDERS)[0].window == f"{POWER}/w0001"


def test_values_are_planned_apart():
    ladders = [*ladders_of(CARE, 6), *ladders_of(POWER, 6)]
    records = first_readings(ladders[:6])
    truth = planted(ladders, seed=3)
    vidb = Vidb(build(ladders, read(connected(ladders), truth, seed=3)))
    plans = {
        "connected": connected(ladders),
        "random": random_windows(ladders, n=9, rng=rng()),
        "adaptive": adaptive_windows(vidb, n=9, rng=rng()),
    }
    for planned in plans.values():
        for window in planned:
            stem = "/".join(window.window.split("/")[:2])
            assert {text_id.rsplit("/", 2)[0] for text_id in window.shown} == {stem}
    for kind in ("random", "adaptive"):
        windows = Counter(w.window.rpartition("/")[0] for w in plans[kind])
        assert windows == {CARE: 9, POWER: 9}
    rest = connected(ladders, records, per_text=3)
    assert {w.window.rpartition("/")[0] for w in rest} == {POWER}


def test_seeds_decide_and_the_order_of_the_input_does_not():
    ladders = [*ladders_of(CARE, 6), *LADDERS]
    records = first_readings(ladders, per_text=2)
    mixed = [ladders[i] for i in rng(1).permutation(len(ladders))]
    vidb = Vidb(build(ladders, records))
    shuffled = Vidb(vidb.frame.sample(frac=1, random_state=2))

    def plans(ladders, records, vidb, seed):
        return (
            connected(ladders, seed=seed),
            connected(ladders, records, seed=seed),
            random_windows(ladders, records, n=6, rng=rng(seed)),
            adaptive_windows(vidb, records, n=6, rng=rng(seed)),
        )

    first = plans(ladders, records, vidb, 4)
    assert plans(mixed, records[::-1], shuffled, 4) == first
    for one, other in zip(first, plans(ladders, records, vidb, 5), strict=True):
        assert one != other


def test_random_windows_hold_any_text_in_any_place_alike():
    planned = random_windows(LADDERS, n=2100, rng=rng())
    assert len({w.window for w in planned}) == 2100
    assert {w.kind for w in planned} == {"cross"}
    assert_no_two_of_a_ladder(planned)
    for place in (0, 4):
        shown = Counter(w.shown[place] for w in planned)
        expected = 2100 / 70
        assert max(abs(shown[i] - expected) for i in ids_of(LADDERS)) < 4.5 * expected**0.5


def fake_vidb(intensity, stderr, n=20):
    """The rows of n ladders with intensities and errors as given, shape (ladders, 5)."""
    ladders = ladders_of(n=n)
    frame = build(ladders, first_readings(ladders, per_text=2))
    frame["intensity"] = np.broadcast_to(intensity, (n, 5)).ravel()
    frame["stderr"] = np.broadcast_to(stderr, (n, 5)).ravel()
    return Vidb(frame)


def drawn(vidb, n=200):
    planned = adaptive_windows(vidb, n=n, rng=rng())
    assert_no_two_of_a_ladder(planned)
    assert {len(w.shown) for w in planned} == {5}
    return planned, Counter(text_id for w in planned for text_id in w.shown)


def test_adaptive_windows_prefer_texts_with_large_errors():
    vague = np.ones((20, 5))
    vague[:8, 2] = 4.0
    vidb = fake_vidb(0.0, vague)
    wide = set(vidb.frame.loc[vidb.frame["stderr"] > 2, "id"])
    windows = [adaptive_windows(vidb, n=1, size=2, rng=rng(seed))[0] for seed in range(400)]
    # 8 of 100 texts have 16 times the variance, so 128 of 220 first texts are theirs; joint errors
    # are then 32 with each other and 17 with the rest, else 17 with these and 2 with the rest.
    first = 128 / 220
    second = first * 7 * 32 / (7 * 32 + 88 * 17) + (1 - first) * 8 * 17 / (8 * 17 + 87 * 2)
    share = np.mean([len(wide.intersection(w.shown)) for w in windows])
    assert share == pytest.approx(first + second, abs=4 * (0.5 / 400) ** 0.5)


def test_adaptive_windows_turn_to_other_texts_once_the_worst_were_shown():
    vague = np.ones((20, 5))
    vague[0, 0] = 6.0
    vidb = fake_vidb(0.0, vague)
    vidb.frame["comparisons"] = 4
    worst = vidb.frame.loc[vidb.frame["stderr"].idxmax(), "id"]
    plans = [adaptive_windows(vidb, n=120, rng=rng(seed)) for seed in range(8)]
    early, late = (
        sum(worst in w.shown for planned in plans for w in planned[part])
        for part in (slice(10), slice(-40, None))
    )
    assert early / 80 > 1.5 * late / 320 > 0


def test_adaptive_windows_show_neighbours_on_the_scale():
    vidb = fake_vidb(np.array([-9.0, -4.5, 0.0, 4.5, 9.0]), 0.7)
    planned, counts = drawn(vidb)
    scale = dict(zip(vidb.frame["id"], vidb.frame["intensity"], strict=True))
    ranges = [np.ptp([scale[text_id] for text_id in w.shown]) for w in planned]
    by_chance = random_windows(ladders_of(n=20), n=200, rng=rng())
    chance = [np.ptp([scale[text_id] for text_id in w.shown]) for w in by_chance]
    assert np.mean(ranges) < 0.3 * np.mean(chance)
    # And yet all texts get their turn.
    assert len(counts) == 100


def test_windows_of_texts_far_apart_can_still_be_filled():
    vidb = fake_vidb(np.linspace(-10, 10, 25).reshape(5, 5), 1e-3, n=5)
    planned, _ = drawn(vidb, n=20)
    assert len(planned) == 20


def squared_error(ladders, records, truth):
    frame = build(ladders, records)
    return float(((frame["intensity"] - on_the_scale(frame, truth)) ** 2).mean())


def test_adaptive_windows_tell_more_than_as_many_random_ones():
    ladders, gains = ladders_of(n=20), []
    for seed in range(6):
        truth = planted(ladders, seed=seed)
        records = first_readings(ladders, seed=seed, per_text=2)
        vidb = Vidb(build(ladders, records))
        before = squared_error(ladders, records, truth)
        plans = (
            adaptive_windows(vidb, records, n=60, rng=rng(seed)),
            random_windows(ladders, records, n=60, rng=rng(seed)),
        )
        gains.append(
            [
                before - squared_error(ladders, [*records, *read(p, truth, seed=seed + 50)], truth)
                for p in plans
            ]
        )
    adaptive, by_chance = np.mean(gains, axis=0)
    assert by_chance > 0.5
    assert adaptive > 1.25 * by_chance


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_a_share_is_between_0_and_1(bad):
    with pytest.raises(InvalidInput, match="repeat_share is a share"):
        connected(LADDERS, repeat_share=bad)


def test_too_few_ladders_or_texts_in_a_window_are_refused():
    few = ladders_of(n=4)
    vidb = Vidb(build(LADDERS, first_readings(LADDERS)))
    of_few = Vidb(vidb.frame[vidb.frame["ladder"].isin([ladder.id for ladder in few])])
    calls = [
        lambda **size: connected(few, **size),
        lambda **size: random_windows(few, n=1, rng=rng(), **size),
        lambda **size: adaptive_windows(of_few, n=1, rng=rng(), **size),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=f"{POWER}: windows of 5 .* 5 ladders .* got 4"):
            call()
        with pytest.raises(InvalidInput, match="two texts or more, got size 1"):
            call(size=1)
        assert call(size=4)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_adaptive_windows_need_errors(bad):
    frame = Vidb(build(LADDERS, first_readings(LADDERS))).frame
    frame.loc[3, "stderr"] = bad
    with pytest.raises(InvalidInput, match="without standard errors"):
        adaptive_windows(Vidb(frame), n=1, rng=rng())


def test_plans_are_written_whole_and_read_as_written(tmp_path):
    path = tmp_path / "new" / "plan.jsonl"
    planned = connected(LADDERS)
    write_plan(planned, path)
    assert read_plan(path) == planned
    assert {type(text_id) for w in read_plan(path) for text_id in w.shown} == {str}
    write_plan(planned[:2], path)
    assert read_plan(path) == planned[:2]
    assert [p.name for p in path.parent.iterdir()] == ["plan.jsonl"]
    write_plan([], path)
    assert read_plan(path) == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"kind": "cross", "shown": ["a", "b"]}, "field 'window' must be text"),
        ({"window": "w1", "shown": ["a", "b"]}, "field 'kind' must be text"),
        ({"window": "w1", "kind": "crossed", "shown": ["a", "b"]}, "kind 'crossed' is none of"),
        ({"window": "w1", "kind": "cross", "shown": ["a"]}, "two or more distinct texts"),
        ({"window": "w1", "kind": "cross", "shown": ["a", "a"]}, "two or more distinct texts"),
        ({"window": "w1", "kind": "cross"}, "'shown' must be a list of text ids"),
        (["w1"], "expected a JSON object"),
    ],
)
def test_bad_plans_are_refused_by_file_and_line(tmp_path, row, complaint):
    good = {"window": "w0", "kind": "cross", "shown": ["a", "b"]}
    path = write_lines(tmp_path / "plan.jsonl", [good, row])
    with pytest.raises(InvalidInput) as caught:
        read_plan(path)
    assert str(caught.value).startswith(f"{path}:2: ") and complaint in str(caught.value)
    assert read_plan(write_lines(path, [good])) == [PlannedWindow("w0", "cross", ("a", "b"))]
