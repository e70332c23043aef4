import json
import math

import pytest
from planted_judges import Planted, Rating, Silent

SMALL = ["--value", "power", "--n", "20", "--windows", "3"]


@pytest.fixture
def judges(monkeypatch):
    """Puts planted judges in the place of the default one and the untrained one."""

    def install(first, second=None):
        known = {"hives": first, "prototype": second}
        monkeypatch.setattr("valueflow.judges.base.get_judge", known.__getitem__)

    return install


def test_a_good_judge_is_said_to_be_fit_with_all_its_figures(run, tmp_path, judges):
    judges(Planted(sharpness=1.5), Planted(sharpness=1.5, seed=1))
    file = tmp_path / "r.json"
    done = run("reliability", *SMALL, "--second", "prototype", "--json", file)
    assert done.code == 0, done.err
    assert "verdict: fit" in done.out and "correlation with planted" in done.out
    told = json.loads(file.read_text())
    agreement = told["texts"]["agreement"]
    assert agreement["low"] <= agreement["value"] <= agreement["high"] and agreement["n"] > 100
    shown = f"{agreement['value']:.3f} ({agreement['low']:.3f} to {agreement['high']:.3f})"
    assert shown in done.out
    assert told["swap"]["correlation"]["value"] > 0.95 and told["rating"] is None
    assert told["verdict"] == "fit" and told["concerns"] == [] and told["value"] == "svt/power"


def test_a_judge_that_rates_too_has_both_ways_side_by_side(run, judges):
    judges(Rating(sharpness=1.0, noise=3.0))
    done = run("reliability", *SMALL)
    assert done.code == 0, done.err
    assert "ranking: texts in right order" in done.out and "rating: texts in right" in done.out


@pytest.mark.parametrize(
    ("judge", "sentence"),
    [
        (Planted(sharpness=1e-9), "hardly better than chance"),
        (Silent(), "left 100% of windows unordered: no comment"),
    ],
    ids=["random", "silent"],
)
def test_a_judge_that_is_not_fit_is_said_to_be_so(run, tmp_path, judges, judge, sentence):
    judges(judge)
    file = tmp_path / "r.json"
    done = run("reliability", *SMALL, "--json", file)
    assert done.code == 0, done.err
    assert "verdict: not fit" in done.out and sentence in done.out
    told = json.loads(file.read_text())
    assert told["texts"] is None and told["problem"]
    numbers = [x for x in told["windows_right"].values() if isinstance(x, float)]
    assert not any(map(math.isnan, numbers))


def test_a_biased_judge_is_weak_in_words(run, judges):
    judges(Planted(sharpness=1.0, place=1.5))
    done = run("reliability", *SMALL)
    assert "verdict: weak" in done.out and "shown later are ranked lower" in done.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--value", "powr"], ["svt/power"]),
        (["--value", "power", "--judge", "hive"], ["hives"]),
        (["--value", "power", "--second", "hive"], ["hives"]),
    ],
)
def test_wrong_names_are_refused_before_anything_is_loaded(run, judges, options, words):
    judges(None)
    assert run("reliability", *options).refused(*words)
