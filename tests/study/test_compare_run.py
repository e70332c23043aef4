"""Many values: what is done is kept, what was killed goes on, what differs is refused."""

import dataclasses
import json

import pytest
from planted_loop import loaded
from planted_ways import VERIFIED_ON, World, card, exact

from valueflow.dose.sweep import Decoding
from valueflow.errors import InvalidInput, NoSignal, StaleArtifact
from valueflow.judges import ScriptedJudge
from valueflow.study import compare_run
from valueflow.study._image import image_bytes
from valueflow.study.compare_page import compare_page
from valueflow.study.compare_plot import compare_figure
from valueflow.study.compare_run import (
    Comparison,
    comparison,
    counts,
    run_comparison,
    settings_of,
    summaries_of,
    write_comparison,
)
from valueflow.study.compare_store import folder_of, save_measurement
from valueflow.vidb import load_starter

VALUES = ("svt/power", "svt/face", "svt/tradition")
HOW = Comparison(
    prompts=VERIFIED_ON[:6], calibration_prompts=(), targets=(-2.0, 0.0, 2.0), n_random=1
)
GAINS = {"person:user": 1.0, "said:system": 0.3}


@pytest.fixture
def world(monkeypatch):
    made = World(gains=GAINS)
    monkeypatch.setattr(compare_run, "vidb_evaluator", lambda *_args, **_options: exact())
    return made.install(monkeypatch)


@pytest.fixture
def go(world, tmp_path):
    def run(values=VALUES, how=HOW, cards=None, judge=None, **options):
        own = cards or {value: card(world, value=value) for value in VALUES}
        return run_comparison(
            loaded(),
            values,
            tmp_path / "out",
            how,
            vidb=load_starter(),
            judge=judge or exact().judge,
            cards=own,
            **options,
        )

    return run


def test_a_killed_run_loses_the_current_value_only(go, world, monkeypatch):
    said, real = [], compare_run.compare_value

    def killed(loaded, card, *args, **options):
        if card.value == "svt/face":
            raise KeyboardInterrupt
        return real(loaded, card, *args, **options)

    monkeypatch.setattr(compare_run, "compare_value", killed)
    with pytest.raises(KeyboardInterrupt):
        go(tell=said.append)
    assert said == ["svt/power (1 of 3): done"]
    monkeypatch.setattr(compare_run, "compare_value", real)
    before = len(world.calls)
    first, failed = go(tell=said.append)
    assert said[1:] == [
        "svt/power: measured before",
        "svt/face (1 of 2): done",
        "svt/tradition (2 of 2): done",
    ]
    assert list(first) == list(VALUES) and not failed
    done = len(world.calls)
    again, _ = go()
    assert len(world.calls) == done > before
    assert repr(summaries_of(again, HOW)) == repr(summaries_of(first, HOW))


@pytest.mark.slow
def test_a_value_that_fails_does_not_stop_the_others(go, monkeypatch):
    def evaluator(_vidb, value, *_args, **_options):
        if value == "svt/face":
            raise NoSignal("does not order texts")
        return exact()

    monkeypatch.setattr(compare_run, "vidb_evaluator", evaluator)
    found, failed = go()
    assert list(found) == ["svt/power", "svt/tradition"]
    assert failed == {"svt/face": "does not order texts"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"prompts": VERIFIED_ON[:7]}, "prompts"),
        ({"targets": (0.0,)}, "targets"),
        ({"n_random": 0}, "n_random"),
    ],
)
def test_results_of_other_settings_are_refused(go, changed, field):
    go(values=["power"])
    with pytest.raises(StaleArtifact, match=f"another setting of '{field}'"):
        go(values=["power"], how=dataclasses.replace(HOW, **changed))
    # What a card brings itself is no setting of the run.
    go(values=["power"], how=dataclasses.replace(HOW, decoding=Decoding(max_new_tokens=3)))


def test_results_of_another_card_are_refused(go, world):
    go(values=["power"])
    other = card(World(gains=GAINS, dose=7.0))
    with pytest.raises(StaleArtifact, match="another setting of 'card'"):
        go(values=["power"], cards={"svt/power": other})


