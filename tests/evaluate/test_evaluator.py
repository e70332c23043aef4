import functools
import math

import numpy as np
import pytest
from evaluator_cases import ANCHORS, PANEL, SHARPNESS, at, evaluator, fitted, read, texts

from valueflow.errors import InvalidInput, NotFitted
from valueflow.evaluate import Panel, vidb_evaluator
from valueflow.judges import ScriptedJudge, Unranked
from valueflow.ranking.anchored import fit_one
from valueflow.theories import get_value
from valueflow.typing import Item
from valueflow.vidb import load_starter


class Recording:
    """A scripted judge that keeps the windows it was shown."""

    name = "recording"

    def __init__(self, judge):
        self.judge, self.windows = judge, []

    def fingerprint(self):
        return self.judge.fingerprint()

    def rank(self, value, windows):
        self.windows.append(list(windows))
        return self.judge.rank(value, windows)


@functools.cache
def scored(n_windows=10):
    """Texts of known intensity, measured; estimates, errors and truth."""
    items, known = texts(400, seed=1)
    results = fitted(n=150, n_windows=n_windows).score(items)
    return results, known


def test_estimates_are_unbiased_over_the_whole_scale():
    results, known = scored()
    estimates = np.array([r.central for r in results])
    for low in (-8, -4, 0, 4):
        inside = (known >= low) & (known < low + 4)
        bias = (estimates - known)[inside].mean()
        assert abs(bias) < 0.35, (low, bias)
    slope, offset = np.polyfit(known, estimates, 1)
    assert slope == pytest.approx(1, abs=0.05) and offset == pytest.approx(0, abs=0.25)


def test_intervals_from_the_standard_errors_cover():
    results, known = scored()
    ok = np.array([not r.status.endswith("panel") for r in results])
    assert ok.mean() > 0.97
    z = np.array([(r.estimate - x) / r.stderr for r, x in zip(results, known, strict=True)])[ok]
    assert 0.93 <= (np.abs(z) < 1.96).mean() <= 0.97
    assert z.std() == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("sharpness", [0.2, 0.5, 1.5])
def test_the_judges_sharpness_is_recovered(sharpness):
    found = fitted(sharpness=sharpness)
    assert found.sharpness_ == pytest.approx(sharpness, rel=0.1)
    # The panel's intensities are true here, so the scale has nothing to mend.
    assert found.scale_.slope_ == pytest.approx(1, abs=0.1)
    assert found.scale_.offset_ == pytest.approx(0, abs=0.4)


def test_more_windows_make_smaller_errors():
    items, _ = texts(60, seed=13)
    found = fitted()
    errors = []
    for found.n_windows in (3, 12):
        errors.append(np.nanmedian([r.stderr for r in found.score(items)]))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.15)


def test_a_panel_on_another_scale_is_mended_by_the_graded_texts():
    # Anchors graded at half their true intensity, as by a timid annotator.
    timid = Panel("svt/power", PANEL.items, ANCHORS / 2)
    items, known = texts(100, seed=2)
    results = fitted(panel=timid, n=200).score(items)
    slope = np.polyfit(known, [r.central for r in results], 1)[0]
    assert slope == pytest.approx(1, abs=0.08)


def test_a_judge_that_never_errs_is_very_exact():
    items, known = texts(60, seed=3)
    results = fitted(sharpness=None).score(items)
    errors = np.array([r.central for r in results]) - known
    # 61 anchors, 8 windows of 5: within some spacings of the anchors.
    assert np.abs(errors).mean() < 1 and abs(errors.mean()) < 0.3


@pytest.mark.parametrize("sign", [0.0, -1.0], ids=["random", "backwards"])
def test_a_judge_without_signal_is_refused(sign):
    for seed in range(5):
        judge = ScriptedJudge(lambda item: sign * read(item), sharpness=0.5, seed=seed)
        with pytest.raises(InvalidInput, match="'scripted' does not order texts by svt/power"):
            fitted(judge=judge, n=60)


def test_a_perfectly_backward_judge_is_refused_too():
    judge = ScriptedJudge(lambda item: -read(item), seed=0)
    with pytest.raises(InvalidInput, match="does not order"):
        fitted(judge=judge, n=20)


