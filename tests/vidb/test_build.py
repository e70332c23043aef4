import functools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from valueflow.errors import InvalidInput
from valueflow.ranking.plackett_luce import fit
from valueflow.ranking.simulate import simulate_rankings
from valueflow.ranking.windows import cross_windows, group_windows
from valueflow.vidb.build import COLUMNS, RIDGE, build, to_intensity
from valueflow.vidb.schema import Ladder, RankingRecord

N_LADDERS = 24


def ladders_of(value="svt/power", n=N_LADDERS):
    return [
        Ladder(
            f"{value}/{'answer' if i % 2 else 'post'}-{i // 2 + 1:02}",
            "answer" if i % 2 else "post",
            f"scenario {i}",
            f"question {i}?" if i % 2 else None,
            tuple(f"{value} {i} {rung}" for rung in range(5)),
        )
        for i in range(n)
    ]


def ids_of(ladders):
    return [ladder.text_id(rung) for ladder in ladders for rung in range(1, 6)]


def planted(n=N_LADDERS, *, rng):
    """Positions of n ladders, about 20 = 1 / RIDGE in variance, some texts off their rung."""
    return np.tile([-6.0, -3, 0, 3, 6], n) + rng.normal(0, 1, 5 * n)


def records_of(ladders, theta, *, per_item, rng):
    ids = ids_of(ladders)
    groups = [text_id.rpartition("/")[0] for text_id in ids]
    windows = group_windows(groups, rng=rng) + cross_windows(groups, per_item=per_item, rng=rng)
    rankings = simulate_rankings(theta, windows, rng=rng)
    return [
        RankingRecord(
            f"w{number}",
            "ladder" if number < len(ladders) else "cross",
            "simulated",
            tuple(ids[i] for i in window),
            tuple(ids[i] for i in ranking),
        )
        for number, (window, ranking) in enumerate(zip(windows, rankings, strict=True))
    ]


@functools.cache
def built(seed=1, per_item=12):
    rng = np.random.default_rng(seed)
    theta = planted(rng=rng)
    records = records_of(ladders_of(), theta, per_item=per_item, rng=rng)
    return theta, records, build(ladders_of(), records)


def test_planted_intensities_are_recovered():
    theta, _, frame = built()
    assert spearmanr(theta, frame["intensity"]).statistic > 0.95
    neutral = np.median(theta[2::5])
    assert np.corrcoef(np.arctanh(frame["intensity"] / 10), theta - neutral)[0, 1] > 0.97


def test_standard_errors_of_intensities_are_honest():
    misses = []
    for seed in range(1, 7):
        theta, _, frame = built(seed, per_item=4)
        from_neutral = theta - np.median(theta[2::5])
        extreme = np.median(np.abs(from_neutral.reshape(-1, 5)[:, [0, 4]]))
        truth = 10 * np.tanh(from_neutral / extreme * np.arctanh(0.8))
        misses.append((frame["intensity"] - truth) / frame["stderr"])
    misses = np.concatenate(misses)
    assert np.std(misses) == pytest.approx(1.0, abs=0.12)
    assert 0.93 <= (np.abs(misses) <= 1.96).mean() <= 0.98


def test_standard_errors_of_positions_are_honest_within_one_deviation_of_the_prior():
    rng = np.random.default_rng(2)
    n, misses, far = 60, [], []
    for _ in range(40):
        theta = rng.normal(0, RIDGE**-0.5, n)
        theta -= theta.mean()
        rankings = simulate_rankings(theta, cross_windows(range(n), per_item=4, rng=rng), rng=rng)
        fitted = fit(rankings, n, ridge=RIDGE)
        within = np.abs(theta) < RIDGE**-0.5
        misses.append(((fitted.theta - theta) / fitted.stderr)[within])
        far.append((fitted.theta / theta)[~within])
    misses = np.concatenate(misses)
    assert np.std(misses) == pytest.approx(1.0, abs=0.05)
    assert 0.93 <= (np.abs(misses) <= 1.96).mean() <= 0.97
    # Farther out few rankings go against a text, and the prior pulls it in.
    assert 0.5 < np.mean(np.concatenate(far)) < 0.9


def test_scale_is_fixed_by_neutral_and_extreme_rungs():
    _, _, frame = built()
    assert frame.loc[frame["rung"] == 3, "intensity"].median() == pytest.approx(0.0, abs=1e-9)
    extreme = frame.loc[frame["rung"].isin([1, 5]), "intensity"].abs()
    # The median of an even number of tanh values is not quite the tanh of their median.
    assert extreme.median() == pytest.approx(8.0, abs=0.05)
    assert frame["intensity"].abs().max() < 10
    assert (frame["stderr"] > 0).all()


def test_intensity_is_monotone_odd_and_its_error_follows_the_slope():
    theta = np.linspace(-30, 30, 121)
    stderr = np.full(121, 0.01)
    intensity, error = to_intensity(theta, stderr, 5.0)
    assert (np.diff(intensity) > 0).all() and np.abs(intensity).max() < 10
    assert intensity == pytest.approx(-intensity[::-1])
    high, low = (to_intensity(theta + s * stderr, stderr, 5.0)[0] for s in (1, -1))
    assert error == pytest.approx((high - low) / 2, rel=1e-4)
    assert to_intensity(np.array([5 * np.arctanh(0.8)]), stderr[:1], 5.0)[0] == pytest.approx(8.0)


