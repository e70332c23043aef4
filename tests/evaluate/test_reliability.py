import functools
import math

import numpy as np
import pytest
from planted_judges import Planted, Rating, Silent

from valueflow.evaluate import measure_reliability
from valueflow.evaluate.verdict import concerns, verdict
from valueflow.vidb import load_starter


@functools.cache
def report(kind=Planted, **planted):
    """One report per planted judge; the settings of the judge are the arguments."""
    return measure_reliability(
        load_starter(), "power", kind(**planted), n_texts=40, n_windows=6, n_pairs=150, seed=3
    )


GOOD = {"sharpness": 0.8}


def test_a_good_judge_passes_and_its_figures_are_those_planted():
    found = report(**GOOD)
    assert (verdict(found), concerns(found)) == ("fit", [])
    texts = found.texts
    assert texts.sharpness == pytest.approx(0.8, rel=0.15)
    assert texts.agreement.value > 0.97 and texts.error.value < 1.2
    assert abs(texts.shift.value) < 0.5 and texts.sign_flips.value < 0.05
    assert found.unranked.value == 0 and found.reasons == {}
    assert texts.error.n == 40 and found.settings == {"n_windows": 6, "window_size": 6, "seed": 3}


def test_a_text_is_never_among_anchors_of_its_own_ladder():
    class Watching(Planted):
        windows = []

        def rank(self, value, windows):
            self.windows.append(windows)
            return super().rank(value, windows)

    judge = Watching()
    vidb = load_starter()
    measure_reliability(vidb, "power", judge, n_texts=20, n_windows=3, n_order=5, n_pairs=5, seed=0)
    of = vidb.of("power").frame
    ladder = dict(zip(of["text"], of["ladder"], strict=True))
    split = dict(zip(of["text"], of["split"], strict=True))
    calibration, _, *measured = judge.windows
    for window in calibration:
        assert sorted(split[item.text] for item in window) == ["test"] * 5 + ["validation"]
    assert len(measured) == 8  # 4 ladders, twice
    for windows in measured:
        # The scored text is the one of the ladder that all windows of this call have in common.
        for window in windows:
            own = [ladder[item.text] for item in window]
            shared = set(own).intersection(*({ladder[i.text] for i in w} for w in windows))
            (home,) = [name for name in shared if all(_n(w, ladder, name) == 1 for w in windows)]
            assert own.count(home) == 1


def _n(window, ladder, name):
    return sum(ladder[item.text] == name for item in window)


def test_the_spread_of_repeated_measurements_is_what_the_error_bars_said():
    texts = report(**GOOD).texts
    # Judge noise and the draw of anchors are all that differs, and the bars hold them.
    assert texts.retest_sd.low < 1.2 and texts.retest.value > 0.95
    assert texts.calibration.misreading.value < 0.9 and texts.calibration.learned < 0.9


def test_misreading_makes_errors_larger_and_the_bars_with_them():
    clear, blurred = report(**GOOD).texts, report(sharpness=0.8, misreading=2.5).texts
    assert blurred.error.low > 1.5 * clear.error.value
    bars = blurred.calibration
    assert bars.learned == pytest.approx(2.5, abs=1.0) and clear.calibration.learned < 0.9
    assert bars.covered_95.value > 0.85 and bars.covered_95.high > 0.95
    # Anchors are misread too, which looks like noise: sharpness and with it `stderr` take a part.
    assert blurred.sharpness < 0.6 * clear.sharpness


def test_a_judge_whose_single_texts_tell_nothing_is_weak_at_best():
    found = report(sharpness=1.0, misreading=12.0)
    told = " ".join(concerns(found))
    assert verdict(found) != "fit"
    assert "measure on the other side" in told and "to call every text neutral" in told


@pytest.mark.parametrize(("place", "where"), [(1.0, "lower"), (-1.0, "higher")])
def test_a_position_bias_is_found_by_size(place, where):
    found = report(sharpness=1.0, place=place)
    slope = found.order.position_slope
    assert slope.low > 0.05 if place > 0 else slope.high < -0.05
    assert any(f"shown later are ranked {where}" in told for told in concerns(found))
    assert verdict(found) == "weak"
    # Against a slow count: places lost per place, from the grades alone.
    assert slope.value == pytest.approx(_expected_slope(place), abs=0.05)


def _expected_slope(place):
    """Slope of a noisy judge's ranks over places, many windows of graded texts, least squares."""
    rng = np.random.default_rng(0)
    known = np.array(sorted(Planted().intensities(_Text(t)) for t in _test_texts()))
    edges = np.linspace(known.min(), known.max(), 7)
    buckets = [known[(known >= a) & (known <= b)] for a, b in zip(edges, edges[1:], strict=False)]
    slopes = []
    for _ in range(4000):
        window = rng.permutation([rng.choice(bucket) for bucket in buckets])
        ranks = []
        for shown in (window, window[::-1]):
            read = shown + place * (2.5 - np.arange(6)) + rng.gumbel(size=6)
            ranks.append(np.argsort(np.argsort(-read)))
        away = np.arange(6) - 2.5
        slopes.append((ranks[0] + ranks[1]) @ away / 2 / (away @ away))
    return np.mean(slopes)


class _Text:
    context = None

    def __init__(self, text):
        self.text = text