def test_texts_of_the_panel_cannot_calibrate_it_even_with_another_context():
    items, known = texts(20, seed=4)
    for leak in (PANEL.items[7], Item(PANEL.items[7].text, "asked")):
        with pytest.raises(InvalidInput, match="texts of the panel"):
            evaluator().fit([*items, leak], [*known, 0.0])


def test_as_many_intensities_as_texts():
    items, known = texts(20, seed=4)
    with pytest.raises(InvalidInput, match="20 graded texts but 19 intensities"):
        evaluator().fit(items, known[1:].tolist())


def test_score_needs_fit_unless_in_paper_mode():
    with pytest.raises(NotFitted):
        evaluator().score([at(1.0)])
    with pytest.raises(NotFitted, match="call fit with graded texts"):
        evaluator().check_fitted()
    fitted(n=40).check_fitted()
    evaluator(mode="paper").check_fitted()
    assert evaluator(mode="paper").score([at(1.0)])[0].status == "ok"


def test_a_fit_that_fails_leaves_the_older_one():
    found = fitted()
    before = found.fingerprint()
    items, known = texts(60, seed=5)
    with pytest.raises(InvalidInput):
        found.fit(items, (-known).tolist())
    with pytest.raises(InvalidInput):
        found.fit(items[:4], known[:4].tolist())
    assert found.fingerprint() == before


def test_a_text_that_no_window_ordered_has_no_number():
    found = fitted()
    found.judge = ScriptedJudge(read, failure_rate=1.0, seed=0)
    (result,) = found.score([at(3.0)])
    assert result.status == "unranked" and result.n_rankings == 0
    nothing = (result.estimate, result.stderr, result.bound, result.central, result.low)
    assert all(map(math.isnan, nothing)) and math.isnan(result.high)


def test_windows_that_failed_are_left_out_and_counted():
    judge = ScriptedJudge(read, sharpness=SHARPNESS, failure_rate=0.5, seed=1)
    found = fitted(judge=judge, n_windows=16)
    items, known = texts(60, seed=6)
    results = found.score(items)
    assert np.mean([r.n_rankings for r in results]) == pytest.approx(8, abs=0.8)
    errors = np.array([r.central for r in results]) - known
    assert abs(errors.mean()) < 0.5
    clean = fitted(n_windows=16).score(items)
    ratio = np.nanmedian([r.stderr for r in results]) / np.nanmedian([r.stderr for r in clean])
    assert ratio == pytest.approx(math.sqrt(2), rel=0.15)


@pytest.mark.parametrize(("intensity", "status"), [(60.0, "above_panel"), (-60.0, "below_panel")])
def test_texts_outside_the_panel_have_a_bound_and_no_estimate(intensity, status):
    found = fitted()
    (result,) = found.score([at(intensity)])
    assert result.status == status and math.isnan(result.estimate)
    assert 5 < abs(result.bound) < 15 and np.sign(result.bound) == np.sign(intensity)
    # The interval is open outwards; its other end is a stricter limit than the bound.
    closed, opened = (result.low, result.high)[:: 1 if intensity > 0 else -1]
    assert opened == math.copysign(math.inf, intensity)
    assert abs(closed) < abs(result.bound) < abs(result.central)


@pytest.mark.slow
def test_the_bound_is_below_the_truth_in_19_of_20():
    found = fitted(n=300, n_windows=2)
    items = [at(8.0, f"strong {i}") for i in range(800)]
    above = [r for r in found.score(items) if r.status == "above_panel"]
    # P(all won | at the bound) is 5%, so at the truth no more than that fall above it.
    wrong = sum(r.bound > 8.0 for r in above) / len(items)
    assert len(above) > 60 and wrong < 0.065


def test_paper_mode_is_fit_one_on_the_same_windows():
    judge = Recording(ScriptedJudge(read, sharpness=SHARPNESS, seed=3))
    items, _ = texts(12, seed=7)
    items += [at(40.0), at(-40.0)]
    results = evaluator(judge=judge, mode="paper", seed=5).score(items)
    verdicts = ScriptedJudge(read, sharpness=SHARPNESS, seed=3).rank(
        get_value("power"), judge.windows[0]
    )
    index = {item: i for i, item in enumerate(PANEL.items)}
    for n, result in enumerate(results):
        own = slice(8 * n, 8 * n + 8)
        rankings = [
            tuple(index.get(window[i], len(PANEL)) for i in verdict)
            for window, verdict in zip(judge.windows[0][own], verdicts[own], strict=True)
        ]
        expected = fit_one(rankings, [*ANCHORS, math.nan], item=len(PANEL), mode="paper")
        assert (result.estimate, result.stderr) == (expected.estimate, expected.stderr)
        assert (result.status, result.n_rankings) == (expected.status, 8)
    # The paper always has a number; means over texts use it.
    assert [r.status for r in results[-2:]] == ["above_panel", "below_panel"]
    assert [r.central for r in results] == [r.estimate for r in results]
    assert all(-10 <= r.central <= 10 for r in results)