def test_results_of_a_retrained_judge_are_refused(go):
    """Of the same name: a folder would hold intensities of two scales."""
    go(values=["power"])
    known = exact().judge
    retrained = ScriptedJudge(known.intensities, sharpness=0.5, seed=0)
    assert retrained.name == known.name
    with pytest.raises(StaleArtifact, match="another setting of 'judge_fingerprint'"):
        go(judge=retrained)


def test_results_that_do_not_say_which_judge_it_was_are_refused(go, world, tmp_path):
    found, _ = go(values=["power"])
    own = card(world, value="svt/power")
    known = settings_of("svt/power", HOW, loaded(), load_starter(), own, "")
    silent = {name: setting for name, setting in known.items() if name != "judge_fingerprint"}
    save_measurement(found["svt/power"], silent, folder_of(tmp_path / "out", "svt/power"))
    with pytest.raises(StaleArtifact, match="another setting of 'judge_fingerprint'"):
        go(values=["power"])


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"judge": "another"}, "judge"),
        ({"panel": "another"}, "panel"),
        ({"judge_fingerprint": "another"}, "judge"),  # retrained, under the same name
        ({"evaluator_settings": {"n_windows": 99}}, "n windows"),
    ],
)
def test_a_card_of_another_judge_or_panel_is_not_compared(go, world, changed, field):
    own = card(world)
    stale = dataclasses.replace(own, provenance=own.provenance | changed)
    found, failed = go(values=["power"], cards={"svt/power": stale})
    assert not found and f"another {field}" in failed["svt/power"]
    assert not world.calls


def test_prompts_that_a_card_was_calibrated_on_are_refused(go, world):
    stale = card(world, prompts=VERIFIED_ON[:4])
    found, failed = go(values=["power"], cards={"svt/power": stale})
    assert not found and "was calibrated on" in failed["svt/power"]


def test_the_result_is_plain_json_with_every_figure(go, tmp_path):
    found, _ = go(values=["power", "svt/power", "face"])
    assert list(found) == ["svt/power", "svt/face"]
    summaries = summaries_of(found, HOW)
    told = write_comparison(tmp_path, summaries, {"svt/x": "why"}, HOW)
    assert told == json.loads((tmp_path / "comparison.json").read_text())
    own = told["values"]["svt/power"]
    assert set(own["ways"]) == {"activation", "levels", "texts", "both"}
    assert own["ways"]["levels"]["range"]["mean"] == pytest.approx(4.0, abs=0.6)
    assert own["differences"]["activation - levels"]["n"] == 6
    assert told["failed"] == {"svt/x": "why"}
    # Of 8 points against 4, everywhere.
    assert told["counts"] == counts(list(summaries.values()))
    assert told["counts"]["wider"] == told["counts"]["values"] == 2
    assert told["counts"]["narrower"] == 0


def test_two_prompts_are_sure_of_nothing(go, tmp_path):
    """As wide a difference as can be planted, and no interval in any of the outputs."""
    how = dataclasses.replace(HOW, prompts=VERIFIED_ON[:2])
    found, _ = go(values=["power"], how=how)
    summaries = summaries_of(found, how)
    told = write_comparison(tmp_path, summaries, {}, how)
    assert (told["counts"]["values"], told["counts"]["wider"]) == (1, 1)
    assert (told["counts"]["surely"], told["counts"]["narrower"]) == (0, 0)
    difference = told["values"]["svt/power"]["differences"]["activation - levels"]
    assert (difference["low"], difference["high"], difference["n"]) == (None, None, 2)
    page = compare_page(list(summaries.values()), limit=0.7)
    assert "(0 with an interval above 0)" in page and "[–, –]" in page and "nan" not in page
    assert image_bytes(compare_figure(list(summaries.values()), limit=0.7))


def test_the_shipped_suites_have_so_many_prompts_and_share_none():
    how = comparison(n_prompts=40, n_calibration=32, max_new_tokens=24, judge="hives", seed=3)
    assert (len(how.prompts), len(how.calibration_prompts)) == (40, 32)
    assert not set(how.prompts) & set(how.calibration_prompts)
    assert how.decoding.max_new_tokens == 24 and how.seed == 3
    for n in (1, 65):
        with pytest.raises(InvalidInput, match="verification prompts: expected 2 to 64"):
            comparison(n_prompts=n, n_calibration=8, max_new_tokens=8, judge="hives", seed=0)