def _test_texts():
    of = load_starter().of("power", "test").frame
    return of["text"][of["register"].isin(["answer", "brief"])]


def test_a_judge_that_only_scores_has_no_bias_of_place_or_company_at_all():
    order = report(sharpness=None, misreading=2.0).order
    for figure in (order.position_slope, order.context_excess):
        assert (figure.value, figure.low, figure.high) == (0.0, 0.0, 0.0)
    assert order.reshuffled.value == order.other_company.value == 0.0
    assert order.reshuffled.n == 150 and order.position_slope.n == 60


def test_noise_turns_pairs_round_but_is_not_taken_for_company():
    order = report(**GOOD).order
    assert order.reshuffled.low > 0.1
    assert order.context_excess.low < 0 < order.context_excess.high


def test_a_dependence_on_company_is_found_by_size():
    order = report(sharpness=None, company=0.6).order
    # Company of mean -5 or +5: texts of unlike sign move by about 2 * 0.6 * 4 points against each
    # other, past the 4 points that pairs are apart at most; half the pairs are of unlike sign.
    assert order.reshuffled.value == 0
    assert 0.3 < order.context_excess.value < 0.6
    noisy = report(sharpness=0.8, company=0.6)
    assert noisy.order.context_excess.low > 0.05
    assert any("the company of two texts" in told for told in concerns(noisy))


def test_a_random_judge_is_not_fit_and_has_no_figures_of_texts():
    found = report(sharpness=1e-9)
    assert verdict(found) == "not fit" and found.texts is None and found.swap is None
    assert found.windows_right.low < 0.55 and abs(found.windows_right.value - 0.5) < 0.06
    assert "does not order texts by svt/power" in concerns(found)[0]
    assert "hardly better than chance" in concerns(found)[1]
    assert found.order.reshuffled.value == pytest.approx(0.5, abs=0.12)


def test_a_judge_of_little_signal_is_not_fit():
    found = report(sharpness=1.0, misreading=40.0)
    assert verdict(found) == "not fit" and concerns(found)


def test_a_judge_that_orders_nothing_is_reported_with_its_reason():
    found = report(Silent)
    assert verdict(found) == "not fit" and found.texts is None
    assert found.unranked.value == 1.0 and set(found.reasons) == {"no comment"}
    assert math.isnan(found.windows_right.value) and math.isnan(found.order.position_slope.value)
    assert "ordered none of 240 windows" in concerns(found)[0]
    assert any("left 100% of windows unordered: no comment" in told for told in concerns(found))


def test_windows_that_fail_now_and_then_are_counted():
    found = report(sharpness=0.8, failure_rate=0.2)
    assert found.unranked.value == pytest.approx(0.2, abs=0.035)
    assert sum(found.reasons.values()) == round(found.unranked.value * found.unranked.n)
    assert f"it left {found.unranked.value:.0%} of windows" in concerns(found)[0]


@pytest.mark.slow
def test_a_second_judge_that_sees_all_shifted_agrees_but_for_the_noise():
    vidb, first = load_starter(), Planted(sharpness=2.0, misreading=3.0)
    found = measure_reliability(
        vidb, "power", first, second=Planted(sharpness=2.0, seed=9), n_texts=40, seed=0
    )
    swap = found.swap
    # One reads rightly, the other with an error of 3 on texts that spread by about 6.
    assert swap.correlation.low < 6 / math.hypot(6, 3) < swap.correlation.high
    assert swap.problem is None and swap.difference.low < 0.5 and swap.difference.high > -0.5
    nobody = measure_reliability(
        vidb, "power", first, second=Silent(), n_texts=20, n_windows=3, seed=0
    ).swap
    assert "ordered none" in nobody.problem and math.isnan(nobody.correlation.value)


def test_rating_is_set_beside_ranking():
    found = report(Rating, sharpness=1.0, noise=3.0, push=4.0).rating
    assert found.rating.retest_sd.value == pytest.approx(2.9, abs=0.7)
    assert found.ranking.retest_sd.high < found.rating.retest_sd.low
    assert found.rating.noise.value == pytest.approx(0.5, abs=0.2)
    # Pushed by 4, many texts against the value are rated as for it.
    assert found.rating.sign_flips.low > 0.08 > found.ranking.sign_flips.value
    assert found.rating.agreement.value < found.ranking.agreement.value
    assert found.rating.unmeasured == found.ranking.unmeasured == 0


@pytest.mark.slow
def test_texts_without_a_rating_are_counted_and_never_guessed():
    judge = Rating(sharpness=1.0, noise=0.1, silent_on=5)
    found = measure_reliability(load_starter(), "power", judge, n_texts=20, n_windows=3, seed=0)
    assert found.rating.reasons == {"refused": 10} and found.rating.rating.unmeasured == 5
    first, second = judge.asked
    assert first != second and sorted(first) == sorted(second)


def test_same_seed_same_report_other_seed_other_texts():
    def run(seed):
        judge = Planted(sharpness=1.0, seed=7)
        return measure_reliability(
            load_starter(), "power", judge, n_texts=20, n_windows=3, n_pairs=10, seed=seed
        )

    first, again, other = run(0), run(0), run(1)
    assert first.order == again.order and first.texts.error == again.texts.error
    assert first.texts.error != other.texts.error