def test_rows_are_the_texts_with_all_they_are_known_by():
    _, records, frame = built()
    ladders = ladders_of()
    assert tuple(frame.columns) == COLUMNS
    assert frame["id"].tolist() == ids_of(ladders)
    assert frame["text"].tolist() == [text for ladder in ladders for text in ladder.rungs]
    assert frame["split"].tolist() == [ladder.split for ladder in ladders for _ in range(5)]
    contexts = frame["context"].tolist()
    assert contexts[:10] == [None] * 5 + ["question 1?"] * 5
    met = [i for record in records for i in record.shown]
    assert frame["comparisons"].tolist() == [4 * met.count(i) for i in frame["id"]]
    assert set(frame["licence"]) == {"CC BY 4.0"}
    own = build(ladders, records, source="mine", licence="CC0")
    assert set(own["source"]) == {"mine"} and set(own["licence"]) == {"CC0"}


def test_no_context_at_all_is_none_too():
    ladders = [ladder for ladder in ladders_of() if ladder.context is None]
    rng = np.random.default_rng(3)
    frame = build(ladders, records_of(ladders, planted(12, rng=rng), per_item=2, rng=rng))
    assert all(context is None for context in frame["context"])


def test_order_of_records_does_not_matter_and_building_is_deterministic():
    _, records, frame = built()
    pd.testing.assert_frame_equal(build(ladders_of(), records), frame)
    turned = build(ladders_of(), records[::-1])
    pd.testing.assert_frame_equal(turned, frame, rtol=1e-6)


def test_values_are_built_apart():
    rng = np.random.default_rng(4)
    ladders = {value: ladders_of(value, 8) for value in ("svt/power", "mft/care-harm")}
    records = {
        value: records_of(own, planted(8, rng=rng), per_item=3, rng=rng)
        for value, own in ladders.items()
    }
    both = build(sum(ladders.values(), []), sum(records.values(), []))
    apart = [build(ladders[value], records[value]) for value in sorted(ladders)]
    pd.testing.assert_frame_equal(both, pd.concat(apart, ignore_index=True))


def test_a_repeat_adds_and_a_review_replaces():
    _, records, frame = built()
    wrong = replace(records[0], order=records[0].order[::-1])
    review = replace(records[0], kind="review", ranker="second reader")
    reviewed = build(ladders_of(), [wrong, *records[1:], review])
    pd.testing.assert_frame_equal(reviewed, frame, rtol=1e-6)
    assert reviewed["comparisons"].tolist() == frame["comparisons"].tolist()
    shown = list(records[0].shown)
    repeated = build(ladders_of(), [*records, replace(records[0], kind="repeat")])
    more = repeated.set_index("id")["comparisons"] - frame.set_index("id")["comparisons"]
    assert more[shown].tolist() == [4] * 5 and more.sum() == 20


def test_a_reversed_window_moves_its_texts():
    _, records, frame = built()
    wrong = build(ladders_of(), [replace(records[0], order=records[0].order[::-1]), *records[1:]])
    moved = (wrong["intensity"] - frame["intensity"]).abs()
    shown = frame["id"].isin(records[0].shown)
    assert moved[shown].min() > 0.1 and moved[shown].mean() > 3 * moved[~shown].mean()


def test_texts_that_no_ladder_has_are_refused():
    _, records, _ = built()
    for stranger in ("svt/power/post-99/1", "svt/pwoer/post-01/1", "mft/care-harm/post-01/1"):
        for place in (0, 4):
            shown = [*records[0].shown[:place], stranger, *records[0].shown[place + 1 :]]
            bad = replace(records[0], window="w-bad", shown=tuple(shown), order=tuple(shown))
            with pytest.raises(InvalidInput, match=f"window w-bad: text '{stranger}' is in no"):
                build(ladders_of(), [*records, bad])


def test_a_value_without_rankings_is_refused():
    _, records, _ = built()
    with pytest.raises(InvalidInput, match="svt/hedonism: no rankings"):
        build([*ladders_of(), *ladders_of("svt/hedonism", 2)], records)


def test_texts_that_no_ranking_connects_are_refused():
    _, records, _ = built()
    lone = ladders_of(n=N_LADDERS + 1)[-1]
    texts = tuple(lone.text_id(rung) for rung in range(1, 6))
    island = RankingRecord("w-island", "ladder", "simulated", texts, texts)
    for more in ([], [island]):
        with pytest.raises(InvalidInput, match=f"svt/power: 5 texts .* first {lone.text_id(1)}"):
            build([*ladders_of(), lone], [*records, *more])


def test_no_ladders_or_one_twice_is_refused():
    _, records, _ = built()
    with pytest.raises(InvalidInput, match="needs ladders"):
        build([], [])
    with pytest.raises(InvalidInput, match="ladder svt/power/post-01 is there twice"):
        build([*ladders_of(), ladders_of()[0]], records)