def test_same_seed_same_scores():
    items, _ = texts(20, seed=8)
    runs = [fitted(seed=s, judge_seed=4).score(items) for s in (0, 0, 1)]
    assert [repr(r) for r in runs[0]] == [repr(r) for r in runs[1]]
    assert [repr(r) for r in runs[0]] != [repr(r) for r in runs[2]]


def test_other_seeds_give_nearly_the_same_intensities():
    items, _ = texts(80, seed=9)
    runs = [fitted(seed=s, judge_seed=s).score(items) for s in (0, 1)]
    first, second = (np.array([r.central for r in run]) for run in runs)
    assert np.corrcoef(first, second)[0, 1] > 0.93


def test_the_ith_text_meets_the_same_anchors_in_every_call():
    judge = Recording(ScriptedJudge(read, seed=0))
    found = evaluator(judge=judge, mode="paper", n_windows=5, window_size=4)
    for items in (texts(6, seed=10)[0], texts(6, seed=11)[0], texts(3, seed=12)[0]):
        found.score(items)
        own = {item: None for item in items}
        masked = [[own.get(item, item) for item in window] for window in judge.windows[-1]]
        judge.windows[-1] = masked
    first, second, shorter = judge.windows
    assert len(first) == 30 and all(window.count(None) == 1 for window in first)
    assert first == second and first[:15] == shorter
    places = [window.index(None) for window in first]
    assert len(set(places)) == 4


def test_no_texts_no_scores():
    assert fitted().score([]) == []


def test_the_fingerprint_says_what_makes_scores_comparable():
    other = Panel("svt/power", PANEL.items[1:], ANCHORS[1:])
    variants = [
        evaluator(),
        evaluator(judge_seed=1),
        evaluator(panel=other),
        evaluator(n_windows=9),
        evaluator(window_size=5),
        evaluator(sampling="random"),
        evaluator(mode="paper"),
        evaluator(seed=1),
        fitted(n=60),
        fitted(n=61),
    ]
    assert len({v.fingerprint() for v in variants}) == len(variants)
    assert evaluator().fingerprint() == evaluator().fingerprint()


@pytest.mark.parametrize("verdict", [(0, 1, 2), (0, 1, 2, 3, 4, 4), (1, 2, 3, 4, 5, 6)])
def test_a_verdict_that_is_no_permutation_is_refused(verdict):
    class Sloppy(ScriptedJudge):
        def rank(self, value, windows):
            return [Unranked("first")] + [verdict] * (len(windows) - 1)

    with pytest.raises(InvalidInput, match="expected a permutation"):
        evaluator(judge=Sloppy(read, seed=0), mode="paper").score([at(0.0)])


def test_a_value_of_the_database_is_measured_on_its_test_split_and_scaled_on_validation():
    vidb = load_starter()
    of = vidb.of("power").frame
    known = dict(zip(of["text"], of["intensity"].astype(float), strict=True))
    judge = ScriptedJudge(known, sharpness=0.8, seed=0)
    found = vidb_evaluator(vidb, "power", judge, n_windows=16, seed=0)
    anchors = (of["split"] == "test") & of["register"].isin(["answer", "brief"])
    assert {i.text for i in found.panel.items} == set(of["text"][anchors])
    rows = of[of["split"] == "judge"]
    results = found.score([Item(t, c) for t, c in zip(rows["text"], rows["context"], strict=True)])
    errors = np.array([r.central for r in results]) - rows["intensity"].to_numpy()
    assert found.sharpness_ == pytest.approx(0.8, rel=0.15)
    assert abs(errors.mean()) < 0.3 and np.abs(errors).mean() < 1.0
    assert not hasattr(vidb_evaluator(vidb, "power", judge, mode="paper", seed=0), "scale_")
